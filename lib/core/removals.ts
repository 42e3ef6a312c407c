import type { Db } from "../db/db.ts";
import { IS_FOR_GOOD_SQL, type RemovedObjectsRecord } from "./removed_objects.ts";
import type { Unconfirmed } from "./unconfirmed.ts";

/** A staging object or an abandoned copy may land this late, a day after its entry (seen on real servers). */
const LATE_COPY_MS = 86_400_000;
/** Pause before the first repetition of a removal that failed; doubled each time. */
const BACKOFF_MS_MIN = 1_000;
const BACKOFF_MS_MAX = 3_600_000;
/** Characters kept of an error's text. */
const ERROR_CHARS_MAX = 300;
/** The error of an entry that was taken and never settled. */
export const CUT_OFF = "its removal was begun and cut off";

export interface TakenRemoval {
  seq: number;
  objectKey: string;
  attempts: number;
}

/** What a failed confirm says of the object that it may have made. */
export interface EndedLease {
  uploadId: string;
  sizeBytes: number;
  mayLandLate: boolean;
}

/** Entries whose objects were removed: their numbers as JSON, and when. */
interface Settled {
  seqs: string;
  nowMs: number;
}

export interface RemovalsOptions {
  /**
   * Told, inside the write, of each entry that is settled for good and stood for an upload URL: nothing comes by it any
   * more. What it returns is called once that is durable.
   */
  releaseUrl: Unconfirmed["releaseUrl"];
  /** Told, inside the write and before they go, of entries that are settled. */
  recordRemoved: RemovedObjectsRecord["record"];
}

export type Removals = ReturnType<typeof createRemovals>;

/**
 * The outbox of objects that are to be removed. Entries are made by the schema's triggers and by `lease`; only the cleaner
 * takes and settles them.
 */
export function createRemovals(db: Db, { releaseUrl, recordRemoved }: RemovalsOptions) {
  // Taking is a write: a confirm whose lease ran out finds its entry taken, and fails, before the object is touched.
  const take = db.prepare<{ nowMs: number; limit: number }, TakenRemoval>(`
    UPDATE object_removals
       SET taken_at_ms = :nowMs
     WHERE seq IN (SELECT seq FROM object_removals
                    WHERE taken_at_ms IS NULL AND due_at_ms <= :nowMs
                    ORDER BY due_at_ms LIMIT :limit)
    RETURNING seq, object_key AS objectKey, attempts`);
  const untakeAll = db.prepare<[string]>(`
    UPDATE object_removals SET taken_at_ms = NULL, last_error = coalesce(last_error, ?) WHERE taken_at_ms IS NOT NULL`);
  // For all of a batch at once: one statement for each entry would cost more than the entries do.
  const selectHeldUrls = db.prepare<Settled, { ownerId: string; statedSizeBytes: number | null }>(`
    SELECT owner_id AS ownerId, stated_size_bytes AS statedSizeBytes
      FROM object_removals
     WHERE seq IN (SELECT value FROM json_each(:seqs)) AND ${IS_FOR_GOOD_SQL} AND owner_id IS NOT NULL`);
  const deleteDone = db.prepare<Settled>(`
    DELETE FROM object_removals WHERE seq IN (SELECT value FROM json_each(:seqs)) AND ${IS_FOR_GOOD_SQL}`);
  const settleAgain = db.prepare<{ seqs: string }>(`
    UPDATE object_removals
       SET due_at_ms = again_at_ms, first_due_at_ms = again_at_ms, again_at_ms = NULL, taken_at_ms = NULL, attempts = 0,
           last_error = NULL, size_bytes = NULL
     WHERE seq IN (SELECT value FROM json_each(:seqs))`);
  const settleFailed = db.prepare<{ seq: number; dueAtMs: number; error: string }>(`
    UPDATE object_removals
       SET due_at_ms = :dueAtMs, taken_at_ms = NULL, attempts = attempts + 1, last_error = :error
     WHERE seq = :seq`);
  const putBack = db.prepare<{ seq: number; dueAtMs: number; error: string }>(`
    UPDATE object_removals SET due_at_ms = :dueAtMs, taken_at_ms = NULL, last_error = :error WHERE seq = :seq`);
  const selectNextDue = db.prepare<[], { dueAtMs: number | null }>(`
    SELECT min(due_at_ms) AS dueAtMs FROM object_removals WHERE taken_at_ms IS NULL`);
  const insertLease = db.prepare<{
    objectKey: string;
    uploadId: string;
    sizeBytes: number;
    nowMs: number;
    dueAtMs: number;
    againAtMs: number;
  }>(`
    INSERT INTO object_removals (object_key, upload_id, size_bytes, entered_at_ms, due_at_ms, first_due_at_ms, again_at_ms)
    VALUES (:objectKey, :uploadId, :sizeBytes, :nowMs, :dueAtMs, :dueAtMs, :againAtMs)`);
  // Once taken an entry is never a lease again, also where it is not marked any more: whatever ended the removal (done
  // and to be repeated, failed, no answer, cut off) has cleared again_at_ms or left an error, and the object may be gone.
  const deleteLease = db.prepare<{ objectKey: string }, { seq: number }>(`
    DELETE FROM object_removals
     WHERE object_key = :objectKey AND taken_at_ms IS NULL AND again_at_ms IS NOT NULL AND last_error IS NULL
    RETURNING seq`);
  const hastenLease = db.prepare<{ objectKey: string; nowMs: number }>(`
    UPDATE object_removals SET due_at_ms = :nowMs, first_due_at_ms = min(first_due_at_ms, :nowMs)
     WHERE object_key = :objectKey AND taken_at_ms IS NULL`);
  const hastenForGood = db.prepare<{ objectKey: string; nowMs: number }>(`
    UPDATE object_removals SET due_at_ms = :nowMs, first_due_at_ms = min(first_due_at_ms, :nowMs), again_at_ms = NULL
     WHERE object_key = :objectKey AND taken_at_ms IS NULL`);
  const insertFound = db.prepare<
    { objectKey: string; uploadId: string; sizeBytes: number; nowMs: number },
    { seq: number }
  >(`
    INSERT INTO object_removals (object_key, upload_id, size_bytes, entered_at_ms, due_at_ms)
    SELECT :objectKey, :uploadId, :sizeBytes, :nowMs, :nowMs
     WHERE NOT EXISTS (SELECT 1 FROM uploads WHERE id = :uploadId AND object_key = :objectKey)
       AND NOT EXISTS (SELECT 1 FROM object_removals WHERE object_key = :objectKey)
    RETURNING seq`);

  // Nothing to write is the rule: most entries know what lies there.
  const selectOtherSize = db.prepare<{ objectKey: string; sizeBytes: number }, { seq: number }>(`
    SELECT seq FROM object_removals WHERE object_key = :objectKey AND size_bytes IS NOT :sizeBytes`);
  const updateSize = db.prepare<{ seq: number; sizeBytes: number }>(`
    UPDATE object_removals SET size_bytes = :sizeBytes WHERE seq = :seq`);

  /** Marks up to `limit` due entries as being removed, durably, and returns them. */
  function takeDue(nowMs: number, limit: number): Promise<TakenRemoval[]> {
    return db.writeStatement(() => take.all({ nowMs, limit }));
  }

  /** Puts back what was being removed: to be called when no removal is under way. */
  function clearTaken(): Promise<void> {
    return db.writeStatement(() => void untakeAll.run(CUT_OFF));
  }

  /**
   * Books what became of taken entries. What was removed goes, or waits for its second removal; what failed waits longer
   * each time and is never given up.
   */
  async function settle(
    taken: readonly TakenRemoval[],
    failures: ReadonlyMap<string, string>,
    nowMs: number,
  ): Promise<void> {
    const releases = await db.write(() => {
      const removed: number[] = [];
      for (const { seq, objectKey, attempts } of taken) {
        const error = failures.get(objectKey);
        if (error === undefined) removed.push(seq);
        else settleFailed.run({ seq, dueAtMs: nowMs + backoffMs(attempts), error: error.slice(0, ERROR_CHARS_MAX) });
      }
      const settled = { seqs: JSON.stringify(removed), nowMs };
      recordRemoved(settled.seqs, nowMs);
      const over = selectHeldUrls
        .all(settled)
        .map(({ ownerId, statedSizeBytes }) => releaseUrl(ownerId, statedSizeBytes));
      deleteDone.run(settled);
      settleAgain.run(settled);
      return over;
    });
    for (const release of releases) release();
  }

  /** Puts entries back for later, with the reason: the store is down and their attempts are not burnt. */
  function postpone(taken: readonly TakenRemoval[], error: string, dueAtMs: number): Promise<void> {
    return db.write(() => {
      for (const { seq } of taken) putBack.run({ seq, dueAtMs, error: error.slice(0, ERROR_CHARS_MAX) });
    });
  }

  /** When the next entry is due, or null where the outbox is empty. */
  function nextDueAtMs(): number | null {
    return selectNextDue.get()?.dueAtMs ?? null;
  }

  /** Enters a final key that a confirm is about to fill: until it is taken back the object has an end. Runs inside a write. */
  function lease(
    objectKey: string,
    entry: { uploadId: string; sizeBytes: number; nowMs: number; leaseMs: number },
  ): void {
    const { uploadId, sizeBytes, nowMs, leaseMs } = entry;
    insertLease.run({
      objectKey,
      uploadId,
      sizeBytes,
      nowMs,
      dueAtMs: nowMs + leaseMs,
      againAtMs: nowMs + leaseMs + LATE_COPY_MS,
    });
  }

  /** Takes a lease back. False where it is gone or its removal ever began: the object must not be charged. Runs inside a write. */
  function takeBackLease(objectKey: string): boolean {
    return deleteLease.get({ objectKey }) !== undefined;
  }

  /**
   * Ends a lease whose confirm failed. With `mayLandLate` the copy had no answer: the object may still appear after its
   * removal, and the second removal stays. A lease that is gone is entered anew: after a jump of the clock both of its
   * removals may have been made while the copy was still under way.
   */
  function endLease(
    objectKey: string,
    { uploadId, sizeBytes, nowMs, mayLandLate }: EndedLease & { nowMs: number },
  ): Promise<void> {
    return db.write(() => {
      const { changes } = (mayLandLate ? hastenLease : hastenForGood).run({ objectKey, nowMs });
      if (changes === 0) insertFound.get({ objectKey, uploadId, sizeBytes, nowMs });
    });
  }

  /** An object was found under a key; if it is entered for removal, its size is noted. What no entry names is left alone. */
  async function noteFound(objectKey: string, sizeBytes: number): Promise<void> {
    const entry = selectOtherSize.get({ objectKey, sizeBytes });
    // If it is removed at this moment, the size stands there for nothing until the URL has expired and it is removed again.
    if (entry !== undefined) await db.writeStatement(() => void updateSize.run({ ...entry, sizeBytes }));
  }

  /** Enters an object that was found in the store and that nothing names. False where something does. */
  function enterFound(found: {
    objectKey: string;
    uploadId: string;
    sizeBytes: number;
    nowMs: number;
  }): Promise<boolean> {
    return db.writeStatement(() => insertFound.get(found) !== undefined);
  }

  return { takeDue, clearTaken, settle, postpone, nextDueAtMs, lease, takeBackLease, endLease, noteFound, enterFound };
}

/** Exponential, capped, with jitter: entries that failed together do not come back together. */
function backoffMs(attempts: number): number {
  const fullMs = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** Math.min(attempts, 20));
  return Math.round(fullMs * (0.5 + Math.random() / 2));
}
