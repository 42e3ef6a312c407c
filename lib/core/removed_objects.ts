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
  // Not as an upsert: the schema refuses to insert what is there, so that no REPLACE can blank it.
  const writer = (whoSql: string, whereSql: string) => {
    const removedSql = `
      SELECT upload_id, ${whoSql}, sum(attempts + 1) AS attempts
        FROM object_removals r
       WHERE seq IN (SELECT value FROM json_each(:seqs)) AND ${IS_FOR_GOOD_SQL} AND ${whereSql}
       GROUP BY upload_id`;
    const update = db.prepare<{ seqs: string; nowMs: number }>(`
      UPDATE removed_objects AS o
         SET owner_id = coalesce(o.owner_id, n.owner_id), user_id = coalesce(o.user_id, n.user_id),
             deleted_at_ms = coalesce(o.deleted_at_ms, n.deleted_at_ms),
             removed_at_ms = max(o.removed_at_ms, :nowMs), attempts = o.attempts + n.attempts
        FROM (${removedSql}) n WHERE o.upload_id = n.upload_id`);
    const insert = db.prepare<{ seqs: string; nowMs: number }>(`
      INSERT INTO removed_objects (upload_id, owner_id, user_id, deleted_at_ms, removed_at_ms, attempts)
      SELECT upload_id, owner_id, user_id, deleted_at_ms, :nowMs, attempts FROM (${removedSql}) n
       WHERE NOT EXISTS (SELECT 1 FROM removed_objects WHERE upload_id = n.upload_id)`);
    return (batch: { seqs: string; nowMs: number }): void => {
      update.run(batch);
      insert.run(batch);
    };
  };
  const writeDeleted = writer(
    "max(owner_id) AS owner_id, max(user_id) AS user_id, max(entered_at_ms) AS deleted_at_ms",
    "user_id IS NOT NULL",
  );
  // A staging key that a confirm gave up, an abandoned copy, a late arrival: usually their upload still exists. If neither
  // the ledger nor the record knows it, nobody could ever ask.
  const writeOther = writer(
    "NULL AS owner_id, NULL AS user_id, NULL AS deleted_at_ms",
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
    writeDeleted({ seqs, nowMs });
    writeOther({ seqs, nowMs });
  }

  return { record, find: (uploadId: string): RemovedObjects | null => select.get(uploadId) ?? null };
}
