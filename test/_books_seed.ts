import { readFileSync } from "node:fs";
import Database from "better-sqlite3";

/** The people, workspaces and uploads of the seeded file. The last digits say which: `a3` is the third upload of A. */
export const USER = "01900000-0000-7000-8000-0000000000f1";
export const OTHER_USER = "01900000-0000-7000-8000-0000000000f2";

export const WORKSPACE = {
  /** 500 of 1,000 bytes used. */
  a: "01900000-0000-7000-8000-00000000000a",
  /** 100 of 500 bytes used. */
  b: "01900000-0000-7000-8000-00000000000b",
  /** No events at all; quota 100. */
  empty: "01900000-0000-7000-8000-00000000000e",
  /** Deleted, with 70 bytes still to be released. */
  gone: "01900000-0000-7000-8000-00000000000d",
  unknown: "01900000-0000-7000-8000-000000000000",
};

export const UPLOAD = {
  /** Pending in A; a confirm holds a lease on a final key. */
  a1: "01900000-0000-7000-8000-0000000000a1",
  /** Pending in A. */
  a2: "01900000-0000-7000-8000-0000000000a2",
  /** Confirmed in A, 300 bytes. */
  a3: "01900000-0000-7000-8000-0000000000a3",
  /** Confirmed in A, 200 bytes. */
  a4: "01900000-0000-7000-8000-0000000000a4",
  /** Confirmed in A with 50 bytes, then deleted. */
  a5: "01900000-0000-7000-8000-0000000000a5",
  /** Pending in A, then deleted. */
  a6: "01900000-0000-7000-8000-0000000000a6",
  /** Pending in B. */
  b1: "01900000-0000-7000-8000-0000000000b1",
  /** Confirmed in B, 100 bytes. */
  b2: "01900000-0000-7000-8000-0000000000b2",
  /** Confirmed in B, no bytes at all. */
  b3: "01900000-0000-7000-8000-0000000000b3",
  /** Pending, of no workspace. */
  p1: "01900000-0000-7000-8000-0000000000c1",
  /** Pending in the deleted workspace. */
  d1: "01900000-0000-7000-8000-0000000000d1",
  /** Confirmed in the deleted workspace, 70 bytes. */
  d2: "01900000-0000-7000-8000-0000000000d2",
  /** Not in the file. */
  fresh: "01900000-0000-7000-8000-000000000099",
};

export type Place = "staging" | "final";

/** The key that the seed gives an upload, or with another `tail` a key that it might have. */
export function objectKey(place: Place, installation: string, uploadId: string, tail = uploadId.slice(-2)): string {
  return `${place}/${installation}/${uploadId}/${tail.padStart(32, "0")}`;
}

/** Columns of `uploads` that a hand-typed INSERT has to give, in the order of `uploadValues`. */
export const UPLOAD_COLUMNS =
  "(id, user_id, workspace_id, status, size_bytes, object_key, filename, category, content_type, " +
  "url_expires_at_ms, expires_at_ms, created_at_ms, updated_at_ms)";

/** One parenthesis of VALUES. Each argument but the first is SQL text. */
export function uploadValues(
  id: string,
  key: string,
  workspace = `'${WORKSPACE.a}'`,
  status = "'pending', NULL",
): string {
  return `('${id}', '${USER}', ${workspace}, ${status}, ${key}, 'a.txt', 'file', 'text/plain', 5000, 9000, 1, 1)`;
}

/** Builds a database file from schema.sql with the rows above, and returns its installation's id. */
export function makeSeededFile(path: string): string {
  const db = new Database(path);
  try {
    db.pragma("journal_mode = WAL");
    db.exec(readFileSync(new URL("../schema.sql", import.meta.url), "utf8"));
    const installation = String(db.prepare("SELECT id FROM installation").pluck().get());
    db.exec(seedSql(installation));
    return installation;
  } finally {
    db.close();
  }
}

function seedSql(installation: string): string {
  const pending = (id: string, workspace: string) =>
    `INSERT INTO uploads ${UPLOAD_COLUMNS} VALUES ${uploadValues(id, `'${objectKey("staging", installation, id)}'`, workspace)};`;
  const confirm = (id: string, sizeBytes: number) =>
    `UPDATE uploads SET status = 'uploaded', size_bytes = ${sizeBytes}, etag = 'e',
            object_key = '${objectKey("final", installation, id)}' WHERE id = '${id}';`;
  const workspace = (id: string, quotaBytes: number) =>
    `INSERT INTO workspaces (id, name, slug, created_by, storage_bytes_quota, created_at_ms, updated_at_ms)
     VALUES ('${id}', 'w', 'w-${id.slice(-1)}', '${USER}', ${quotaBytes}, 1, 1);`;
  const of = (id: string) => `'${id}'`;
  return [
    `INSERT INTO users (id, created_at_ms) VALUES ('${USER}', 1), ('${OTHER_USER}', 1);`,
    workspace(WORKSPACE.a, 1000),
    workspace(WORKSPACE.b, 500),
    workspace(WORKSPACE.empty, 100),
    workspace(WORKSPACE.gone, 1000),
    ...[UPLOAD.a1, UPLOAD.a2, UPLOAD.a3, UPLOAD.a4, UPLOAD.a5, UPLOAD.a6].map((id) => pending(id, of(WORKSPACE.a))),
    ...[UPLOAD.b1, UPLOAD.b2, UPLOAD.b3].map((id) => pending(id, of(WORKSPACE.b))),
    ...[UPLOAD.d1, UPLOAD.d2].map((id) => pending(id, of(WORKSPACE.gone))),
    pending(UPLOAD.p1, "NULL"),
    confirm(UPLOAD.a3, 300),
    confirm(UPLOAD.a5, 50),
    confirm(UPLOAD.a4, 200),
    confirm(UPLOAD.b2, 100),
    confirm(UPLOAD.b3, 0),
    confirm(UPLOAD.d2, 70),
    `DELETE FROM uploads WHERE id IN ('${UPLOAD.a5}', '${UPLOAD.a6}');`,
    `UPDATE workspaces SET deleted_at_ms = 2 WHERE id = '${WORKSPACE.gone}';`,
    `INSERT INTO object_removals (object_key, upload_id, entered_at_ms, due_at_ms, again_at_ms)
     VALUES ('${objectKey("final", installation, UPLOAD.a1)}', '${UPLOAD.a1}', 1, 7000, 86407000);`,
    `INSERT INTO storage_events (workspace_id, kind, bytes, balance_bytes, at_ms) VALUES ('${WORKSPACE.a}', 'adjust', 0, 500, 3);`,
    `INSERT INTO removed_objects VALUES ('${UPLOAD.a6}', '${WORKSPACE.a}', '${USER}', 3, 8, 2), ('${UPLOAD.a5}', NULL, NULL, NULL, 8, 1);`,
  ].join("\n");
}
