import { uploadIdOfKey } from "../books/object_keys.ts";
import type { Removals, TakenRemoval } from "../books/removals.ts";
import type { Log } from "../log.ts";
import type { ObjectStore } from "../store/objects.ts";
import type { RemovalPermit } from "./removal_permit.ts";
import type { Steps } from "./worker.ts";

/**
 * Objects that are removed together: four full multi-object deletes of S3, as many as the store keeps in flight. With one
 * at a time MinIO removes little more than half as many.
 */
const BATCH_KEYS_MAX = 4_000;
/** Entries that one write takes or books: a whole batch at once would hold up requests for a tenth of a second. */
const WRITE_KEYS_MAX = 500;
/**
 * The same while requests keep the process busy: writes of this size stall nobody for more than a millisecond or two. The store
 * gets more keys at once, so that a slow store does not limit how many are removed.
 */
const WRITE_KEYS_BUSY = 64;
const BATCH_KEYS_BUSY = 512;
const HELD_BACK = "the previous run may still be at work";

export interface ObjectRemovalOptions {
  removals: Pick<Removals, "takeDue" | "clearTaken" | "settle" | "postpone">;
  objects: Pick<ObjectStore, "remove">;
  permit: RemovalPermit;
  /** Why nothing may be removed at present; null if it may, or if that is not known. */
  pauseReason: () => string | null;
  /** Called for each batch of keys; `postponed` if the store as a whole could not be used. */
  onRemovals: (result: "done" | "failed" | "postponed", objectKeys: readonly string[]) => void;
  log: Log;
  now: () => number;
}

/** The outcome of a batch: `failures` by key, or null if the store as a whole could not be used. */
type RemovedBatch = { batch: readonly TakenRemoval[]; endedAtMs: number } & (
  | { failures: ReadonlyMap<string, string> }
  | { failures: null; reason: string }
);

/**
 * Removes the objects that are due. An object is removed only after its entry is durable and marked as taken (ROW-FIRST), and
 * the entry is deleted only after the object is gone.
 */
export function createObjectRemoval(options: ObjectRemovalOptions) {
  const { removals, objects, permit, pauseReason, now } = options;
  const book = createBooking(options);
  /** Marks of an earlier process, or of a pass whose settling failed, are cleared before anything is taken. */
  let hasStaleMarks = true;

  /**
   * Removes batch after batch until all that was due is removed, the store fails, or the worker is stopped. `beforeEach` does
   * other work that makes objects due, and resolves with whether more of it is left.
   */
  async function removeDue(
    steps: Steps,
    beforeEach: () => Promise<boolean>,
  ): Promise<{ removed: number; failed: number }> {
    const counts = { removed: 0, failed: 0 };
    if (hasStaleMarks) await removals.clearTaken();
    hasStaleMarks = true;
    let unbooked: RemovedBatch | null = null;
    for (let goesOn = true; goesOn && !steps.isStopping(); ) {
      const hasMore = await beforeEach();
      const limit = batchLimit(steps);
      const batch = await takeBatch(limit, steps);
      // The previous batch is booked while the store removes this one.
      const removed: RemovedBatch | null = await both(removeObjects(batch), book(unbooked, steps));
      unbooked = removed;
      if (removed === null) goesOn = hasMore;
      else if (removed.failures === null) goesOn = false;
      else {
        counts.failed += removed.failures.size;
        counts.removed += batch.length - removed.failures.size;
        // Objects deleted meanwhile are left to the next pass: a batch for every few deletes would cost many commits.
        if (batch.length < limit) goesOn = hasMore;
        else await steps.checkLoad();
      }
    }
    await book(unbooked, steps);
    hasStaleMarks = false;
    return counts;
  }

  function batchLimit(steps: Steps): number {
    // One key finds out whether the store is back. The others wait, without an attempt being counted for them.
    if (permit.pauseMs() > 0) return 1;
    return steps.isBusy() ? BATCH_KEYS_BUSY : BATCH_KEYS_MAX;
  }

  /** Takes up to `limit` due entries. If a write fails, the next pass clears the marks of those taken before it. */
  async function takeBatch(limit: number, steps: Steps): Promise<TakenRemoval[]> {
    const batch: TakenRemoval[] = [];
    while (batch.length < limit) {
      const wanted = Math.min(keysPerWrite(steps), limit - batch.length);
      const part = await removals.takeDue(now(), wanted);
      batch.push(...part);
      if (part.length < wanted) break;
      await steps.giveBack();
    }
    return batch;
  }

  /** Null for an empty batch. */
  async function removeObjects(batch: readonly TakenRemoval[]): Promise<RemovedBatch | null> {
    if (batch.length === 0) return null;
    try {
      if (!(await permit.renew())) return heldBack(batch);
      const failures = await objects.remove(batch.map(({ objectKey }) => objectKey));
      // If the store was swapped meanwhile, objects that were "not found" are not removed: their entries stay.
      if (!(await permit.stillHolds())) return heldBack(batch);
      permit.noteSuccess();
      return { batch, failures, endedAtMs: now() };
    } catch (error) {
      permit.noteFailure(error);
      const reason = error instanceof Error ? error.message : String(error);
      return { batch, failures: null, reason, endedAtMs: now() };
    }
  }

  function heldBack(batch: readonly TakenRemoval[]): RemovedBatch {
    return { batch, failures: null, reason: `paused: ${pauseReason() ?? HELD_BACK}`, endedAtMs: now() };
  }

  return removeDue;
}

/** Books a batch: entries of removed objects are deleted, the others are due again later. */
function createBooking({ removals, onRemovals, log }: ObjectRemovalOptions) {
  async function book(removed: RemovedBatch | null, steps: Steps): Promise<void> {
    if (removed === null) return;
    const { batch, failures, endedAtMs } = removed;
    const objectKeys = batch.map(({ objectKey }) => objectKey);
    if (failures === null) {
      await inWrites(batch, steps, (part) => removals.postpone(part, removed.reason, endedAtMs));
      onRemovals("postponed", objectKeys);
      return;
    }
    await inWrites(batch, steps, (part) => removals.settle(part, failures, endedAtMs));
    onRemovals(
      "done",
      objectKeys.filter((key) => !failures.has(key)),
    );
    onRemovals("failed", [...failures.keys()]);
    for (const [objectKey, error] of failures) {
      log.warn("removal_failed", { upload_id: uploadIdOfKey(objectKey), error });
    }
  }

  /** Books part by part, one write after the other, so that requests get their turn in between. */
  async function inWrites(
    batch: readonly TakenRemoval[],
    steps: Steps,
    bookPart: (part: readonly TakenRemoval[]) => Promise<void>,
  ): Promise<void> {
    for (let start = 0, end = 0; start < batch.length; start = end) {
      end = start + keysPerWrite(steps);
      await bookPart(batch.slice(start, end));
      await steps.giveBack();
    }
  }

  return book;
}

function keysPerWrite(steps: Steps): number {
  return steps.isBusy() ? WRITE_KEYS_BUSY : WRITE_KEYS_MAX;
}

/**
 * Waits for both, even if one fails: after a failure the next pass clears the marks, and must not do so while a removal is still
 * under way.
 */
async function both<T>(removal: Promise<T>, booking: Promise<void>): Promise<T> {
  await Promise.allSettled([removal, booking]);
  await booking;
  return await removal;
}
