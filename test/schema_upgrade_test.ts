import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import Database from "better-sqlite3";
import { DATABASE_FILE, openDb } from "../lib/db/db.ts";
import { SCHEMA_VERSION } from "../lib/db/schema_version.ts";
import { AppError } from "../lib/errors.ts";
import { createLog } from "../lib/log.ts";
import { afterwards, openTestDb, startChild, temporaryFolder } from "./_db.ts";

const log = createLog({ level: "silent", write: () => {} });
const onFatal = (error: unknown) => {
  throw error;
};

/** A file made by hand, as an older or a newer program might have left it. */
function makeFile(dataDir: string, sql: string): string {
  const path = join(dataDir, DATABASE_FILE);
  const db = new Database(path);
  db.pragma("journal_mode = WAL");
  db.exec(sql);
  db.close();
  return path;
}

/** The names of what a file holds, and its version. */
function lookInto(path: string): { version: unknown; names: string[] } {
  const db = new Database(path, { readonly: true });
  try {
    const names = db
      .prepare<[], string>("SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY 1")
      .pluck();
    return { version: db.pragma("user_version", { simple: true }), names: names.all() };
  } finally {
    db.close();
  }
}

function refusal(pattern: RegExp, hint: RegExp): (error: unknown) => boolean {
  return (error) => error instanceof AppError && pattern.test(error.message) && hint.test(error.hint ?? "");
}

test("a new file gets every step, and opening it again changes nothing", async (t) => {
  const first = openTestDb(t);
  const installation = first.second.prepare("SELECT id FROM installation").pluck().get();
  assert.match(String(installation), /^[0-9a-f]{16}$/);
  await first.db.close();
  const made = lookInto(join(first.dataDir, DATABASE_FILE));
  assert.equal(made.version, SCHEMA_VERSION);
  const again = openTestDb(t, { dataDir: first.dataDir, migrate: false });
  assert.equal(again.second.prepare("SELECT id FROM installation").pluck().get(), installation);
  assert.deepEqual(lookInto(join(first.dataDir, DATABASE_FILE)), made);
});

for (const migrate of [true, false]) {
  test(`a newer file is refused with a hint and left alone, ${migrate ? "also" : "even"} with migrate: ${migrate}`, (t) => {
    const dataDir = temporaryFolder(t);
    const path = makeFile(dataDir, `CREATE TABLE of_the_future (x); PRAGMA user_version = ${SCHEMA_VERSION + 1}`);
    const bytes = readFileSync(path);
    assert.throws(
      () => openDb({ dataDir, log, migrate, onFatal }),
      refusal(/schema version \d+ is newer than this program's \(\d+\)/, /install the release that wrote it/),
    );
    assert.deepEqual(readFileSync(path), bytes);
  });
}

/** The shape of a schema, whatever the words that made it: columns, indexes, and the triggers word by word. */
function shapeOf(path: string): unknown {
  const db = new Database(path, { readonly: true });
  try {
    const tables = db
      .prepare<[], string>("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1")
      .pluck()
      .all();
    const words = db
      .prepare<[], { name: string; sql: string | null }>(
        "SELECT name, sql FROM sqlite_schema WHERE type IN ('index', 'trigger') ORDER BY 1",
      )
      .all()
      .map(({ name, sql }) => [name, sql?.replaceAll(/--.*|\s+/g, " ").replaceAll(/ +/g, " ") ?? null]);
    return { columns: tables.map((table) => [table, db.pragma(`table_xinfo(${table})`)]), words };
  } finally {
    db.close();
  }
}

for (const version of [1, 2]) {
  test(`a file of version ${version} becomes what a fresh one is, and keeps its rows`, async (t) => {
    const dataDir = temporaryFolder(t);
    const path = makeFile(
      dataDir,
      `${readFileSync(new URL(`./_schema_${version}.sql`, import.meta.url), "utf8")}; PRAGMA user_version = ${version}`,
    );
    const old = new Database(path);
    const installation = old.prepare("SELECT id FROM installation").pluck().get();
    old.close();
    const { db, second } = openTestDb(t, { dataDir });
    assert.equal(second.prepare("SELECT id FROM installation").pluck().get(), installation);
    await db.close();
    const fresh = openTestDb(t);
    await fresh.db.close();
    assert.equal(lookInto(path).version, SCHEMA_VERSION);
    assert.deepEqual(shapeOf(path), shapeOf(join(fresh.dataDir, DATABASE_FILE)));
  });
}

test("of an old file, deleted workflows and what deleted workspaces still had go; all else stays", async (t) => {
  const dataDir = temporaryFolder(t);
  const id = (n: number) => `01900000-0000-7000-8000-${String(n).padStart(12, "0")}`;
  const workspace = (n: number, deletedAtMs: number | null) =>
    `INSERT INTO workspaces (id, name, slug, created_by, storage_bytes_quota, created_at_ms, updated_at_ms, deleted_at_ms, emptied_at_ms)
     VALUES ('${id(n)}', 'w', 'w${n}', '${id(1)}', 1, 1, 1, ${deletedAtMs}, ${deletedAtMs});
     INSERT INTO memberships VALUES ('${id(n)}', '${id(1)}', 'admin', 1);`;
  const workflow = (n: number, workspaceId: string, deletedAtMs: number | null) =>
    `INSERT INTO contexts VALUES ('${id(n)}', 'workflow', '${workspaceId}', '${id(1)}', 'f', 'user', NULL, '{}', 1, 1, ${deletedAtMs});`;
  makeFile(
    dataDir,
    `${readFileSync(new URL("./_schema_1.sql", import.meta.url), "utf8")}; PRAGMA user_version = 1;
     INSERT INTO users (id, created_at_ms) VALUES ('${id(1)}', 1);
     ${workspace(2, null)} ${workspace(3, 5)}
     ${workflow(4, id(2), null)} ${workflow(5, id(2), 5)} ${workflow(6, id(3), null)}`,
  );
  const { second } = openTestDb(t, { dataDir });
  assert.deepEqual(second.prepare("SELECT id FROM contexts").pluck().all(), [id(4)]);
  assert.deepEqual(second.prepare("SELECT workspace_id FROM memberships").pluck().all(), [id(2)]);
  assert.equal(second.prepare("SELECT count(*) FROM workspaces").pluck().get(), 2);
});

test("entries of an old file keep the time since which they could have been removed, as far as it is known", (t) => {
  const dataDir = temporaryFolder(t);
  const uploadId = "0190a000-0000-7000-8000-000000000000";
  const entries = {
    "at once": [100, 0, null],
    "second removal": [100, 900, null],
    // When it was first due is written nowhere: it counts from its entering on.
    failed: [100, 900, "no"],
  } as const;
  const inserts = Object.values(entries).map(([enteredAtMs, dueAtMs, error], i) => {
    const key = `'final/' || (SELECT id FROM installation) || '/${uploadId}/${String(i).repeat(32)}'`;
    return `INSERT INTO object_removals (object_key, upload_id, entered_at_ms, due_at_ms, last_error)
            VALUES (${key}, '${uploadId}', ${enteredAtMs}, ${dueAtMs}, ${error === null ? "NULL" : `'${error}'`});`;
  });
  const schema = readFileSync(new URL("./_schema_2.sql", import.meta.url), "utf8");
  makeFile(dataDir, `${schema}; PRAGMA user_version = 2; ${inserts.join("")}`);
  const { second } = openTestDb(t, { dataDir });
  const since = second.prepare("SELECT coalesce(first_due_at_ms, entered_at_ms) FROM object_removals ORDER BY seq");
  assert.deepEqual(since.pluck().all(), [100, 900, 100]);
});

test("an older file is refused by whoever may not migrate, and left alone", (t) => {
  const dataDir = temporaryFolder(t);
  const path = makeFile(dataDir, "CREATE TABLE of_the_past (x)");
  assert.throws(
    () => openDb({ dataDir, log, migrate: false, onFatal }),
    refusal(/schema version 0 is older than this program's/, /restart `stowage serve`/),
  );
  assert.deepEqual(lookInto(path), { version: 0, names: ["of_the_past"] });
  openTestDb(t, { dataDir });
  assert.equal(lookInto(path).version, SCHEMA_VERSION);
});

test("a file that is not there is not made by whoever may not migrate", (t) => {
  const dataDir = temporaryFolder(t);
  assert.throws(() => openDb({ dataDir, log, migrate: false, onFatal }), refusal(/there is none/, /STOWAGE_DATA_DIR/));
  assert.equal(existsSync(join(dataDir, DATABASE_FILE)), false);
});

test("the steps are one transaction: where one fails, the file is as it was", (t) => {
  const dataDir = temporaryFolder(t);
  // The last table that schema.sql makes is there already: all that it made before must be undone.
  const path = makeFile(dataDir, "CREATE TABLE object_removals (x)");
  assert.throws(() => openDb({ dataDir, log, migrate: true, onFatal }), /object_removals already exists/);
  assert.deepEqual(lookInto(path), { version: 0, names: ["object_removals"] });
});

test("two processes that open an old file at once both get it up to date, in one go", async (t) => {
  const dataDir = temporaryFolder(t);
  const path = makeFile(dataDir, "");
  const lock = new Database(path);
  afterwards(t, () => lock.close());
  lock.exec("BEGIN IMMEDIATE");
  const children = [1, 2].map(() => startChild(t, "./_db_child.ts", ["open", dataDir]));
  await Promise.all(children.map((child) => child.says("opening")));
  // Both have read the version by then, most likely; if not, the test proves less, but does not fail.
  await delay(300);
  lock.exec("COMMIT");
  for (const child of children) {
    const { code, stdout, stderr } = await child.ended;
    assert.equal(code, 0, stderr);
    assert.match(stdout, /^closed$/m);
  }
  assert.equal(lookInto(path).version, SCHEMA_VERSION);
  assert.equal(lock.prepare("SELECT count(*) FROM installation").pluck().get(), 1);
});
