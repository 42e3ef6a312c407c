import type { ClockRecords, TimesAtStart } from "../books/clock.ts";
import type { Idempotency } from "../books/idempotency.ts";
import type { Removals } from "../books/removals.ts";
import type { Staging } from "../books/staging.ts";
import type { Uploads } from "../books/uploads.ts";
import type { Log } from "../log.ts";
import type { ObjectStore } from "../store/objects.ts";
import { type ClockWatch, watchClock } from "./clock_watch.ts";
import { createObjectRemoval, type ObjectRemovalOptions } from "./object_removal.ts";
import { createRemovalPermit, PROBE_PAUSE_MS_MIN, type RemovalPermit } from "./removal_permit.ts";
import { emptyDeletedWorkspaces, expireIdempotencyKeys, expireUploads } from "./row_expiry.ts";
import { createStagingScan, type StagingScan } from "./staging_scan.ts";
import type { StoreGuard } from "./store_guard.ts";
import { createWorker, type Steps } from "./worker.ts";

/** The longest sleep between two checks of the clock. */
const SLEEP_MS_MAX = 60_000;
/**
 * The shortest time between two passes, so that objects deleted one by one are removed together. Each pass has commits and
 * syncs of its own, and the next request would wait for them.
 */
const PASS_GAP_MS = 50;

export interface CleanerCounts {
  /** Objects. */
  removed: number;
  /** Objects whose removal failed. */
  failed: number;
  /** Pending uploads. */
  expired: number;
}

export interface CleanerOptions {
  removals: Removals;
  uploads: Pick<Uploads, "expire" | "removeOfDeletedWorkspaces">;
  staging: Pick<Staging, "noteStaged">;
  idempotency: Idempotency;
  clockRecords: ClockRecords;
  /** Read before this process has written anything: rows dated by this clock cannot vouch for it. */
  atStart: TimesAtStart;
  objects: ObjectStore;
  /** How long the event loop has worked for the cleaner's writes, in milliseconds. */
  backgroundMs: () => number;
  /** Knows whether the store and the database belong together, so that this database may decide what is removed. */
  guard: Pick<
    StoreGuard,
    "isCurrent" | "isFresh" | "isStillThere" | "keepUp" | "release" | "markerAtMs" | "pauseReason"
  >;
  /** The staging prefix of this installation, ending in a slash. */
  stagingPrefix: string;
  uploadUrlTtlMs: number;
  onRemovals?: ObjectRemovalOptions["onRemovals"];
  log: Log;
  now: () => number;
  /** Milliseconds of a monotonic clock. */
  monotonicNow?: () => number;
}

export interface Cleaner {
  /** Begins to clean in the background. */
  start: () => void;
  /** A hint that something is due. Losing it costs time, never correctness. */
  wake: () => void;
  /** One whole pass: deletes rows whose time is over, then removes objects until none is due. Rejects if the database fails. */
  runOnce: () => Promise<CleanerCounts>;
  /** Enters objects in staging that nothing names for removal. Resolves with their number. Rejects if the store fails. */
  scanStaging: () => Promise<number>;
  /** Begins nothing more. Resolves when the batch that is under way is booked. */
  stop: () => Promise<void>;
  /** Why nothing is removed at present; null while all is well. */
  pauseReason: () => string | null;
}

/** Cleans in the background: the one part of the service that removes objects. */
export function createCleaner(options: CleanerOptions): Cleaner {
  const { removals, guard, clockRecords, atStart, objects, log, now, backgroundMs } = options;
  const { monotonicNow = () => performance.now() } = options;
  const clock = watchClock({ records: clockRecords, atStart, objects, log, now, monotonicNow });
  const permit = createRemovalPermit({ guard, onFirstGranted: () => clock.judgeStart(guard.markerAtMs()), log });

  const cleaning = createWorker({
    runPass: createCleaning(options, { clock, permit }),
    async planNext() {
      staging.wake();
      // Nothing may be removed yet, so due entries do not matter: the store is tried at its own pace.
      if (!permit.isGranted()) return permit.pauseMs();
      const untilDueMs = ((await removals.nextDueAtMs()) ?? Number.POSITIVE_INFINITY) - now();
      return Math.max(permit.pauseMs(), Math.min(SLEEP_MS_MAX, Math.max(0, untilDueMs)));
    },
    // While the store is down, new deletes do not bring the next probe forward.
    mayWake: () => permit.pauseMs() === 0,
    gapMs: PASS_GAP_MS,
    retryMs: PROBE_PAUSE_MS_MIN,
    // The database could not book it. Nothing is lost: the entries are still there.
    onFailure: (error) => log.error("cleaner_failed", { error }),
    workedMs: backgroundMs,
  });

  const staging: StagingScan = createStagingScan({
    ...{ ...options, monotonicNow },
    mayScan: () => permit.isGranted() && clock.isTrusted(),
    onFound: cleaning.wake,
  });

  return {
    start() {
      cleaning.start();
      staging.start();
    },
    wake: cleaning.wake,
    runOnce: cleaning.runOnce,
    scanStaging: staging.scan,
    async stop() {
      await Promise.all([cleaning.stop(), staging.stop()]);
      if (permit.pauseMs() === 0) await guard.release().catch((error) => markerNotWritten(log, error));
    },
    pauseReason: guard.pauseReason,
  };
}

/** One pass of the cleaner. */
function createCleaning(options: CleanerOptions, { clock, permit }: { clock: ClockWatch; permit: RemovalPermit }) {
  const { uploads, idempotency, guard, log, now, onRemovals = () => {} } = options;
  const { pauseReason } = guard;
  const removeDue = createObjectRemoval({ ...options, permit, pauseReason, onRemovals });

  return async function clean(steps: Steps): Promise<CleanerCounts> {
    if (!permit.isFresh() && !(await permit.ask())) return { removed: 0, failed: 0, expired: 0 };
    const expired = await expireRows(steps);
    const { removed, failed } = await removeDue(steps, () => emptyDeletedWorkspaces(uploads, steps, log));
    // Even if nothing was removed: the marker also exposes a database that is older than the latest charges.
    if (permit.pauseMs() === 0) await guard.keepUp().catch((error) => markerNotWritten(log, error));
    const counts = { removed, failed, expired };
    if (removed + failed + expired > 0) log.debug("cleaner_pass", counts);
    return counts;
  };

  /** Deletes rows whose time is over, while the clock is trusted. Resolves with the number of uploads. */
  async function expireRows(steps: Steps): Promise<number> {
    // Read once, before the clock is judged: somebody may set it while rows are being expired.
    const nowMs = now();
    if (!clock.isTrusted()) return 0;
    await clock.recordTrust();
    const expired = await expireUploads(uploads, nowMs, steps);
    await expireIdempotencyKeys(idempotency, nowMs, steps);
    return expired;
  }
}

function markerNotWritten(log: Log, error: unknown): void {
  log.warn("ledger_marker_not_written", { error });
}
