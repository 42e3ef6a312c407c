import { OVERDUE_MS } from "../books/outbox.ts";
import { orAfter } from "../deadline.ts";
import { AppError } from "../errors.ts";
import { WHAT_TO_DO } from "../operations/store_complaints.ts";
import { timestamp } from "../timestamp.ts";
import { VERSION } from "../version.ts";
import type { RouteParts } from "./parts.ts";
import type { ReadyOut } from "./wire/health.ts";

/** The result of a check is kept this long, so that a flood of probes costs two writes a second. */
const KEPT_MS = 500;
/** A response waits this long for a check that is under way; after that it repeats the result before it. */
const WAIT_MS_MAX = 250;
/** A store that has not responded by then counts as unavailable. */
const STORE_PROBE_MS_MAX = 2_000;

/** An older result is not repeated: the response waits for the check. */
const KNOWN_MS_MAX = 10_000;
/** How often the outbox is counted: that is work if it has many entries. */
const OUTBOX_KEPT_MS = 10_000;

interface State {
  checkedAtMs: number;
  databaseFailure: unknown;
  storeIsUp: boolean;
}

/**
 * Tells whether the service is ready. The database and the store are checked on request, at most twice a second,
 * for all callers together. Nobody waits for a store that hangs: the response is then the last result, and a later response
 * has the new one. Throws `storage_unavailable` if the database cannot be written, or if the store is not the one that holds
 * the objects, which does not end by itself.
 */
export function createReadiness({ books, objects, guard }: Pick<RouteParts, "books" | "objects" | "guard">) {
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
      books.checkWritable(),
      orAfter(STORE_PROBE_MS_MAX, objects.probe(), () => {
        throw new Error(`The store did not respond within ${STORE_PROBE_MS_MAX} ms`);
      }),
      readOutbox(nowMs),
    ]);
    return {
      checkedAtMs: performance.now(),
      databaseFailure: database.status === "rejected" ? database.reason : null,
      storeIsUp: store.status === "fulfilled",
    };
  }

  async function readOutbox(nowMs: number): Promise<void> {
    if (performance.now() - outboxReadAtMs < OUTBOX_KEPT_MS) return;
    ({ oldestDueSinceMs } = await books.outbox.read(nowMs));
    outboxReadAtMs = performance.now();
  }

  return async function readiness(nowMs: number): Promise<ReadyOut> {
    const checking = checkAnew(nowMs);
    const before = known !== null && performance.now() - known.checkedAtMs < KNOWN_MS_MAX ? known : null;
    const { databaseFailure, storeIsUp } = await (before === null
      ? checking
      : orAfter(WAIT_MS_MAX, checking, () => before));
    if (databaseFailure !== null) throw databaseFailure;
    // There is a reason only while a person has to decide: see `store_guard.ts`.
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
