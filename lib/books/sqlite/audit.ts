import type { Audit, ConfirmedRow, FailingEntry } from "../audit.ts";
import { placeOfKey, sealedKeyOf } from "../object_keys.ts";
import type { Db } from "./db/db.ts";
import type { UploadRows } from "./upload_rows.ts";

export function createAudit(db: Db, { rows }: { rows: Pick<UploadRows, "insertTrial" | "removeTrial"> }): Audit {
  const selectWorkspaces = db.prepare<{ afterId: string; limit: number }, { workspaceId: string }>(`
    SELECT id AS workspaceId FROM workspaces WHERE id > :afterId ORDER BY id LIMIT :limit`);
  const selectConfirmed = db.prepare<{ afterId: string; throughId: string; limit: number }, ConfirmedRow>(`
    SELECT id AS uploadId, object_key AS objectKey, size_bytes AS sizeBytes, coalesce(etag, '') AS etag,
           updated_at_ms AS confirmedAtMs
      FROM uploads
     WHERE id > :afterId AND id <= :throughId AND status = 'uploaded'
     ORDER BY id LIMIT :limit`);
  const selectKey = db.prepare<[string], { objectKey: string }>(
    "SELECT object_key AS objectKey FROM uploads WHERE id = ?",
  );
  const selectEntry = db.prepare<[string], { seq: number }>("SELECT seq FROM object_removals WHERE object_key = ?");
  const selectFailing = db.prepare<{ limit: number }, FailingEntry>(`
    SELECT object_key AS objectKey, attempts, last_error AS lastError FROM object_removals
     WHERE attempts > 0 ORDER BY seq LIMIT :limit`);
  const countExpiring = db.prepare<[number], { uploads: number }>(`
    SELECT count(*) AS uploads FROM uploads WHERE status = 'pending' AND expires_at_ms <= ?`);
  const selectForeignKeys = db.prepare<[], { table: string; parent: string }>("PRAGMA foreign_key_check");
  const selectIntegrity = db.prepare<[], { integrity_check: string }>("PRAGMA integrity_check(100)");
  const selectPages = db.prepare<[], { page_count: number }>("PRAGMA page_count");
  const selectPageSize = db.prepare<[], { page_size: number }>("PRAGMA page_size");

  return {
    fileBytes: async () => (selectPages.get()?.page_count ?? 0) * (selectPageSize.get()?.page_size ?? 0),
    async findFaults() {
      const damages = selectIntegrity.all().map((row) => row.integrity_check);
      const strays = selectForeignKeys.all().map(({ table, parent }) => `a row of ${table} has no row in ${parent}`);
      return [...damages.filter((text) => text !== "ok"), ...new Set(strays)];
    },
    listWorkspaceIds: async (afterId, limit) =>
      selectWorkspaces.all({ afterId, limit }).map(({ workspaceId }) => workspaceId),
    listConfirmed: async (afterId, throughId, limit) => selectConfirmed.all({ afterId, throughId, limit }),
    isNamed: async (uploadId, objectKey) => selectKey.get(uploadId)?.objectKey === objectKey,
    async isEntered(objectKey) {
      const keys = placeOfKey(objectKey) === "staging" ? [objectKey, sealedKeyOf(objectKey)] : [objectKey];
      return keys.some((key) => selectEntry.get(key) !== undefined);
    },
    listFailing: async (limit) => selectFailing.all({ limit }),
    countExpiring: async (nowMs) => countExpiring.get(nowMs)?.uploads ?? 0,
    createTrial: (trial) => db.writeStatement(() => rows.insertTrial(trial)),
    removeTrial: (uploadId) => db.writeStatement(() => rows.removeTrial(uploadId)),
  };
}
