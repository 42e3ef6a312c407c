import type { Db } from "../db/db.ts";

/** Whether an entry whose object was removed at `:nowMs` is settled for good; otherwise it waits for its second removal. */
export const IS_FOR_GOOD_SQL = "(again_at_ms IS NULL OR again_at_ms <= :nowMs)";

/** What is kept of a deleted upload whose objects were removed. */
export interface RemovedObjects {
  /** Of an upload that was never charged: the workspace, or the person if it was in none. */
  ownerId: string | null;
  userId: string | null;
  deletedAtMs: number | null;
  removedAtMs: number;
  attempts: number;
}

export type RemovedObjectsRecord = ReturnType<typeof createRemovedObjects>;

/** The record of what was removed of deleted uploads: one row for each, kept for good. */
export function createRemovedObjects(db: Db) {
  const upsert = (whoSql: string, whereSql: string) =>
    db.prepare<{ seqs: string; nowMs: number }>(`
      INSERT INTO removed_objects (upload_id, owner_id, user_id, deleted_at_ms, removed_at_ms, attempts)
      SELECT upload_id, ${whoSql}, :nowMs, attempts + 1
        FROM object_removals r
       WHERE seq IN (SELECT value FROM json_each(:seqs)) AND ${IS_FOR_GOOD_SQL} AND ${whereSql}
      ON CONFLICT (upload_id) DO UPDATE
         SET owner_id = coalesce(owner_id, excluded.owner_id), user_id = coalesce(user_id, excluded.user_id),
             deleted_at_ms = coalesce(deleted_at_ms, excluded.deleted_at_ms),
             removed_at_ms = max(removed_at_ms, excluded.removed_at_ms), attempts = attempts + excluded.attempts`);
  const upsertDeleted = upsert("owner_id, user_id, entered_at_ms", "user_id IS NOT NULL");
  // A staging key that a confirm gave up, an abandoned copy, a late arrival: usually their upload still exists. If neither
  // the ledger nor the record knows it, nobody could ever ask.
  const upsertOther = upsert(
    "NULL, NULL, NULL",
    `user_id IS NULL
         AND NOT EXISTS (SELECT 1 FROM uploads WHERE id = r.upload_id)
         AND (EXISTS (SELECT 1 FROM storage_events WHERE upload_id = r.upload_id AND kind = 'release')
              OR EXISTS (SELECT 1 FROM removed_objects WHERE upload_id = r.upload_id))`,
  );
  const select = db.prepare<[string], RemovedObjects>(`
    SELECT owner_id AS ownerId, user_id AS userId, deleted_at_ms AS deletedAtMs, removed_at_ms AS removedAtMs, attempts
      FROM removed_objects WHERE upload_id = ?`);

  /**
   * Records what of these entries of the outbox is removed for good, unless its upload still exists. `seqs`: their numbers, as
   * JSON. Runs inside the write that settles them, before they go.
   */
  function record(seqs: string, nowMs: number): void {
    upsertDeleted.run({ seqs, nowMs });
    upsertOther.run({ seqs, nowMs });
  }

  return { record, find: (uploadId: string): RemovedObjects | null => select.get(uploadId) ?? null };
}
