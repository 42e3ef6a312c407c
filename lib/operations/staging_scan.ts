import type { ClockRecords, TimesAtStart } from "../books/clock.ts";
import type { Log } from "../log.ts";
import { enterLateArrivals, type LateArrivalsOptions } from "./late_arrivals.ts";
import type { StoreGuard } from "./store_guard.ts";
import { createWorker } from "./worker.ts";

/** How often staging is scanned. */
const SCAN_INTERVAL_MS = 60 * 60_000;
/** While a due scan may not begin, the time between two checks. A wake brings the next check forward. */
const RETRY_MS = 60_000;

export interface StagingScanOptions extends Omit<LateArrivalsOptions, "isStopping"> {
  guard: Pick<StoreGuard, "isCurrent">;
  clockRecords: Pick<ClockRecords, "recordScanned">;
  atStart: TimesAtStart;
  /** Whether a scan may begin: the store is ours, and the clock is trusted to tell which objects are old. */
  mayScan: () => boolean;
  /** Called after a scan that has entered something for removal. */
  onFound: () => void;
  log: Log;
  monotonicNow: () => number;
}

export interface StagingScan {
  /** Begins to scan in the background. The first scan is due an hour after the last one, even one by an earlier process. */
  start: () => void;
  /** A hint that a scan may begin now, if it is due. */
  wake: () => void;
  /** One scan. Resolves with the number of objects that it has entered for removal. Rejects if the store fails. */
  scan: () => Promise<number>;
  stop: () => Promise<void>;
}

/** Scans staging once an hour for objects that nothing names, and enters them for removal. */
export function createStagingScan(options: StagingScanOptions): StagingScan {
  const { guard, clockRecords, mayScan, onFound, log, now, monotonicNow } = options;
  let dueMs = monotonicNow() + firstScanInMs(options.atStart, now());
  let isStopped = false;
  const untilDueMs = (): number => Math.max(0, dueMs - monotonicNow());

  async function scan(): Promise<number> {
    dueMs = monotonicNow() + SCAN_INTERVAL_MS;
    if (!(await guard.isCurrent())) return 0;
    const found = await enterLateArrivals({ ...options, isStopping: () => isStopped });
    if (found > 0) log.info("late_arrivals_entered", { found });
    // A scan that was cut off does not count: the next start makes another.
    if (!isStopped) await clockRecords.recordScanned(now());
    return found;
  }

  const worker = createWorker({
    async runPass() {
      if (untilDueMs() === 0 && mayScan() && (await scan()) > 0) onFound();
    },
    planNext: async () => untilDueMs() || RETRY_MS,
    mayWake: () => untilDueMs() === 0,
    gapMs: 0,
    retryMs: SCAN_INTERVAL_MS,
    // The listing failed. The next scan finds whatever this one missed.
    onFailure: (error) => log.error("staging_scan_failed", { error }),
    workedMs: () => 0,
  });

  return {
    start: () => worker.start(untilDueMs()),
    wake: worker.wake,
    scan,
    async stop() {
      isStopped = true;
      await worker.stop();
    },
  };
}

/**
 * How long the first scan waits. A service that is restarted often still scans every hour, because the time of the last scan
 * is kept. A time in the future was written by a wrong clock and is ignored.
 */
function firstScanInMs({ scannedAtMs, createdAtMs }: TimesAtStart, nowMs: number): number {
  // Nothing can have been staged before the installation was created.
  const sinceMs = nowMs - (scannedAtMs ?? createdAtMs);
  return sinceMs < 0 ? 0 : Math.max(0, SCAN_INTERVAL_MS - sinceMs);
}
