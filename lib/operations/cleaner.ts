import type { Idempotency } from "../books/idempotency.ts";
import type { Removals } from "../books/removals.ts";
import type { KeptTimes } from "../books/sqlite/clock.ts";
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

/** The longest sleep between two looks at the clock. */
const SLEEP_MS_MAX = 60_000;
/**
 * The shortest time between two passes: what is deleted one by one is then removed together. Each pass has commits and syncs
 * of its own, and the next request would wait for them.
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
  times: KeptTimes;
  objects: ObjectStore;
  /** How long the event loop has worked for the writes that are made here, in milliseconds. */
  backgroundMs: () => number;
  /** Tells whether this is the store that the database speaks of, and the database to say what is to be removed from it. */
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
  /** Milliseconds of a clock that no one can set. */
  monotonicNow?: () => number;
}

export interface Cleaner {
  /** Begins to clean in the background. */
  start: () => void;
  /** A hint that something is due. Losing it costs time, never correctness. */
  wake: () => void;
  /** One whole pass: deletes rows whose time is over, then removes objects until none is due. Rejects if the database fails. */
  runOnce: () => Promise<CleanerCounts>;
  /** Enters the objects in staging that nothing names for removal, and resolves with their number. Rejects if the store fails. */
  scanStaging: () => Promise<number>;
  /** Resolves when what is under way has ended: the batch is booked, and nothing more is begun. */
  stop: () => Promise<void>;
  /** Why nothing is removed at present; null while all is well. */
  pauseReason: () => string | null;
}

/** Cleans in the background: the one part of the service that removes objects. */
export function createCleaner(options: CleanerOptions): Cleaner {
  const { removals, guard, times, objects, log, now, backgroundMs } = options;
  const { monotonicNow = () => performance.now() } = options;
  const atStart = times.read();
  const clock = watchClock({ times, atStart, objects, log, now, monotonicNow });
  const permit = createRemovalPermit({ guard, onFirstGranted: () => clock.judgeStart(guard.markerAtMs()), log });

  const cleaning = createWorker({
    runPass: createCleaning(options, { clock, permit }),
    async planNext() {
      staging.wake();
      // Nothing may be due yet: the store is asked at its own pace.
      if (!permit.isGranted()) return permit.pauseMs();
      const untilDueMs = ((await removals.nextDueAtMs()) ?? Number.POSITIVE_INFINITY) - now();
      return Math.max(permit.pauseMs(), Math.min(SLEEP_MS_MAX, Math.max(0, untilDueMs)));
    },
    // While the store is down, deletes that come in do not hasten the probe.
    mayWake: () => permit.pauseMs() === 0,
    gapMs: PASS_GAP_MS,
    retryMs: PROBE_PAUSE_MS_MIN,
    // The database could not book it. Nothing is lost: the entries are still there.
    onFailure: (error) => log.error("cleaner_failed", { error }),
    workedMs: backgroundMs,
  });

  const staging: StagingScan = createStagingScan({
    ...{ ...options, monotonicNow, atStart },
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
    // Even if nothing was removed: the marker tells a database from before what was charged meanwhile.
    if (permit.pauseMs() === 0) await guard.keepUp().catch((error) => markerNotWritten(log, error));
    const counts = { removed, failed, expired };
    if (removed + failed + expired > 0) log.debug("cleaner_pass", counts);
    return counts;
  };

  /** Deletes rows whose time is over, while the clock is trusted. Resolves with the number of uploads. */
  async function expireRows(steps: Steps): Promise<number> {
    // Read before the clock is judged, and once: it may be set while rows are being expired.
    const nowMs = now();
    if (!clock.isTrusted()) return 0;
    await clock.noteTrust();
    const expired = await expireUploads(uploads, nowMs, steps);
    await expireIdempotencyKeys(idempotency, nowMs, steps);
    return expired;
  }
}

function markerNotWritten(log: Log, error: unknown): void {
  log.warn("ledger_marker_not_written", { error });
}
