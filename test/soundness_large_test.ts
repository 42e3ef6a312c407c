// Goal: a file that is too large for a comparison of each entry of its indexes is checked so that a mixture of two states is
// still noticed: by every index, also the partial ones, and by the books.
// Method: small files, with the limit set to 0.
import assert from "node:assert/strict";
import { copyFileSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import Database from "better-sqlite3";
import { faultsOf } from "../lib/db/faults.ts";
import { refuseUnsound } from "../lib/db/soundness.ts";
import { makeSeed } from "../scripts/bench/data_dirs.ts";
import { openBenchDatabase } from "../scripts/bench/database.ts";
import { silentLog, temporaryFolder } from "./_app.ts";
import { makeSeededFile, objectKey, UPLOAD, UPLOAD_COLUMNS, USER, uploadValues, WORKSPACE } from "./_books_seed.ts";

/** So many that the rows and entries of those made before share no page with those of those made after. */
const ROWS = 3_000;
/** So many of each. */
const PENDING = 20;

function confirm(sql: Database.Database, id: string): void {
  const { changes } = sql
    .prepare(
      `UPDATE uploads SET status = 'uploaded', size_bytes = 7, etag = 'e', object_key = replace(object_key, 'staging/', 'final/')
        WHERE id = ?`,
    )
    .run(id);
  assert.equal(changes, 1);
}

/** An older file beside the log of the newer one that SQLite's own quick check takes for sound. */
async function mixUp(t: TestContext): Promise<string> {
  const seed = await makeSeed(await temporaryFolder(t), 0, 1);
  const db = openBenchDatabase(seed.databaseFile);
  const plan = (count: number) => db.plan(count, [seed.workspaces[0]?.workspaceId ?? ""]);
  const [old, latest] = [plan(PENDING), plan(ROWS), plan(PENDING)].flatMap((rows, i) => {
    if (i === 1) db.addRows(rows);
    else db.addPending(rows);
    return i === 1 ? [] : [rows];
  });
  db.close();

  const [path, mixed] = [seed.databaseFile, `${seed.databaseFile}.mixed`];
  const sql = new Database(path);
  t.after(() => sql.close());
  // Which pages a confirm writes to depends on how full they are.
  for (let i = 0; i < PENDING; i++) {
    sql.pragma("wal_checkpoint(TRUNCATE)");
    copyFileSync(path, mixed);
    confirm(sql, old?.[i]?.id ?? "");
    sql.pragma("wal_checkpoint(RESTART)");
    confirm(sql, latest?.[i]?.id ?? "");
    copyFileSync(`${path}-wal`, `${mixed}-wal`);
    const both = new Database(mixed, { readonly: true });
    const found = both.pragma("quick_check", { simple: true });
    both.close();
    if (found === "ok") return mixed;
  }
  throw new Error("Each mixture is found by the quick check alone");
}

test("an older copy of a large file beside the newer log is refused, also where SQLite's quick check finds nothing", async (t) => {
  const path = await mixUp(t);
  const before = readFileSync(path);
  assert.throws(() => refuseUnsound(path, silentLog, 0), /do not belong together: with the log there are \d+ faults?/);
  const faults = faultsOf(path, 0).join("\n");
  for (const what of [
    /storage_events has (\d+) rows for its index storage_events_once, which has (?!\1)\d+/,
    /(\d+) uploads have (\d+) bytes; (?!\1)\d+ with (?!\2)\d+ bytes were charged/,
  ]) {
    assert.match(faults, what);
  }
  assert.deepEqual(readFileSync(path), before, "nothing is written");
});

/** Gives every index of the large tables entries to hold. */
function changesOfAllKinds(installation: string): string {
  const at = `'${USER}', 'n', 'user', '{}', 1, 1`;
  const { a1, fresh } = UPLOAD;
  return `
    INSERT INTO uploads ${UPLOAD_COLUMNS} VALUES ${uploadValues(fresh, `'${objectKey("staging", installation, fresh)}'`, "NULL")};
    UPDATE uploads SET char_count = 1, line_count = 1, context_type = 'workspace', context_id = '${WORKSPACE.a}', status = 'uploaded',
           size_bytes = 5, object_key = '${objectKey("final", installation, a1, "77")}' WHERE id = '${a1}';
    UPDATE uploads SET workspace_id = workspace_id;
    INSERT INTO contexts (id, type, workspace_id, user_id, name, name_source, definition_json, created_at_ms, updated_at_ms)
    VALUES ('${fresh}', 'workflow', '${WORKSPACE.a}', ${at});
    INSERT INTO idempotency_keys VALUES ('${USER}', 'k', '${"0".repeat(64)}', 201, '${fresh}', NULL, 9);`;
}

test("an index that lacks the newest entries is noticed, whichever it is", async (t) => {
  const folder = await temporaryFolder(t);
  const pristine = join(folder, "pristine.db");
  const installation = makeSeededFile(pristine);
  const indexes = new Database(pristine, { readonly: true })
    .prepare<[], string>(
      `SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL
          AND tbl_name IN ('uploads', 'storage_events', 'object_removals', 'contexts', 'idempotency_keys')`,
    )
    .pluck()
    .all();
  assert.ok(indexes.length >= 12, indexes.join());
  for (const name of indexes) {
    const path = join(folder, `${name}.db`);
    copyFileSync(pristine, path);
    const edit = (work: (sql: Database.Database) => void): void => {
      const sql = new Database(path);
      // The schema itself is changed, which SQLite otherwise refuses.
      sql.unsafeMode().pragma("writable_schema = ON");
      work(sql);
      sql.close();
    };
    let entry: unknown[] = [];
    edit((sql) => {
      entry = sql.prepare<[], unknown[]>(`SELECT * FROM sqlite_schema WHERE name = '${name}'`).raw().get() ?? [];
      sql.prepare("DELETE FROM sqlite_schema WHERE name = ?").run(name);
    });
    edit((sql) => sql.exec(changesOfAllKinds(installation)));
    edit((sql) => sql.prepare("INSERT INTO sqlite_schema VALUES (?, ?, ?, ?, ?)").run(entry));
    assert.match(
      faultsOf(path, 0).join("\n"),
      new RegExp(`rows for its index ${name},|other rows than its index ${name}$|entries in index ${name}$`, "m"),
      name,
    );
  }
  const sound = join(folder, "sound.db");
  copyFileSync(pristine, sound);
  const sql = new Database(sound);
  sql.exec(changesOfAllKinds(installation));
  assert.deepEqual(faultsOf(sound, 0), []);
  sql.close();
});
