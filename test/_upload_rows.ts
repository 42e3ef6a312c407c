import type Database from "better-sqlite3";

export interface UploadRow {
  userId: string;
  /** Null for a personal upload, which stays pending. */
  workspaceId: string | null;
  category?: string;
  /** What it is bound to; left out: it stays pending. */
  contextId?: string;
}

const HEX_32 = "0123456789abcdef0123456789abcdef";

/** Makes uploads by SQL alone, through the schema's triggers: no bytes are stored. Returns their ids, the oldest first. */
export function insertUploads(sql: Database.Database, rows: readonly UploadRow[], from = 0): string[] {
  const installation = sql.prepare("SELECT id FROM installation").pluck().get();
  const insert = sql.prepare(`
    INSERT INTO uploads (id, user_id, workspace_id, filename, category, content_type, status, object_key,
                         url_expires_at_ms, expires_at_ms, created_at_ms, updated_at_ms)
    VALUES (:id, :userId, :workspaceId, 'a', :category, 'text/plain', 'pending', :key, 1, 9e15, :atMs, :atMs)`);
  const confirm = sql.prepare(`
    UPDATE uploads SET status = 'uploaded', size_bytes = 1, etag = 'e', object_key = :key, context_type = 'workflow', context_id = :contextId
     WHERE id = :id`);
  return sql.transaction(() =>
    rows.map(({ userId, workspaceId, category = "file", contextId }, i) => {
      const atMs = 1_790_000_000_000 + from + i;
      const id = `${atMs
        .toString(16)
        .padStart(12, "0")
        .replace(/^(.{8})/, "$1-")}-7000-8000-000000000000`;
      const key = (place: string) => `${place}/${installation}/${id}/${HEX_32}`;
      insert.run({ id, userId, workspaceId, category, key: key("staging"), atMs });
      if (contextId !== undefined) confirm.run({ id, contextId, key: key("final") });
      return id;
    }),
  )();
}
