import type { Db } from "../db/db.ts";

/** An entry of the outbox whose object is removed for good. */
export interface SettledEntry {
  uploadId: string;
  /** The place that the entry held for an upload URL: a workspace or a person. */
  ownerId: string | null;
  /** Who had made the upload whose deletion entered it; null if no deletion did. */
  userId: string | null;
  enteredAtMs: number;
  /** The tries that failed. */
  attempts: number;
}

/** What is kept of a deleted upload whose objects were removed. */
export interface RemovedObjects {
  /** Of an upload that was never charged: the workspace, or the person if it was in none. */
  ownerId: string | null;
  userId: string | null;
  deletedAtMs: number | null;
  removedAtMs: number;
  attempts: number;
}

interface NewRecord extends Omit<RemovedObjects, "removedAtMs"> {
  uploadId: string;
  nowMs: number;
}

export type RemovedObjectsRecord = ReturnType<typeof createRemovedObjects>;

/** The record of what was removed of deleted uploads: one row for each, kept for good. */
export function createRemovedObjects(db: Db) {
  const upsert = (whereSql: string) =>
    db.prepare<NewRecord>(`
      INSERT INTO removed_objects (upload_id, owner_id, user_id, deleted_at_ms, removed_at_ms, attempts)
      SELECT :uploadId, :ownerId, :userId, :deletedAtMs, :nowMs, :attempts WHERE ${whereSql}
      ON CONFLICT (upload_id) DO UPDATE
         SET owner_id = coalesce(owner_id, excluded.owner_id), user_id = coalesce(user_id, excluded.user_id),
             deleted_at_ms = coalesce(deleted_at_ms, excluded.deleted_at_ms),
             removed_at_ms = max(removed_at_ms, excluded.removed_at_ms), attempts = attempts + excluded.attempts`);
  const upsertDeleted = upsert("true");
  // A staging key that a confirm gave up, an abandoned copy, a late arrival: usually their upload still exists. If neither
  // the ledger nor the record knows it, nobody could ever ask.
  const upsertOther = upsert(`
             NOT EXISTS (SELECT 1 FROM uploads WHERE id = :uploadId)
         AND (EXISTS (SELECT 1 FROM storage_events WHERE upload_id = :uploadId AND kind = 'release')
              OR EXISTS (SELECT 1 FROM removed_objects WHERE upload_id = :uploadId))`);
  const select = db.prepare<[string], RemovedObjects>(`
    SELECT owner_id AS ownerId, user_id AS userId, deleted_at_ms AS deletedAtMs, removed_at_ms AS removedAtMs, attempts
      FROM removed_objects WHERE upload_id = ?`);

  /** Records an entry that is settled for good, unless its upload still exists. Runs inside the write that settles it. */
  function record({ uploadId, ownerId, userId, enteredAtMs, attempts }: SettledEntry, nowMs: number): void {
    const tries = { uploadId, nowMs, attempts: attempts + 1 };
    if (userId === null) upsertOther.run({ ...tries, ownerId: null, userId: null, deletedAtMs: null });
    else upsertDeleted.run({ ...tries, ownerId, userId, deletedAtMs: enteredAtMs });
  }

  return { record, find: (uploadId: string): RemovedObjects | null => select.get(uploadId) ?? null };
}
