import { setTimeout as delay } from "node:timers/promises";
import type { Idempotency } from "../core/idempotency.ts";
import type { KeptTimes, TimesAtStart } from "../core/kept_times.ts";
import type { Removals, TakenRemoval } from "../core/removals.ts";
import type { Uploads } from "../core/uploads.ts";
import { AppError } from "../errors.ts";
import { uploadIdOfKey } from "../ids.ts";
import type { Log } from "../log.ts";
import { type ObjectStore, StoreError } from "../store/objects.ts";
import { createPace } from "./cleaner_pace.ts";
import { watchClock } from "./clock_watch.ts";
import { enterLateArrivals } from "./late_arrivals.ts";
import type { StoreGuard } from "./store_guard.ts";

/**
 * Objects that are removed together: four full multi-object deletes of S3, as many as the store keeps in flight. With one
 * at a time MinIO removes little more than half as many.
 */
const BATCH_KEYS_MAX = 4_000;
/** Entries of a batch that are taken or booked in one write: all at once would hold up requests for a tenth of a second. */
const WRITE_KEYS_MAX = 500;
/**
 * While requests keep the process busy: taking or settling so many together stalls no one for more than a millisecond or two.
 * The store gets more of them at once, so that a slow one does not decide how many are removed.
 */
const WRITE_KEYS_BUSY = 64;
const BATCH_KEYS_BUSY = 512;
/** Rows of a deleted workspace that go in one transaction: each is a delete with its triggers, about 50 us. */
const BATCH_ROWS = 100;
/** After so many of these it is the turn of the objects that are due. */
const EMPTYING_STEPS = 10;
/** The longest sleep between two looks at the clock. */
const SLEEP_MS_MAX = 60_000;
/** While the store is down, the pause between two probes grows from the first to the second. */
const PROBE_PAUSE_MS_MIN = 500;
const PROBE_PAUSE_MS_MAX = 60_000;
/**
 * A pass begins this long after the last at the earliest: what is deleted one by one is then removed together. Each pass has
 * commits and syncs of its own, and the next request would wait for them.
 */
const PASS_GAP_MS = 50;
/** How often the store's staging objects are looked through for those that nothing names. */
const LOOK_INTERVAL_MS = 60 * 60_000;
const HELD_BACK = "the run before may still be at work";
/** While nothing may be removed, how often it is looked whether that is over: someone has decided, or nobody has objected. */
const DECISION_LOOK_MS = 10_000;

export interface CleanerCounts {
  removed: number;
  failed: number;
  expired: number;
}

export interface CleanerOptions {
  removals: Removals;
  uploads: Uploads;
  /** Told of every object in staging that a look through it finds; false if no pending upload names it. */
  noteStaged: (objectKey: string, sizeBytes: number) => boolean;
  idempotency: Pick<Idempotency, "expire">;
  times: KeptTimes;
  objects: ObjectStore;
  /** How long the event loop has worked for the writes that are made here. */
  backgroundMs: () => number;
  /** Tells whether this is the store that the database speaks of, and the database to say what is to be removed from it. */
  guard: Pick<
    StoreGuard,
    "isCurrent" | "isFresh" | "isStillThere" | "keepUp" | "release" | "markerAtMs" | "pauseReason"
  >;
  /** The staging prefix of this installation, ending in a slash. */
  stagingPrefix: string;
  uploadUrlTtlMs: number;
  /** Told what became of each batch of keys: `postponed` where the store as a whole could not be used. */
  onRemovals?: (result: "done" | "failed" | "postponed", objectKeys: readonly string[]) => void;
  log: Log;
  now: () => number;
  /** Milliseconds of a clock that no one can set. */
  monotonicNow?: () => number;
}

/** What the store made of a batch; `failures` by key, or null where the store as a whole could not be used. */
type RemovedBatch = { batch: readonly TakenRemoval[]; endedAtMs: number } & (
  | { failures: ReadonlyMap<string, string> }
  | { failures: null; reason: string }
);

export type Cleaner = ReturnType<typeof createCleaner>;

/**
 * The background loop over the outbox; nothing else removes objects. Never two passes at a time. An object is removed only
 * after its entry is durable and marked as taken (ROW-FIRST), and its entry goes only after the object has.
 */
export function createCleaner(options: CleanerOptions) {
  const { removals, uploads, noteStaged, idempotency, times, objects, guard, stagingPrefix, uploadUrlTtlMs } = options;
  const { log, now } = options;
  const { onRemovals = () => {} } = options;
  const monotonicNow = options.monotonicNow ?? (() => performance.now());
  const atStart = times.read();
  const pace = createPace({ workedMs: options.backgroundMs, pause });
  const clock = watchClock({ times, atStart, objects, log, now, monotonicNow });

  let pass: Promise<CleanerCounts> | null = null;
  /** The loop's pass with what follows it, while it is under way. */
  let turn: Promise<void> | null = null;
  /** The look through staging, while it is under way: it may take long, and removals go on beside it. */
  let look: Promise<void> | null = null;
  let state: "idle" | "running" | "stopping" = "idle";
  const stopping = new AbortController();
  let timer: NodeJS.Timeout | null = null;
  /** Above zero while the store does not answer, or nothing may be removed. */
  let probePauseMs = 0;
  /** Marks of an earlier process, or of a pass whose settling failed, are cleared before anything is taken. */
  let hasStaleMarks = true;
  let nextLookMs = monotonicNow() + firstLookInMs(atStart, now());
  /** Whether database and store were found to belong together. */
  let mayRemove = false;
  let hasJudgedStart = false;

  function start(): void {
    state = "running";
    wake();
  }

  /** A hint that something is due. Losing it costs time, never correctness. */
  function wake(): void {
    // A turn that is under way looks at what is due after its pass: an entry that is durable by then is seen.
    if (state !== "running" || turn !== null) return;
    // While the store is down the probe's own pace holds: deletes that come in do not hasten it.
    if (probePauseMs > 0 && timer !== null) return;
    turn = runAndSleep().finally(() => {
      turn = null;
    });
  }

  async function runAndSleep(): Promise<void> {
    if (timer !== null) clearTimeout(timer);
    timer = null;
    let sleepMs: number;
    try {
      await runOnce();
      await pause(PASS_GAP_MS);
      if (state !== "running") return;
      if (mayRemove && clock.isTrusted() && monotonicNow() >= nextLookMs) look ??= lookOnce();
      const dueInMs = (removals.nextDueAtMs() ?? Number.POSITIVE_INFINITY) - now();
      const untilDueMs = Math.max(probePauseMs, Math.min(SLEEP_MS_MAX, Math.max(0, dueInMs)));
      // Nothing may be due yet: the marker is asked for at its own pace.
      sleepMs = mayRemove ? untilDueMs : probePauseMs;
    } catch (error) {
      if (state !== "running") return;
      // The database could not book it. Nothing is lost: the entries are still there.
      log.error("cleaner_failed", { error });
      sleepMs = PROBE_PAUSE_MS_MIN;
    }
    if (state !== "running") return;
    timer = setTimeout(() => {
      timer = null;
      wake();
    }, sleepMs).unref();
  }

  /** One whole pass: expires what is over, then removes what is due until nothing is. Resolves with what was done. */
  function runOnce(): Promise<CleanerCounts> {
    pass ??= runPass().finally(() => {
      pass = null;
    });
    return pass;
  }

  async function runPass(): Promise<CleanerCounts> {
    const counts: CleanerCounts = { removed: 0, failed: 0, expired: 0 };
    if (!(mayRemove && guard.isFresh()) && !(await checkStore())) return counts;
    if (hasStaleMarks) await removals.clearTaken();
    hasStaleMarks = true;
    // Taken before the clock is asked, and once: it may be set while rows are being expired.
    const nowMs = now();
    if (clock.isTrusted()) {
      await clock.noteTrust();
      counts.expired = await expireAll(nowMs);
      await expireIdempotencyKeys(nowMs);
    }
    let unbooked: RemovedBatch | null = null;
    while (state !== "stopping") {
      const hasMoreToEmpty = await emptyDeletedWorkspaces();
      // One key finds out whether the store is back; the others wait with their attempts unburnt.
      const limit = probePauseMs > 0 ? 1 : pace.isBusy() ? BATCH_KEYS_BUSY : BATCH_KEYS_MAX;
      const batch = await takeBatch(limit);
      if (batch.length === 0) {
        if (!hasMoreToEmpty) break;
        await book(unbooked);
        unbooked = null;
        continue;
      }
      // While the store removes these, the ones before are booked.
      const removed: RemovedBatch = await both(removeObjects(batch), book(unbooked));
      unbooked = removed;
      if (removed.failures === null) break;
      counts.failed += removed.failures.size;
      counts.removed += batch.length - removed.failures.size;
      if (batch.length === limit) await pace.lookAround();
    }
    await book(unbooked);
    hasStaleMarks = false;
    // Also where nothing was removed: a database from before what was charged meanwhile must be noticed.
    if (probePauseMs === 0) await guard.keepUp().catch(markerNotWritten);
    if (counts.removed + counts.failed + counts.expired > 0) log.debug("cleaner_pass", { ...counts });
    return counts;
  }

  /** Asks whether database and store belong together. A decision by a person is noticed here too. */
  async function checkStore(): Promise<boolean> {
    const wasAllowed = mayRemove;
    try {
      mayRemove = await guard.isCurrent();
      if (!mayRemove) probePauseMs = DECISION_LOOK_MS;
      else if (!wasAllowed) probePauseMs = 0;
      if (mayRemove && !hasJudgedStart) {
        hasJudgedStart = true;
        await clock.judgeStart(guard.markerAtMs());
      }
    } catch (error) {
      // An `AppError`: the store is there, and cannot be used as it is.
      if (!(error instanceof StoreError || error instanceof AppError)) throw error;
      // What was known lately still holds for what needs no store; a removal asks once more.
      if (!wasAllowed) storeFailed(error);
    }
    return mayRemove;
  }

  function markerNotWritten(error: unknown): void {
    log.warn("ledger_marker_not_written", { error });
  }

  function storeFailed(error: unknown): void {
    probePauseMs = Math.min(PROBE_PAUSE_MS_MAX, Math.max(PROBE_PAUSE_MS_MIN, probePauseMs * 2));
    log.warn("store_unavailable", {
      retry_in_ms: probePauseMs,
      failure: error instanceof StoreError ? error.failure : "unknown",
      error,
    });
  }

  /** Takes up to `limit` due entries. What was taken before a write fails is put back at the next pass. */
  async function takeBatch(limit: number): Promise<TakenRemoval[]> {
    const batch: TakenRemoval[] = [];
    while (batch.length < limit) {
      const asked = Math.min(writeKeys(), limit - batch.length);
      const part = await removals.takeDue(now(), asked);
      batch.push(...part);
      if (part.length < asked) break;
      await pace.giveBack();
    }
    return batch;
  }

  /** Removes the objects of a batch that was taken. */
  async function removeObjects(batch: readonly TakenRemoval[]): Promise<RemovedBatch> {
    try {
      mayRemove = await guard.keepUp();
      if (!mayRemove) return heldBack(batch);
      const failures = await objects.remove(batch.map(({ objectKey }) => objectKey));
      // Gone meanwhile: then what was not found was not removed, and the entries stay for the right store.
      mayRemove = await guard.isStillThere();
      if (!mayRemove) return heldBack(batch);
      probePauseMs = 0;
      return { batch, failures, endedAtMs: now() };
    } catch (error) {
      storeFailed(error);
      const reason = error instanceof Error ? error.message : String(error);
      return { batch, failures: null, reason, endedAtMs: now() };
    }
  }

  function heldBack(batch: readonly TakenRemoval[]): RemovedBatch {
    return { batch, failures: null, reason: `paused: ${guard.pauseReason() ?? HELD_BACK}`, endedAtMs: now() };
  }

  /** Books what became of a batch, if there is one: what was removed goes, the rest is due again at some time. */
  async function book(removed: RemovedBatch | null): Promise<void> {
    if (removed === null) return;
    const { batch, failures, endedAtMs } = removed;
    const objectKeys = batch.map(({ objectKey }) => objectKey);
    if (failures === null) {
      await inWrites(batch, (part) => removals.postpone(part, removed.reason, endedAtMs));
      onRemovals("postponed", objectKeys);
      return;
    }
    await inWrites(batch, (part) => removals.settle(part, failures, endedAtMs));
    onRemovals(
      "done",
      objectKeys.filter((key) => !failures.has(key)),
    );
    onRemovals("failed", [...failures.keys()]);
    for (const [objectKey, error] of failures)
      log.warn("removal_failed", { upload_id: uploadIdOfKey(objectKey), error });
  }

  /** Books a batch part by part, one write after the other: requests get their turn between them. */
  async function inWrites(
    batch: readonly TakenRemoval[],
    bookPart: (part: readonly TakenRemoval[]) => Promise<void>,
  ): Promise<void> {
    for (let start = 0, end = 0; start < batch.length; start = end) {
      end = start + writeKeys();
      await bookPart(batch.slice(start, end));
      await pace.giveBack();
    }
  }

  function writeKeys(): number {
    return pace.isBusy() ? WRITE_KEYS_BUSY : WRITE_KEYS_MAX;
  }

  async function expireAll(nowMs: number): Promise<number> {
    let expired = 0;
    while (state !== "stopping") {
      const batch = await uploads.expire(nowMs);
      if (batch === 0) break;
      expired += batch;
      await pace.giveBack();
    }
    return expired;
  }

  async function expireIdempotencyKeys(nowMs: number): Promise<void> {
    while (state !== "stopping") {
      if (!(await idempotency.expire(nowMs))) break;
      await pace.lookAround();
    }
  }

  /**
   * Gives up what deleted workspaces have, in steps that stall no one, and resolves with whether there is more: between
   * times the objects of all workspaces are removed. What is left is found again after a restart.
   */
  async function emptyDeletedWorkspaces(): Promise<boolean> {
    let given = 0;
    let hasMore = true;
    for (let step = 0; step < EMPTYING_STEPS && hasMore && state !== "stopping"; step++) {
      const removed = await uploads.removeOfDeletedWorkspaces(BATCH_ROWS);
      given += removed ?? 0;
      hasMore = removed !== null;
      if (removed !== null && removed > 0) await pace.lookAround();
    }
    if (given > 0) log.info("deleted_workspaces_emptied", { rows: given });
    return hasMore;
  }

  /** Ends early where the cleaner is stopped. */
  async function pause(ms: number): Promise<void> {
    await delay(ms, undefined, { signal: stopping.signal }).catch(() => {});
  }

  async function lookOnce(): Promise<void> {
    try {
      if ((await lookForLateArrivals()) > 0) wake();
    } catch (error) {
      // The listing failed. What it would have found lies there at the next look too.
      log.error("look_failed", { error });
    } finally {
      look = null;
    }
  }

  /** Enters what nothing names in staging, and resolves with the number of objects. */
  async function lookForLateArrivals(): Promise<number> {
    nextLookMs = monotonicNow() + LOOK_INTERVAL_MS;
    if (!(await guard.isCurrent())) return 0;
    const found = await enterLateArrivals({
      ...{ objects, removals, noteStaged, stagingPrefix, uploadUrlTtlMs, now },
      isStopping: () => state === "stopping",
    });
    if (found > 0) log.info("late_arrivals_entered", { found });
    // Only a whole one counts: one that was broken off is begun again at the next start.
    if (state !== "stopping") await times.noteLooked(now());
    return found;
  }

  /** Resolves when what is under way has ended: the batch is booked, nothing more is begun. */
  async function stop(): Promise<void> {
    state = "stopping";
    stopping.abort();
    if (timer !== null) clearTimeout(timer);
    timer = null;
    await Promise.all([turn, look, pass?.catch(() => {})]);
    if (probePauseMs === 0) await guard.release().catch(markerNotWritten);
  }

  return { start, wake, runOnce, lookForLateArrivals, stop, pauseReason: guard.pauseReason };
}

/**
 * Waits for both whatever becomes of either: the marks of a removal that is under way must not be cleared, as the next pass
 * does after a failure.
 */
async function both<T>(removal: Promise<T>, booking: Promise<void>): Promise<T> {
  await Promise.allSettled([removal, booking]);
  await booking;
  return await removal;
}

/**
 * How long the first look through staging waits. The last may have been made by an earlier process: a service that is
 * restarted often still looks. A time in the future was written by a wrong clock, and says nothing.
 */
function firstLookInMs({ lookedAtMs, createdAtMs }: TimesAtStart, nowMs: number): number {
  // Before there was an installation nothing can have been staged.
  const sinceMs = nowMs - (lookedAtMs ?? createdAtMs);
  return sinceMs < 0 ? 0 : Math.max(0, LOOK_INTERVAL_MS - sinceMs);
}
