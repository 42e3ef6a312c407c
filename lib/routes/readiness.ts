import { OVERDUE_MS } from "../core/outbox.ts";
import { whyUnusable } from "../db/sqlite_errors.ts";
import { orAfter } from "../deadline.ts";
import { AppError } from "../errors.ts";
import { WHAT_TO_DO } from "../operations/store_complaints.ts";
import { timestamp } from "../timestamp.ts";
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
/** How often the outbox is looked through for entries that are overdue: with many that is work. */
const OUTBOX_KEPT_MS = 10_000;

interface State {
  checkedAtMs: number;
  databaseFailure: unknown;
  storeIsUp: boolean;
}

/**
 * Tells whether the service is ready. The database and the store are checked when somebody asks, at most twice a second,
 * for all who ask together. Nobody waits for a store that hangs: then the response is what was known last, and the next
 * one tells the difference. Throws `storage_unavailable` if the database cannot be written, or the store is not the one that
 * holds the objects: by itself that does not end.
 */
export function createReadiness({ core, objects, guard }: Pick<RouteParts, "core" | "objects" | "guard">) {
  let known: State | null = null;
  let check: Promise<State> | null = null;
  let oldestDueSinceMs: number | null = null;
  let outboxReadAtMs = Number.NEGATIVE_INFINITY;

  function checkAnew(nowMs: number): Promise<State> {
    if (check === null) {
      check = checkAll(nowMs).then((state) => {
        known = state;
        setTimeout(() => {
          check = null;
        }, KEPT_MS).unref();
        return state;
      });
    }
    return check;
  }

  async function checkAll(nowMs: number): Promise<State> {
    const [database, store] = await Promise.allSettled([
      core.workspaces.checkWritable(),
      orAfter(STORE_PROBE_MS_MAX, objects.probe(), () => {
        throw new Error(`The store did not answer within ${STORE_PROBE_MS_MAX} ms`);
      }),
      lookAtOutbox(nowMs),
    ]);
    return {
      checkedAtMs: performance.now(),
      databaseFailure: database.status === "rejected" ? database.reason : null,
      storeIsUp: store.status === "fulfilled",
    };
  }

  async function lookAtOutbox(nowMs: number): Promise<void> {
    if (performance.now() - outboxReadAtMs < OUTBOX_KEPT_MS) return;
    ({ oldestDueSinceMs } = await core.outbox.read(nowMs));
    outboxReadAtMs = performance.now();
  }

  return async function readiness(nowMs: number): Promise<Record<string, unknown>> {
    const checking = checkAnew(nowMs);
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
    // There only while a person has to decide: see `store_guard.ts`.
    const paused = guard.pauseReason();
    if (paused !== null && guard.isElsewhere()) {
      throw new AppError("storage_unavailable", `No upload can be taken: ${paused}`, { hint: WHAT_TO_DO.other });
    }
    const sinceMs = oldestDueSinceMs ?? nowMs;
    return {
      status: "ok",
      version: VERSION,
      database: "ok",
      store: storeIsUp ? "ok" : "unavailable",
      ...(paused === null ? {} : { cleaner: `paused: ${paused}` }),
      ...(nowMs - sinceMs > OVERDUE_MS ? { removals: `overdue since ${timestamp(sinceMs)}` } : {}),
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
