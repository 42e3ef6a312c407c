import type { Lease, Removals, TakenRemoval } from "../removals.ts";
import type { Db } from "./db/db.ts";
import { IS_FOR_GOOD_SQL, type RemovedObjectsRecord } from "./removed_objects.ts";

/** A staging object or an abandoned copy may land this late, a day after its entry (seen on real servers). */
const LATE_COPY_MS = 86_400_000;
/** Pause before the first retry of a removal that failed; doubled each time. */
const BACKOFF_MS_MIN = 1_000;
const BACKOFF_MS_MAX = 3_600_000;
/** Characters kept of an error's text. */
const ERROR_CHARS_MAX = 300;
/** The error of an entry that was taken and never settled. */
export const CUT_OFF = "its removal was begun and cut off";

/** Entries whose objects were removed: their numbers as JSON, and when. */
interface Settled {
  seqs: string;
  nowMs: number;
}

export interface RemovalsParts {
  entries: RemovalEntries;
  /**
   * Told, inside the write, of each entry that is settled for good and stood for an upload URL: nothing comes by it any
   * more. The function that it returns is called once that is durable.
   */
  releaseUrl: (ownerId: string, statedSizeBytes: number | null) => () => void;
  /** Told, inside the write and before they go, of entries that are settled. */
  recordRemoved: RemovedObjectsRecord["record"];
}

export function createRemovals(db: Db, { entries, releaseUrl, recordRemoved }: RemovalsParts): Removals {
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
  // One statement for the whole batch: one for each entry would cost more than the entries do.
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

  return {
    takeDue: (nowMs, limit) => db.writeStatement(() => take.all({ nowMs, limit })),

    clearTaken: () => db.writeStatement(() => void untakeAll.run(CUT_OFF)),

    async settle(taken, failures, nowMs) {
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
    },

    postpone: (taken, reason, dueAtMs) =>
      db.write(() => {
        for (const { seq } of taken) putBack.run({ seq, dueAtMs, error: reason.slice(0, ERROR_CHARS_MAX) });
      }),

    nextDueAtMs: async () => selectNextDue.get()?.dueAtMs ?? null,

    endLease: (objectKey, { uploadId, sizeBytes, nowMs, mayLandLate }) =>
      db.write(() => {
        const { changes } = (mayLandLate ? hastenLease : hastenForGood).run({ objectKey, nowMs });
        if (changes === 0) insertFound.get({ objectKey, uploadId, sizeBytes, nowMs });
      }),

    lease: (objectKey, lease) => db.writeStatement(() => entries.lease(objectKey, lease)),

    takeBackLeases: (objectKeys) =>
      db.write(() => {
        for (const objectKey of objectKeys) entries.takeBackLease(objectKey);
      }),

    async noteFound(objectKey, sizeBytes) {
      // Most entries know the size already: then nothing is written. If the object is removed at this moment, the size is
      // wrong until the URL has expired and the second removal is made.
      if (entries.knowsSize(objectKey, sizeBytes)) return;
      await db.writeStatement(() => entries.setSize(objectKey, sizeBytes));
    },

    enterFound: (found) => db.writeStatement(() => insertFound.get(found) !== undefined),
  };
}

export type RemovalEntries = ReturnType<typeof createRemovalEntries>;

/** The part of the outbox that the verbs of uploads write inside their own transactions. */
export function createRemovalEntries(db: Db) {
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
  // An entry that was ever taken is no lease any more, even if its mark is cleared: the end of its removal (done and to be
  // repeated, failed, no response, cut off) has cleared again_at_ms or left an error, and the object may be gone.
  const deleteLease = db.prepare<{ objectKey: string }, { seq: number }>(`
    DELETE FROM object_removals
     WHERE object_key = :objectKey AND taken_at_ms IS NULL AND again_at_ms IS NOT NULL AND last_error IS NULL
    RETURNING seq`);
  const selectOtherSize = db.prepare<{ objectKey: string; sizeBytes: number }, { seq: number }>(`
    SELECT seq FROM object_removals WHERE object_key = :objectKey AND size_bytes IS NOT :sizeBytes`);
  const updateSize = db.prepare<{ objectKey: string; sizeBytes: number }>(`
    UPDATE object_removals SET size_bytes = :sizeBytes WHERE object_key = :objectKey`);

  return {
    /** Enters a final key that is about to be filled: until it is taken back, the object will be removed. */
    lease(objectKey: string, { uploadId, sizeBytes, nowMs, leaseMs }: Lease): void {
      const dueAtMs = nowMs + leaseMs;
      insertLease.run({ objectKey, uploadId, sizeBytes, nowMs, dueAtMs, againAtMs: dueAtMs + LATE_COPY_MS });
    },
    /** False if the lease is gone or its removal ever began: then the object must not be charged. */
    takeBackLease: (objectKey: string): boolean => deleteLease.get({ objectKey }) !== undefined,
    /** Whether no entry of this key has another size. */
    knowsSize: (objectKey: string, sizeBytes: number): boolean =>
      selectOtherSize.get({ objectKey, sizeBytes }) === undefined,
    setSize: (objectKey: string, sizeBytes: number): void => void updateSize.run({ objectKey, sizeBytes }),
  };
}

/** Exponential, capped, with jitter: entries that failed together do not come back together. */
function backoffMs(attempts: number): number {
  const fullMs = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** Math.min(attempts, 20));
  return Math.round(fullMs * (0.5 + Math.random() / 2));
}
