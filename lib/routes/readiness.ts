import { whyUnusable } from "../db/sqlite_errors.ts";
import { orAfter } from "../deadline.ts";
import { AppError } from "../errors.ts";
import { VERSION } from "../version.ts";
import type { RouteParts } from "./routes.ts";

/** A check is not repeated within this time: a flood of probes costs two writes a second. */
const KEPT_MS = 500;
/** A response waits this long for a check under way; after that it tells what was known before. */
const WAIT_MS_MAX = 250;
/** A store that has not answered by then counts as unavailable. */
const STORE_PROBE_MS_MAX = 2_000;

/** What was known longer ago than this is not told any more: then the check is waited for. */
const KNOWN_MS_MAX = 10_000;

interface State {
  checkedAtMs: number;
  databaseFailure: unknown;
  storeIsUp: boolean;
}

/**
 * Tells whether the service is ready. The database and the store are checked when somebody asks, at most twice a second,
 * for all who ask together. Nobody waits for a store that hangs: then the response is what was known last, and the next
 * one tells the difference. Throws `storage_unavailable` if the database cannot be written.
 */
export function createReadiness({ core, objects, cleaner }: Pick<RouteParts, "core" | "objects" | "cleaner">) {
  let known: State | null = null;
  let check: Promise<State> | null = null;

  function checkAnew(): Promise<State> {
    if (check === null) {
      check = checkBoth().then((state) => {
        known = state;
        setTimeout(() => {
          check = null;
        }, KEPT_MS).unref();
        return state;
      });
    }
    return check;
  }

  async function checkBoth(): Promise<State> {
    const [database, store] = await Promise.allSettled([
      core.workspaces.checkWritable(),
      orAfter(STORE_PROBE_MS_MAX, objects.probe(), () => {
        throw new Error(`The store did not answer within ${STORE_PROBE_MS_MAX} ms`);
      }),
    ]);
    return {
      checkedAtMs: performance.now(),
      databaseFailure: database.status === "rejected" ? database.reason : null,
      storeIsUp: store.status === "fulfilled",
    };
  }

  return async function readiness(): Promise<Record<string, unknown>> {
    const checking = checkAnew();
    const before = known !== null && performance.now() - known.checkedAtMs < KNOWN_MS_MAX ? known : null;
    const { databaseFailure, storeIsUp } = await (before === null
      ? checking
      : orAfter(WAIT_MS_MAX, checking, () => before));
    if (databaseFailure !== null) {
      throw new AppError(
        "storage_unavailable",
        `The database cannot be written at the moment${describeCause(databaseFailure)}`,
        { cause: databaseFailure },
      );
    }
    // There only while a person has to decide: see `ledger_marker.ts`.
    const paused = cleaner.pauseReason();
    return {
      status: "ok",
      version: VERSION,
      database: "ok",
      store: storeIsUp ? "ok" : "unavailable",
      ...(paused === null ? {} : { cleaner: `paused: ${paused}` }),
    };
  };
}

/** Why, as far as SQLite says: it may be the cause of what the write was told. */
function describeCause(failure: unknown): string {
  for (let error = failure; error instanceof Error; error = error.cause) {
    const why = whyUnusable(error);
    if (why !== null) return `: ${why}`;
  }
  return "";
}
