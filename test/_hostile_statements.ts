import { OTHER_USER, objectKey, UPLOAD, UPLOAD_COLUMNS, USER, uploadValues, WORKSPACE } from "./_books_seed.ts";

/** SQL that somebody might type into the file, and what the schema makes of it. */
export interface HostileStatement {
  sql: string;
  /** A part of the error; absent where the statement passes. */
  refused?: string;
  /** Whether any guarded row is different afterwards. */
  changes: boolean;
  /** A query that gives 1 afterwards. */
  shows?: string;
  /** Keys that a row named for a moment, within the statement. */
  named?: string[];
  /** The file is not opened but attached to an empty database, as `s`. */
  attached?: boolean;
}

type Extra = Omit<HostileStatement, "sql" | "refused" | "changes">;

const START_WORKSPACE = "a workspace starts empty, once";
const KEEP_WORKSPACE = "a workspace keeps its id";
const SLUG = "another workspace has that slug";
const IN_DELETED = "a deleted workspace takes no uploads";
const STAY = "a workspace stays for its ledger";
const COUNTER = "the counter follows the ledger";
const START = "an upload starts as pending, once, with a staging key of its own";
const CHANGE = "change at its confirm only";
const FINAL_KEY = "a confirmed upload names a final key of its own";
const GATE = "storage_limit_exceeded";
/** Both guards refuse it, and SQLite does not say which of a table's triggers runs first. */
const CHANGE_OR_GATE = `${CHANGE}|${GATE}`;
/** STRICT refuses it before any trigger is asked. */
const TYPE = "cannot store";
const BOOKS = "the ledger books what happened, once";
const APPEND = "the ledger is append-only";
const ENTRY = "an upload names that object, or it is entered already, or it is not ours";
const KEEP_ENTRY = "an entry keeps its object";
const INSTALLATION = "the installation keeps its id";
const RECORD = "what was removed stays on record";

const refused = (why: string, sql: string, extra: Extra = {}): HostileStatement => ({
  sql,
  refused: why,
  changes: false,
  ...extra,
});
const refusedHalfWay = (why: string, sql: string, extra: Extra = {}): HostileStatement => ({
  sql,
  refused: why,
  changes: true,
  ...extra,
});
const allowed = (sql: string, extra: Extra = {}): HostileStatement => ({ sql, changes: true, ...extra });
const ignored = (sql: string, extra: Extra = {}): HostileStatement => ({ sql, changes: false, ...extra });

/**
 * The list, for a file made by `makeSeededFile`. What deletes much comes last, so that the list can also be typed in one
 * go. Not in it, because no schema withstands it: writable_schema, dropping or silencing triggers, emptying the outbox.
 */
export function hostileStatements(installation: string): HostileStatement[] {
  const { a, b, empty, gone, unknown } = WORKSPACE;
  const { a1, a2, a3, a4, a5, a6, b1, b2, p1, d1, fresh } = UPLOAD;
  const staging = (id: string, tail?: string) => objectKey("staging", installation, id, tail);
  const final = (id: string, tail?: string) => objectKey("final", installation, id, tail);
  const newUpload = (insert: string, id: string, key: string, workspace?: string, status?: string) =>
    `${insert} INTO uploads ${UPLOAD_COLUMNS} VALUES ${uploadValues(id, `'${key}'`, workspace, status)}`;
  const confirm = (update: string, id: string, sizeBytes: number | string, key = final(id, "77")) =>
    `${update} uploads SET status = 'uploaded', size_bytes = ${sizeBytes}, object_key = '${key}' WHERE id = '${id}'`;
  const enter = (insert: string, key: string, uploadId: string) =>
    `${insert} INTO object_removals (object_key, upload_id, entered_at_ms, due_at_ms) VALUES ('${key}', '${uploadId}', 1, 0)`;
  const event = (
    insert: string,
    values: string,
    columns = "workspace_id, upload_id, kind, bytes, balance_bytes, at_ms",
  ) => `${insert} INTO storage_events (${columns}) VALUES (${values})`;
  const workspace = (insert: string, id: string, used: string, slug = "w-new") =>
    `${insert} INTO workspaces (id, name, slug, created_by, storage_bytes_used, storage_bytes_quota, created_at_ms, updated_at_ms)
     VALUES ('${id}', 'w', '${slug}', '${USER}', ${used}, 1000, 1, 1)`;
  const usedIs = (id: string, bytes: number) =>
    `SELECT storage_bytes_used = ${bytes} FROM workspaces WHERE id = '${id}'`;
  const isEntered = (key: string) => `SELECT count(*) FROM object_removals WHERE object_key = '${key}'`;
  const entryIs = (key: string, what: string) => `SELECT ${what} FROM object_removals WHERE object_key = '${key}'`;
  const seqOf = (key: string) => `(SELECT seq FROM object_removals WHERE object_key = '${key}')`;
  const removed = (insert: string, id: string) =>
    `${insert} INTO removed_objects VALUES ('${id}', NULL, NULL, NULL, 9, 1)`;
  const nothing = `'${empty}', NULL, 'adjust', 0, 0, 1`;

  return [
    // An upload's beginning.
    refused(START, newUpload("INSERT", a1, staging(a1, "77"))),
    refused(START, newUpload("INSERT OR IGNORE", a1, staging(a1, "77"))),
    refused(START, newUpload("INSERT OR REPLACE", a1, staging(a1, "77"))),
    refused(START, newUpload("INSERT OR FAIL", a1, staging(a1, "77"))),
    refused(START, newUpload("INSERT OR ROLLBACK", a1, staging(a1, "77"))),
    refused(START, newUpload("REPLACE", a3, staging(a3, "77"))),
    refused(START, `PRAGMA recursive_triggers = ON; ${newUpload("REPLACE", a3, staging(a3, "77"))}`),
    refused(START, `PRAGMA recursive_triggers = OFF; ${newUpload("REPLACE", a3, staging(a3, "77"))}`),
    refused(
      START,
      `${newUpload("INSERT", a1, staging(a1, "77"))} ON CONFLICT (id) DO UPDATE SET object_key = excluded.object_key`,
    ),
    refused(START, `${newUpload("INSERT", a3, staging(a3, "77"))} ON CONFLICT DO NOTHING`),
    refused(START, newUpload("INSERT", fresh, final(fresh), `'${a}'`, "'uploaded', 10")),
    refused(START, newUpload("INSERT OR REPLACE", a3, final(a3), `'${a}'`, "'uploaded', 10")),
    refused(START, newUpload("INSERT", fresh, final(fresh))),
    refused(START, newUpload("INSERT", fresh, staging(a2))),
    refused(START, newUpload("INSERT", fresh, `staging/${"0".repeat(16)}/${fresh}/${"0".repeat(32)}`)),
    refused(START, newUpload("INSERT", fresh, `staging/${installation}/../${installation}/${fresh}/${"0".repeat(32)}`)),
    refused(START, newUpload("INSERT", fresh, `staging/${installation}/${fresh}/../../${"0".repeat(26)}`)),
    refused(START, newUpload("INSERT", fresh, `staging/${installation}/${fresh}/${"A".repeat(32)}`)),
    refused(START, newUpload("INSERT", fresh, `${staging(fresh)}0`)),
    refused(
      START,
      newUpload("INSERT", "../../final/0000000000000000/aaaaaaa", staging("../../final/0000000000000000/aaaaaaa", "1")),
    ),
    refused(
      START,
      newUpload("INSERT", fresh.toUpperCase().replace("7000", "ABCD"), staging(fresh.replace("7000", "ABCD"))),
    ),
    refused(
      START,
      `INSERT INTO uploads ${UPLOAD_COLUMNS}
       SELECT id, user_id, workspace_id, status, NULL, 'staging/${installation}/' || id || '/' || substr(id, 5, 32), filename,
              category, content_type, 1, 1, 1, 1
         FROM (SELECT '0123456789abcdef0123456789abcdef0123' || char(0) || '/..' AS id, user_id, workspace_id, status, filename,
                      category, content_type FROM uploads WHERE id = '${a1}')`,
    ),
    refused(
      TYPE,
      `INSERT INTO uploads ${UPLOAD_COLUMNS} VALUES ${uploadValues(fresh, `CAST('${staging(fresh)}' AS BLOB)`)}`,
    ),
    refused("NOT NULL", `INSERT INTO uploads ${UPLOAD_COLUMNS} VALUES ${uploadValues(fresh, "NULL")}`),
    refused(START, newUpload("INSERT", a6, staging(a6))),
    refused(START, newUpload("INSERT", a5, staging(a5, "77"))),
    refused(
      START,
      `PRAGMA ignore_check_constraints = ON; ${newUpload("INSERT", fresh, staging(fresh), `'${a}'`, "'done', NULL")}`,
    ),
    refused(START, `PRAGMA ignore_check_constraints = ON; ${newUpload("INSERT", "abc", staging("abc", "1"))}`),
    refused(START, `${newUpload("INSERT", fresh, staging(fresh))}, ${uploadValues(a1, `'${staging(a1, "77")}'`)}`),
    refusedHalfWay(
      "NOT NULL",
      `${newUpload("INSERT OR FAIL", fresh, staging(fresh))}, ${uploadValues(fresh.replace(/9/g, "8"), `'${staging(fresh.replace(/9/g, "8"))}'`).replace("'a.txt'", "NULL")}`,
    ),
    ignored(newUpload("INSERT OR IGNORE", fresh, staging(fresh)).replace("'a.txt'", "NULL")),
    refused(START, `INSERT INTO uploads SELECT * FROM uploads WHERE id = '${a1}'`),
    refused(START, `REPLACE INTO uploads SELECT * FROM uploads`),
    allowed(`${newUpload("INSERT OR REPLACE", fresh, staging(fresh))} RETURNING id`),
    allowed(newUpload("INSERT", fresh, staging(fresh), "NULL")),
    allowed(newUpload("INSERT", a6, staging(a6, "77"))),

    // An upload's changes.
    refused(CHANGE, `UPDATE uploads SET id = '${fresh}' WHERE id = '${a3}'`),
    refused(CHANGE, `UPDATE OR REPLACE uploads SET id = '${a4}' WHERE id = '${a3}'`),
    refused(CHANGE, `UPDATE OR IGNORE uploads SET id = '${a4}' WHERE id = '${a3}'`),
    refused(CHANGE, `UPDATE uploads SET object_key = '${final(a3, "77")}' WHERE id = '${a3}'`),
    refused(CHANGE, `UPDATE OR IGNORE uploads SET object_key = '${staging(a1, "77")}' WHERE id = '${a1}'`),
    refused(
      CHANGE,
      `UPDATE uploads SET object_key = (SELECT object_key FROM uploads o WHERE o.id IN ('${a3}', '${a4}') AND o.id <> uploads.id)
        WHERE id IN ('${a3}', '${a4}')`,
    ),
    refused(
      CHANGE,
      `UPDATE uploads SET id = CASE id WHEN '${a1}' THEN '${a2}' ELSE '${a1}' END WHERE id IN ('${a1}', '${a2}')`,
    ),
    refused(
      CHANGE,
      `UPDATE uploads SET object_key = o.object_key FROM uploads o WHERE o.id = '${a4}' AND uploads.id = '${a3}'`,
    ),
    refused(CHANGE, `UPDATE OR REPLACE uploads SET object_key = NULL WHERE id = '${a3}'`),
    refused(CHANGE, `UPDATE uploads SET size_bytes = 1 WHERE id = '${a3}'`),
    refused(CHANGE, `UPDATE OR IGNORE uploads SET size_bytes = size_bytes + 1`),
    refused(CHANGE, `UPDATE uploads SET size_bytes = NULL WHERE id = '${a3}'`),
    refused(CHANGE, `UPDATE uploads SET size_bytes = 10 WHERE id = '${a1}'`),
    refused(CHANGE, `UPDATE uploads SET etag = 'other' WHERE id = '${a3}'`),
    refused(CHANGE, `UPDATE uploads SET workspace_id = '${b}' WHERE id = '${a3}'`),
    refused(CHANGE, `UPDATE uploads SET workspace_id = '${b}' WHERE id = '${a1}'`),
    refused(CHANGE, `UPDATE uploads SET workspace_id = NULL WHERE id = '${a1}'`),
    refused(CHANGE, `UPDATE uploads SET status = 'pending' WHERE id = '${a3}'`),
    refused(
      CHANGE,
      `UPDATE OR IGNORE uploads SET status = 'pending', size_bytes = NULL, object_key = '${staging(a3)}' WHERE id = '${a3}'`,
    ),
    refused(
      CHANGE,
      `UPDATE uploads INDEXED BY uploads_by_workspace SET status = 'pending', size_bytes = NULL WHERE workspace_id = '${a}'`,
    ),
    refused(CHANGE, `UPDATE OR REPLACE uploads SET status = NULL WHERE id = '${a3}'`),
    refused(CHANGE, `PRAGMA ignore_check_constraints = ON; UPDATE uploads SET status = 'deleted' WHERE id = '${a3}'`),
    refused(CHANGE_OR_GATE, `UPDATE uploads SET status = 'uploaded' WHERE id = '${a1}'`),
    ignored(
      `UPDATE uploads SET id = id, status = status, size_bytes = size_bytes, object_key = object_key, workspace_id = workspace_id`,
    ),
    // Notes of what is staged may say anything: no books rest on them.
    allowed(`UPDATE uploads SET staged_size_bytes = 5, stated_size_bytes = NULL`),
    allowed(`PRAGMA ignore_check_constraints = ON; UPDATE uploads SET staged_size_bytes = -1 WHERE id = '${a1}'`),
    refused("CHECK", `UPDATE uploads SET staged_size_bytes = -1 WHERE id = '${a1}'`),
    refused(TYPE, `UPDATE uploads SET staged_size_bytes = 'much' WHERE id = '${a1}'`),
    refused(CHANGE, `UPDATE uploads SET staged_size_bytes = 5, size_bytes = 5 WHERE id = '${a3}'`),
    allowed(`UPDATE uploads SET staged_size_bytes = 900 WHERE id = '${a1}'; ${confirm("UPDATE", a1, 5)}`, {
      shows: usedIs(a, 505),
    }),
    allowed(`UPDATE uploads SET filename = 'b.txt', url_expires_at_ms = 0, user_id = '${OTHER_USER}'`),

    // A confirm.
    allowed(confirm("UPDATE", a1, 500), { shows: usedIs(a, 1000) }),
    allowed(confirm("UPDATE OR IGNORE", a1, 10), { shows: isEntered(staging(a1)) }),
    allowed(confirm("UPDATE OR REPLACE", a2, 0), {
      shows: entryIs(staging(a2), `due_at_ms = 0 AND again_at_ms = 5000 AND owner_id = '${a}'`),
    }),
    allowed(`UPDATE uploads SET staged_size_bytes = 9 WHERE id = '${a2}'; DELETE FROM uploads WHERE id = '${a2}'`, {
      shows: entryIs(staging(a2), `size_bytes = 9`),
    }),
    allowed(`UPDATE uploads SET stated_size_bytes = 7 WHERE id = '${a2}'; DELETE FROM uploads WHERE id = '${a2}'`, {
      shows: entryIs(staging(a2), `owner_id = '${a}' AND stated_size_bytes = 7`),
    }),
    // A person's place, also if the upload goes to a workspace.
    allowed(`${confirm("UPDATE", p1, 5).replace("status =", `workspace_id = '${empty}', status =`)}`, {
      shows: entryIs(staging(p1), `owner_id = '${USER}' AND stated_size_bytes IS NULL`),
    }),
    allowed(`PRAGMA recursive_triggers = ON; PRAGMA trusted_schema = OFF; ${confirm("UPDATE OR FAIL", b1, 400)}`, {
      shows: usedIs(b, 500),
    }),
    refused(GATE, confirm("UPDATE", a1, 501)),
    refused(GATE, confirm("UPDATE OR IGNORE", a1, 501)),
    refused(GATE, confirm("UPDATE OR FAIL", a1, 501)),
    refused(GATE, confirm("UPDATE", a1, "9007199254740991")),
    refused(CHANGE_OR_GATE, confirm("UPDATE", a1, "9223372036854775807")),
    refused(CHANGE, confirm("UPDATE", a1, -1)),
    refused(CHANGE, confirm("UPDATE OR IGNORE", a1, -1)),
    refused(CHANGE, `PRAGMA ignore_check_constraints = ON; ${confirm("UPDATE", a1, -600)}`),
    refused(TYPE, confirm("UPDATE", a1, "0.5")),
    refused(TYPE, confirm("UPDATE OR IGNORE", a1, "'many'")),
    refused(CHANGE_OR_GATE, confirm("UPDATE", a1, "NULL")),
    refused(CHANGE, confirm("UPDATE", a3, 1)),
    refused(FINAL_KEY, confirm("UPDATE", a1, 10, final(a1))),
    refused(FINAL_KEY, confirm("UPDATE OR IGNORE", a1, 10, final(a1))),
    refused(FINAL_KEY, confirm("UPDATE", a1, 10, staging(a1))),
    refused(FINAL_KEY, confirm("UPDATE", a1, 10, final(a2))),
    refused(FINAL_KEY, confirm("UPDATE", a1, 10, final(a3))),
    refused(FINAL_KEY, confirm("UPDATE", a1, 10, final(a1).replace(installation, "0".repeat(16)))),
    refused(FINAL_KEY, confirm("UPDATE", a1, 10, `final/${installation}/${a1}/../${"0".repeat(29)}`)),
    refused(
      CHANGE,
      `UPDATE uploads SET status = 'uploaded', size_bytes = 1, object_key = '${final(a1, "77")}', workspace_id = '${b}' WHERE id = '${a1}'`,
    ),
    refused(
      CHANGE_OR_GATE,
      `UPDATE uploads SET status = 'uploaded', size_bytes = 1, object_key = '${final(a1, "77")}', workspace_id = NULL WHERE id = '${a1}'`,
    ),
    refused(
      CHANGE,
      `UPDATE uploads SET status = 'uploaded', size_bytes = 1, object_key = '${final(fresh)}', id = '${fresh}' WHERE id = '${a1}'`,
    ),
    refused(GATE, confirm("UPDATE", p1, 1)),
    refused(GATE, confirm("PRAGMA ignore_check_constraints = ON; UPDATE", p1, 1)),
    refused(GATE, confirm("UPDATE", d1, 1)),
    refused(
      GATE,
      `UPDATE uploads SET status = 'uploaded', size_bytes = 1, object_key = '${final(p1, "77")}', workspace_id = '${unknown}' WHERE id = '${p1}'`,
    ),
    refused(
      GATE,
      `UPDATE uploads SET status = 'uploaded', size_bytes = 1, object_key = '${final(p1, "77")}', workspace_id = '${gone}' WHERE id = '${p1}'`,
    ),
    allowed(
      `UPDATE uploads SET status = 'uploaded', size_bytes = 1, object_key = '${final(p1, "77")}', workspace_id = '${empty}' WHERE id = '${p1}'`,
      {
        shows: usedIs(empty, 1),
      },
    ),
    refused(
      GATE,
      `UPDATE uploads SET status = 'uploaded', size_bytes = 300, object_key = 'final/${installation}/' || id || '/${"7".repeat(32)}'
        WHERE id IN ('${a1}', '${a2}')`,
    ),
    allowed(
      `UPDATE uploads SET status = 'uploaded', size_bytes = 250, object_key = 'final/${installation}/' || id || '/${"7".repeat(32)}'
        WHERE id IN ('${a1}', '${a2}')`,
      { shows: usedIs(a, 1000) },
    ),
    refused(
      GATE,
      `BEGIN; UPDATE workspaces SET storage_bytes_quota = 100 WHERE id = '${a}'; ${confirm("UPDATE", a1, 0)}; COMMIT`,
    ),
    refused(GATE, `BEGIN; ${confirm("UPDATE", a1, 500)}; ${confirm("UPDATE OR IGNORE", a2, 1)}; COMMIT`),

    // The ledger.
    refused(BOOKS, event("INSERT", `'${a}', '${a1}', 'charge', 10, 510, 1`)),
    refused(BOOKS, event("INSERT", `'${a}', '${a3}', 'charge', 300, 800, 1`)),
    refused(BOOKS, event("INSERT OR REPLACE", `'${a}', '${a3}', 'charge', 300, 800, 1`)),
    refused(BOOKS, event("INSERT OR IGNORE", `'${a}', '${a3}', 'charge', 300, 800, 1`)),
    refused(BOOKS, event("INSERT", `'${a}', '${fresh}', 'charge', 10, 510, 1`)),
    refused(BOOKS, event("INSERT", `'${b}', '${a3}', 'release', -300, -200, 1`)),
    refused(BOOKS, event("INSERT", `'${a}', '${a3}', 'release', -300, 200, 1`)),
    refused(BOOKS, event("INSERT", `'${a}', '${a5}', 'release', -50, 450, 1`)),
    refused(BOOKS, event("INSERT OR REPLACE", `'${a}', '${a5}', 'release', -50, 450, 1`)),
    refused(BOOKS, event("INSERT", `'${a}', '${a6}', 'release', -50, 450, 1`)),
    refused(BOOKS, event("INSERT", `'${a}', '${a6}', 'release', 0, 500, 1`)),
    refused(BOOKS, event("INSERT", `'${a}', NULL, 'release', 0, 500, 1`)),
    refused(BOOKS, event("INSERT", `'${a}', NULL, 'adjust', 100, 600, 1`)),
    refused(BOOKS, event("INSERT OR IGNORE", `'${a}', NULL, 'adjust', -500, 0, 1`)),
    refused(BOOKS, event("INSERT", `'${a}', NULL, 'adjust', 100, 500, 1`)),
    refused(BOOKS, event("INSERT", `'${a}', '${a1}', 'adjust', 0, 500, 1`)),
    refused(BOOKS, event("INSERT", `'${unknown}', NULL, 'adjust', 0, 0, 1`)),
    refused(BOOKS, event("INSERT OR IGNORE", `'${unknown}', NULL, 'adjust', 0, NULL, 1`)),
    refused(BOOKS, event("PRAGMA ignore_check_constraints = ON; INSERT", `'${a}', NULL, 'bonus', 0, 500, 1`)),
    refused(BOOKS, event("PRAGMA ignore_check_constraints = ON; INSERT", `'${a}', NULL, 'charge', 0, 500, 1`)),
    refused(
      BOOKS,
      event("INSERT OR REPLACE", `1, ${nothing}`, "seq, workspace_id, upload_id, kind, bytes, balance_bytes, at_ms"),
    ),
    refused(
      BOOKS,
      event("REPLACE", `1, ${nothing}`, "rowid, workspace_id, upload_id, kind, bytes, balance_bytes, at_ms"),
    ),
    refused(
      BOOKS,
      event(
        "INSERT",
        `9223372036854775807, ${nothing}`,
        "seq, workspace_id, upload_id, kind, bytes, balance_bytes, at_ms",
      ),
    ),
    refused(
      BOOKS,
      event("INSERT", `1000, ${nothing}`, "oid, workspace_id, upload_id, kind, bytes, balance_bytes, at_ms"),
    ),
    refused(BOOKS, event("INSERT", `0, ${nothing}`, "seq, workspace_id, upload_id, kind, bytes, balance_bytes, at_ms")),
    refused(
      BOOKS,
      event("INSERT", `-7, ${nothing}`, "seq, workspace_id, upload_id, kind, bytes, balance_bytes, at_ms"),
    ),
    refused(
      "CHECK",
      event("INSERT", `-1, ${nothing}`, "seq, workspace_id, upload_id, kind, bytes, balance_bytes, at_ms"),
    ),
    ignored(
      event("INSERT OR IGNORE", `-1, ${nothing}`, "seq, workspace_id, upload_id, kind, bytes, balance_bytes, at_ms"),
    ),
    refused(
      "numbered from 1",
      event(
        "PRAGMA ignore_check_constraints = ON; INSERT",
        `-1, ${nothing}`,
        "seq, workspace_id, upload_id, kind, bytes, balance_bytes, at_ms",
      ),
    ),
    allowed(event("INSERT", nothing)),
    allowed(event("INSERT", `NULL, ${nothing}`, "seq, workspace_id, upload_id, kind, bytes, balance_bytes, at_ms")),
    refused(
      BOOKS,
      `INSERT INTO storage_events SELECT seq + 100, workspace_id, upload_id, kind, bytes, balance_bytes, at_ms FROM storage_events`,
    ),
    refused(
      BOOKS,
      `INSERT INTO storage_events (workspace_id, upload_id, kind, bytes, balance_bytes, at_ms)
                    SELECT '${b}', upload_id, kind, bytes, 100 + bytes, at_ms FROM storage_events WHERE kind = 'charge'`,
    ),
    refused(BOOKS, `${event("INSERT", nothing)}, ('${a}', NULL, 'adjust', 1, 501, 1)`),
    refused(BOOKS, `${event("INSERT", `'${a}', '${a3}', 'charge', 300, 800, 1`)} ON CONFLICT DO UPDATE SET bytes = 0`),
    refused(BOOKS, `DROP INDEX storage_events_once; ${event("INSERT", `'${a}', '${a3}', 'charge', 300, 800, 1`)}`),
    refused(APPEND, `UPDATE storage_events SET bytes = 0 WHERE seq = 1`),
    refused(APPEND, `UPDATE OR IGNORE storage_events SET at_ms = 0`),
    refused(APPEND, `UPDATE OR REPLACE storage_events SET rowid = 2 WHERE rowid = 1`),
    refused(APPEND, `UPDATE storage_events SET balance_bytes = 0 WHERE workspace_id = '${a}'`),
    refused(APPEND, `DELETE FROM storage_events WHERE kind = 'release'`),
    refused(APPEND, `DELETE FROM storage_events`),
    refused(
      APPEND,
      `WITH last AS (SELECT max(seq) AS seq FROM storage_events) DELETE FROM storage_events WHERE seq IN (SELECT seq FROM last)`,
    ),

    // The counter, and what stands beside it.
    refused(COUNTER, `UPDATE workspaces SET storage_bytes_used = 0 WHERE id = '${a}'`),
    refused(COUNTER, `UPDATE OR IGNORE workspaces SET storage_bytes_used = storage_bytes_used + 1`),
    refused(COUNTER, `UPDATE OR IGNORE workspaces SET storage_bytes_used = -1 WHERE id = '${a}'`),
    refused(COUNTER, `UPDATE OR REPLACE workspaces SET storage_bytes_used = NULL WHERE id = '${a}'`),
    refused(COUNTER, `UPDATE OR REPLACE workspaces SET storage_bytes_used = NULL WHERE id = '${empty}'`),
    refused(COUNTER, `UPDATE workspaces SET storage_bytes_used = 50 WHERE id = '${empty}'`),
    refused(
      COUNTER,
      `UPDATE workspaces SET storage_bytes_used = CASE id WHEN '${a}' THEN 100 ELSE 500 END WHERE id IN ('${a}', '${b}')`,
    ),
    refused(
      COUNTER,
      `UPDATE workspaces SET storage_bytes_used = total
         FROM (SELECT workspace_id, sum(bytes) + 1 AS total FROM storage_events GROUP BY 1) WHERE workspace_id = workspaces.id`,
    ),
    refused(
      COUNTER,
      `PRAGMA ignore_check_constraints = ON; UPDATE workspaces SET storage_bytes_used = -5 WHERE id = '${a}'`,
    ),
    refused(
      COUNTER,
      `UPDATE workspaces SET storage_bytes_used = (SELECT balance_bytes FROM storage_events WHERE seq = 1) WHERE id = '${a}'`,
    ),
    ignored(`UPDATE workspaces SET storage_bytes_used = storage_bytes_used, id = id`),
    refused(START_WORKSPACE, workspace("INSERT", "01900000-0000-7000-8000-000000000001", "10")),
    refused(START_WORKSPACE, workspace("INSERT OR REPLACE", "01900000-0000-7000-8000-000000000001", "NULL")),
    refused(START_WORKSPACE, workspace("REPLACE", a, "0")),
    refused(START_WORKSPACE, workspace("INSERT OR IGNORE", a, "0")),
    refused(START_WORKSPACE, `${workspace("INSERT", a, "0")} ON CONFLICT (id) DO UPDATE SET storage_bytes_used = 0`),
    refused(START_WORKSPACE, `${workspace("INSERT", a, "0")} ON CONFLICT DO NOTHING`),
    allowed(workspace("INSERT", "01900000-0000-7000-8000-000000000001", "0")),
    refused(SLUG, workspace("INSERT", "01900000-0000-7000-8000-000000000002", "0", "w-a")),
    refused(SLUG, workspace("INSERT OR REPLACE", "01900000-0000-7000-8000-000000000002", "0", "w-a")),
    refused(SLUG, workspace("REPLACE", "01900000-0000-7000-8000-000000000002", "0", "w-b")),
    refused(SLUG, workspace("INSERT OR IGNORE", "01900000-0000-7000-8000-000000000002", "0", "w-a")),
    refused(
      SLUG,
      `${workspace("INSERT", "01900000-0000-7000-8000-000000000002", "0", "w-a")} ON CONFLICT DO UPDATE SET slug = 'w-x'`,
    ),
    refused(SLUG, `UPDATE workspaces SET slug = 'w-a' WHERE id = '${b}'`),
    refused(SLUG, `UPDATE OR REPLACE workspaces SET slug = 'w-a' WHERE id = '${b}'`),
    refused(SLUG, `UPDATE OR IGNORE workspaces SET slug = 'w-a' WHERE id = '${b}'`),
    refused(
      SLUG,
      `UPDATE workspaces SET slug = CASE id WHEN '${a}' THEN 'w-b' ELSE 'w-a' END WHERE id IN ('${a}', '${b}')`,
    ),
    refused("CHECK", `UPDATE workspaces SET slug = '' WHERE id = '${a}'`),
    refused("CHECK", `UPDATE workspaces SET color_idx = 7 WHERE id = '${a}'`),
    refused("CHECK", `UPDATE workspaces SET routing_price_sensitivity = 1.5 WHERE id = '${a}'`),
    ignored(`UPDATE workspaces SET slug = slug`),
    // A deleted workspace has given its slug up, and can come back only with one that is free.
    allowed(`UPDATE workspaces SET slug = 'w-d' WHERE id = '${empty}'`),
    refusedHalfWay(
      SLUG,
      `UPDATE workspaces SET slug = 'w-d' WHERE id = '${empty}'; UPDATE workspaces SET deleted_at_ms = NULL WHERE id = '${gone}'`,
    ),
    refused(IN_DELETED, newUpload("INSERT", fresh, staging(fresh), `'${gone}'`)),
    refused(IN_DELETED, newUpload("INSERT OR IGNORE", fresh, staging(fresh), `'${gone}'`)),
    refused(IN_DELETED, newUpload("REPLACE", fresh, staging(fresh), `'${gone}'`)),
    allowed(`UPDATE workspaces SET emptied_at_ms = 1`),
    refused(KEEP_WORKSPACE, `UPDATE workspaces SET id = '${unknown}' WHERE id = '${a}'`),
    refused(KEEP_WORKSPACE, `UPDATE OR REPLACE workspaces SET id = '${a}' WHERE id = '${b}'`),
    refused(
      KEEP_WORKSPACE,
      `PRAGMA foreign_keys = ON; PRAGMA defer_foreign_keys = ON; UPDATE workspaces SET id = '${unknown}' WHERE id = '${empty}'`,
    ),
    refused(STAY, `DELETE FROM workspaces WHERE id = '${empty}'`),
    refused(STAY, `DELETE FROM workspaces`),
    refused(STAY, `PRAGMA foreign_keys = ON; DELETE FROM workspaces WHERE id = '${a}'`),
    refused("CHECK", `UPDATE workspaces SET storage_bytes_quota = -1 WHERE id = '${a}'`),
    ignored(`UPDATE OR IGNORE workspaces SET storage_bytes_quota = -1 WHERE id = '${a}'`),
    allowed(`UPDATE workspaces SET storage_bytes_quota = 0 WHERE id = '${a}'`, { shows: usedIs(a, 500) }),
    allowed(`UPDATE workspaces SET storage_bytes_quota = 9007199254740991`),
    allowed(`UPDATE workspaces SET deleted_at_ms = NULL WHERE id = '${gone}'; ${confirm("UPDATE", d1, 930)}`, {
      shows: usedIs(gone, 1000),
    }),
    refusedHalfWay(
      GATE,
      `UPDATE workspaces SET deleted_at_ms = 5 WHERE id = '${a}'; ${confirm("UPDATE OR IGNORE", a2, 0)}`,
    ),
    allowed(`UPDATE users SET id = '01900000-0000-7000-8000-0000000000ff' WHERE id = '${OTHER_USER}'`),
    refused(
      "FOREIGN KEY",
      `PRAGMA foreign_keys = ON; UPDATE users SET id = '01900000-0000-7000-8000-0000000000ff' WHERE id = '${USER}'`,
    ),
    refused(
      "FOREIGN KEY",
      `PRAGMA foreign_keys = ON; BEGIN; PRAGMA defer_foreign_keys = ON; DELETE FROM users; COMMIT`,
    ),
    refused(INSTALLATION, `UPDATE installation SET id = '${"0".repeat(16)}'`),
    refused(INSTALLATION, `UPDATE OR IGNORE installation SET rowid = 2`),
    refused(INSTALLATION, `UPDATE OR REPLACE installation SET looked_at_ms = 1, clock_trusted_at_ms = 1, id = 'mine'`),
    refused(INSTALLATION, `DELETE FROM installation`),
    refused(INSTALLATION, `REPLACE INTO installation (only_row, id, created_at_ms) VALUES (1, 'mine', 1)`),
    refused(
      INSTALLATION,
      `PRAGMA ignore_check_constraints = ON; INSERT INTO installation (only_row, id, created_at_ms) VALUES (0, 'mine', 1)`,
    ),

    // The outbox.
    refused(ENTRY, enter("INSERT", final(a3), a3)),
    refused(ENTRY, enter("INSERT OR IGNORE", final(a3), a3)),
    refused(ENTRY, enter("INSERT OR REPLACE", staging(a1), a1)),
    refused(ENTRY, enter("INSERT", final(a3), a5)),
    refused(ENTRY, enter("INSERT", final(a3), a3).replace(`, '${a3}',`, ", NULL,")),
    refused(TYPE, enter("INSERT", final(a3), a3).replace(`, '${a3}',`, `, CAST('${a3}' AS BLOB),`)),
    refused(ENTRY, enter("INSERT", staging(a6), a6)),
    refused(ENTRY, enter("INSERT", `final/${installation}/${fresh}/${"Z".repeat(32)}`, fresh)),
    refused(ENTRY, enter("INSERT", final("abc", "1"), "abc")),
    refused(ENTRY, enter("REPLACE", final(a1), a1)),
    refused(ENTRY, `${enter("INSERT", final(a1), a1)} ON CONFLICT (object_key) DO UPDATE SET upload_id = '${a2}'`),
    refused(ENTRY, enter("INSERT", final(a3).replace(installation, "0".repeat(16)), a3)),
    refused(ENTRY, enter("INSERT", `staging/${installation}/../../elsewhere/${"0".repeat(32)}`, "../../elsewhere")),
    refused(
      ENTRY,
      enter("INSERT", final("./////////////////////////////////./", "1"), "./////////////////////////////////./"),
    ),
    refused(ENTRY, enter("INSERT", `elsewhere/${installation}/${fresh}/${"0".repeat(32)}`, fresh)),
    refused(
      ENTRY,
      `INSERT INTO object_removals (object_key, upload_id, entered_at_ms, due_at_ms) SELECT object_key, id, 1, 0 FROM uploads`,
    ),
    refused(
      ENTRY,
      enter("INSERT OR REPLACE", final(fresh), fresh)
        .replace("(object_key", "(seq, object_key")
        .replace("VALUES (", "VALUES (1, "),
    ),
    refused(
      ENTRY,
      enter("REPLACE", final(fresh), fresh)
        .replace("(object_key", "(rowid, object_key")
        .replace("VALUES (", "VALUES (2, "),
    ),
    refused(
      ENTRY,
      enter("INSERT", final(fresh), fresh)
        .replace("(object_key", "(seq, object_key")
        .replace("VALUES (", "VALUES (9223372036854775807, "),
    ),
    ignored(
      enter("INSERT OR IGNORE", final(fresh), fresh)
        .replace("(object_key", "(seq, object_key")
        .replace("VALUES (", "VALUES (-1, "),
    ),
    refused(
      "numbered from 1",
      `PRAGMA ignore_check_constraints = ON; ${enter("REPLACE", final(fresh), fresh).replace("(object_key", "(seq, object_key").replace("VALUES (", "VALUES (-1, ")}`,
    ),
    refused(KEEP_ENTRY, `UPDATE object_removals SET object_key = '${final(a3)}', upload_id = '${a3}' WHERE seq = 1`),
    refused(
      KEEP_ENTRY,
      `UPDATE OR REPLACE object_removals SET object_key = '${staging(a6)}' WHERE object_key = '${final(a1)}'`,
    ),
    refused(KEEP_ENTRY, `UPDATE OR IGNORE object_removals SET upload_id = '${fresh}'`),
    refused(KEEP_ENTRY, `UPDATE OR REPLACE object_removals SET seq = ${seqOf(final(a1))} WHERE seq = 1`),
    refused(KEEP_ENTRY, `UPDATE OR REPLACE object_removals SET rowid = ${seqOf(final(a1))} WHERE rowid = 1`),
    refused(KEEP_ENTRY, `UPDATE OR REPLACE object_removals SET _rowid_ = oid + 1 WHERE oid = 2`),
    allowed(enter("INSERT", final(fresh), fresh)),
    allowed(
      `UPDATE object_removals SET due_at_ms = 99, again_at_ms = NULL, taken_at_ms = 5, attempts = 7, last_error = 'x'`,
    ),
    allowed(`UPDATE object_removals SET owner_id = 'nobody', stated_size_bytes = -5`),
    refused(KEEP_ENTRY, `UPDATE object_removals SET owner_id = 'nobody', upload_id = '${fresh}'`),

    // Other ways in.
    allowed(`DELETE FROM s.uploads WHERE id = '${a3}'`, { attached: true, shows: usedIs(a, 200) }),
    allowed(
      `CREATE TABLE uploads (id, object_key, status, workspace_id, size_bytes); CREATE TABLE workspaces (id, storage_bytes_used);
       CREATE TABLE object_removals (object_key, upload_id); DELETE FROM s.uploads WHERE id = '${a3}'`,
      { attached: true, shows: isEntered(final(a3)) },
    ),
    refused(
      START,
      `CREATE TABLE uploads AS SELECT * FROM s.uploads; REPLACE INTO s.uploads SELECT * FROM main.uploads`,
      { attached: true },
    ),
    refused(COUNTER, `UPDATE s.workspaces SET storage_bytes_used = 0`, { attached: true }),
    allowed(
      `CREATE TEMP TABLE workspaces AS SELECT id, 0 AS storage_bytes_used, 0 AS storage_bytes_quota FROM main.workspaces;
       CREATE TEMP TABLE storage_events (seq, workspace_id, upload_id, kind, bytes, balance_bytes, at_ms);
       ${confirm("UPDATE", a1, 500)}`,
      { shows: usedIs(a, 1000) },
    ),
    refused("view", `CREATE TEMP VIEW every AS SELECT * FROM uploads; DELETE FROM every`),
    allowed(
      `CREATE TEMP VIEW every AS SELECT * FROM uploads;
       CREATE TEMP TRIGGER gone INSTEAD OF DELETE ON every BEGIN DELETE FROM uploads WHERE id = OLD.id; END;
       DELETE FROM every WHERE status = 'uploaded'`,
      { shows: usedIs(a, 0) },
    ),
    refused(
      COUNTER,
      `CREATE TEMP TRIGGER meanwhile BEFORE UPDATE ON main.workspaces WHEN NEW.storage_bytes_used = 500 AND NEW.id = '${a}'
       BEGIN DELETE FROM uploads WHERE id = '${a3}'; END;
       UPDATE workspaces SET storage_bytes_used = storage_bytes_used`,
    ),
    allowed(
      `CREATE TEMP TRIGGER meanwhile BEFORE UPDATE ON main.workspaces WHEN NEW.name = 'x'
       BEGIN DELETE FROM uploads WHERE id = '${a3}'; END;
       UPDATE workspaces SET name = 'x' WHERE id = '${a}'`,
      { shows: usedIs(a, 200) },
    ),
    refused(
      CHANGE,
      `CREATE TEMP TRIGGER meanwhile BEFORE UPDATE ON main.uploads WHEN NEW.status = 'pending'
       BEGIN ${confirm("UPDATE", a1, 5)}; END;
       UPDATE uploads SET status = status, size_bytes = size_bytes, object_key = object_key WHERE id = '${a1}'`,
    ),
    refused(
      CHANGE,
      `CREATE TEMP TRIGGER meanwhile BEFORE UPDATE ON main.uploads
       BEGIN DELETE FROM uploads WHERE id = '${a1}'; ${newUpload("INSERT", a1, staging(a1, "77"))}; END;
       UPDATE uploads SET object_key = object_key WHERE id = '${a1}'`,
    ),
    allowed(
      `CREATE TEMP TRIGGER meanwhile BEFORE UPDATE ON main.uploads
       BEGIN DELETE FROM uploads WHERE id = '${a1}'; ${newUpload("INSERT", a1, staging(a1, "77"))}; END;
       UPDATE uploads SET filename = 'x' WHERE id = '${a1}'`,
      { named: [staging(a1, "77")] },
    ),
    refused(
      CHANGE,
      `CREATE TEMP TRIGGER meanwhile BEFORE UPDATE ON main.uploads BEGIN DELETE FROM uploads WHERE id = OLD.id; END;
       ${confirm("UPDATE", a1, 5)}`,
    ),
    refused(
      START,
      `CREATE TEMP TRIGGER meanwhile BEFORE INSERT ON main.uploads WHEN NEW.filename = 'a.txt'
       BEGIN ${newUpload("INSERT", fresh, staging(fresh, "88")).replace("a.txt", "b.txt")}; END;
       ${newUpload("REPLACE", fresh, staging(fresh))}`,
    ),
    refused(
      START,
      `CREATE TEMP TRIGGER meanwhile BEFORE INSERT ON main.uploads BEGIN ${enter("INSERT", staging(fresh), fresh)}; END;
       ${newUpload("INSERT", fresh, staging(fresh))}`,
    ),
    refused(
      BOOKS,
      `CREATE TEMP TRIGGER meanwhile AFTER UPDATE OF status ON main.uploads BEGIN DELETE FROM uploads WHERE id = NEW.id; END;
       ${confirm("UPDATE", a1, 5)}`,
    ),
    refused(
      ENTRY,
      `CREATE TEMP TRIGGER meanwhile AFTER DELETE ON main.uploads BEGIN ${newUpload("INSERT", a1, staging(a1))}; END;
       DELETE FROM uploads WHERE id = '${a1}'`,
    ),
    refused(
      COUNTER,
      `PRAGMA recursive_triggers = ON;
       CREATE TEMP TRIGGER meanwhile AFTER INSERT ON main.storage_events BEGIN DELETE FROM uploads WHERE id = '${a4}'; END;
       DELETE FROM uploads WHERE id = '${a3}'`,
    ),
    refused(
      "books its release",
      `CREATE TEMP TRIGGER silent BEFORE INSERT ON main.storage_events BEGIN SELECT RAISE(IGNORE); END;
       DELETE FROM uploads WHERE id = '${a3}'`,
    ),
    refused(
      "books its charge",
      `CREATE TEMP TRIGGER silent BEFORE INSERT ON main.storage_events BEGIN SELECT RAISE(IGNORE); END; ${confirm("UPDATE", a1, 5)}`,
    ),
    refused(
      "gives up its key",
      `CREATE TEMP TRIGGER silent BEFORE INSERT ON main.object_removals BEGIN SELECT RAISE(IGNORE); END;
       DELETE FROM uploads WHERE id = '${a1}'`,
    ),
    refused(
      "gives up its staging key",
      `CREATE TEMP TRIGGER silent BEFORE INSERT ON main.object_removals BEGIN SELECT RAISE(IGNORE); END; ${confirm("UPDATE", a1, 5)}`,
    ),
    refused(
      "moves the counter",
      `CREATE TEMP TRIGGER silent BEFORE UPDATE ON main.workspaces BEGIN SELECT RAISE(IGNORE); END; DELETE FROM uploads WHERE id = '${a3}'`,
    ),
    allowed(
      `CREATE TEMP TRIGGER twice BEFORE DELETE ON main.uploads BEGIN DELETE FROM uploads WHERE id = OLD.id; END;
       DELETE FROM uploads WHERE id = '${a3}'`,
      { shows: usedIs(a, 200) },
    ),
    refused("readonly", `PRAGMA query_only = ON; DELETE FROM uploads WHERE id = '${a3}'`),
    ignored(`ANALYZE; REINDEX; VACUUM`),

    // Deletes.
    ignored(`BEGIN; DELETE FROM uploads; ROLLBACK`),
    ignored(`BEGIN; SAVEPOINT s; DELETE FROM uploads WHERE id = '${a3}'; ROLLBACK TO s; COMMIT`),
    refused(
      START,
      `BEGIN; DELETE FROM uploads WHERE id = '${a3}'; ${newUpload("INSERT OR ROLLBACK", a1, staging(a1, "77"))}; COMMIT`,
    ),
    refused(
      START,
      `BEGIN; DELETE FROM uploads WHERE id = '${a3}'; ${newUpload("INSERT", a3, staging(a3, "77"))}; COMMIT`,
    ),
    refusedHalfWay(START, `DELETE FROM uploads WHERE id = '${a1}'; ${newUpload("INSERT OR REPLACE", a1, staging(a1))}`),
    allowed(
      `DELETE FROM uploads WHERE id = '${a1}'; ${newUpload("INSERT", a1, staging(a1, "77"))}; DELETE FROM uploads WHERE id = '${a1}'`,
      { named: [staging(a1, "77")], shows: isEntered(staging(a1, "77")) },
    ),
    allowed(`BEGIN; ${confirm("UPDATE", a1, 5)}; DELETE FROM uploads WHERE id = '${a1}'; COMMIT`, {
      named: [final(a1, "77")],
      shows: usedIs(a, 500),
    }),
    // The record of what was removed. In it are a6, wholly known, and a5, of which the ledger tells whose it was.
    refused(RECORD, removed("INSERT", a6)),
    refused(RECORD, removed("INSERT OR IGNORE", a6)),
    refused(RECORD, removed("INSERT OR REPLACE", a6)),
    refused(RECORD, removed("REPLACE", a5)),
    refused(RECORD, `PRAGMA recursive_triggers = ON; ${removed("REPLACE", a6)}`),
    refused(RECORD, `${removed("INSERT", a6)} ON CONFLICT (upload_id) DO UPDATE SET user_id = NULL`),
    refused(RECORD, `REPLACE INTO removed_objects SELECT upload_id, NULL, NULL, NULL, 0, 0 FROM removed_objects`),
    refused(RECORD, `DELETE FROM removed_objects`),
    refused(RECORD, `DELETE FROM removed_objects WHERE upload_id = '${a6}' RETURNING upload_id`),
    refused(RECORD, `UPDATE removed_objects SET upload_id = '${fresh}' WHERE upload_id = '${a6}'`),
    refused(RECORD, `UPDATE OR REPLACE removed_objects SET upload_id = '${a5}' WHERE upload_id = '${a6}'`),
    refused(RECORD, `UPDATE OR IGNORE removed_objects SET owner_id = NULL WHERE upload_id = '${a6}'`),
    refused(RECORD, `UPDATE removed_objects SET owner_id = '${b}' WHERE upload_id = '${a6}'`),
    refused(RECORD, `UPDATE removed_objects SET user_id = '${OTHER_USER}' WHERE upload_id = '${a6}'`),
    refused(RECORD, `UPDATE removed_objects SET user_id = NULL WHERE upload_id = '${a6}'`),
    refused(RECORD, `UPDATE removed_objects SET deleted_at_ms = 1 WHERE upload_id = '${a6}'`),
    refused(RECORD, `UPDATE removed_objects SET deleted_at_ms = NULL WHERE upload_id = '${a6}'`),
    refused(RECORD, `UPDATE removed_objects SET removed_at_ms = removed_at_ms - 1`),
    refused(RECORD, `UPDATE OR IGNORE removed_objects SET attempts = 0`),
    refused("NOT NULL", `UPDATE OR REPLACE removed_objects SET removed_at_ms = NULL`),
    ignored(`UPDATE OR IGNORE removed_objects SET attempts = NULL, removed_at_ms = NULL`),
    allowed(`UPDATE removed_objects SET removed_at_ms = 99, attempts = attempts + 1 WHERE upload_id = '${a6}'`, {
      shows: `SELECT user_id = '${USER}' AND attempts = 3 FROM removed_objects WHERE upload_id = '${a6}'`,
    }),
    allowed(
      `UPDATE removed_objects SET owner_id = '${a}', user_id = '${USER}', deleted_at_ms = 4 WHERE upload_id = '${a5}'`,
    ),
    allowed(removed("REPLACE", fresh)),
    allowed(`DELETE FROM uploads WHERE id = '${a3}'`, { shows: usedIs(a, 200) }),
    allowed(`DELETE FROM uploads WHERE id = '${a3}' RETURNING id, size_bytes`, {
      shows: entryIs(final(a3), "due_at_ms = 0 AND again_at_ms IS NULL AND owner_id IS NULL"),
    }),
    allowed(`DELETE FROM uploads WHERE id = '${a2}'`, {
      shows: entryIs(staging(a2), "due_at_ms = 0 AND again_at_ms = 5000"),
    }),
    allowed(`DELETE FROM uploads WHERE id = '${UPLOAD.b3}'`, {
      shows: `SELECT count(*) FROM storage_events WHERE upload_id = '${UPLOAD.b3}' AND kind = 'release'`,
    }),
    allowed(`PRAGMA foreign_keys = ON; PRAGMA recursive_triggers = ON; DELETE FROM uploads WHERE id = '${b2}'`, {
      shows: usedIs(b, 0),
    }),
    allowed(
      `PRAGMA ignore_check_constraints = ON; PRAGMA reverse_unordered_selects = ON; DELETE FROM uploads WHERE size_bytes > 0`,
      {
        shows: usedIs(a, 0),
      },
    ),
    allowed(`WITH large AS (SELECT id FROM uploads WHERE size_bytes >= 200) DELETE FROM uploads WHERE id IN large`, {
      shows: usedIs(a, 0),
    }),
    allowed(
      `DELETE FROM uploads WHERE id IN (SELECT u.id FROM uploads u JOIN workspaces w ON w.id = u.workspace_id WHERE w.deleted_at_ms IS NOT NULL)`,
      { shows: usedIs(gone, 0) },
    ),
    allowed(`DELETE FROM uploads INDEXED BY uploads_by_workspace WHERE workspace_id = '${a}'`, { shows: usedIs(a, 0) }),
    allowed(`PRAGMA journal_mode = DELETE; DELETE FROM uploads WHERE status = 'pending'`, {
      shows: isEntered(staging(p1)),
    }),
    allowed(`DELETE FROM users; DELETE FROM memberships; DELETE FROM uploads WHERE id = '${a4}'`, {
      shows: usedIs(a, 300),
    }),
    allowed(`DELETE FROM uploads`, { shows: `SELECT sum(storage_bytes_used) = 0 FROM workspaces` }),
    allowed(`BEGIN IMMEDIATE; DELETE FROM uploads WHERE true; COMMIT`, { shows: `SELECT count(*) = 0 FROM uploads` }),
  ];
}
