// Goal: a database that is damaged, or that lies beside the log of another file, is not written to, and who runs the
// service is told what happened and how to go on.
// Method: what operators do, done to the files of the real program after a SIGKILL.
import assert from "node:assert/strict";
import {
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import Database from "better-sqlite3";
import { DATABASE_FILE } from "../lib/db/db.ts";
import { belongTogether } from "../lib/db/log_start.ts";
import { refuseUnsound } from "../lib/db/soundness.ts";
import { newId } from "../lib/ids.ts";
import { silentLog } from "./_app.ts";
import { checkBooks } from "./_books.ts";
import { openTestDb, temporaryFolder } from "./_db.ts";
import { confirmUploads, copyLog, fingerprints } from "./_operator.ts";
import {
  type InitOutput,
  initProgram,
  logLines,
  runProgram,
  type ServingProgram,
  serveProgram,
  startProgram,
} from "./_process.ts";
import { createRandom, testSeed } from "./_random.ts";

interface Mixed {
  dataDir: string;
  made: InitOutput;
  /** The newer file, as the kill left it. */
  newer: string;
  db: string;
}

/** An older copy of the database beside the log of the newer file, as after a hasty restore. */
async function mixUp(t: TestContext): Promise<Mixed> {
  const { dataDir, made } = await initProgram(t);
  const owner = { key: made.api_key, workspaceId: made.workspace_id };
  const first = await serveProgram(t, dataDir);
  await confirmUploads(first, owner, 60);
  first.child.kill("SIGTERM");
  await first.ended;
  const db = join(dataDir, DATABASE_FILE);
  const [older, newer] = [`${dataDir}-older`, `${dataDir}-newer`];
  copyFileSync(db, older);
  const second = await serveProgram(t, dataDir);
  const ids = await confirmUploads(second, owner, 80);
  copyLog(db);
  for (const id of ids.slice(-60)) {
    assert.equal((await second.call("DELETE", `/api/v1/uploads/${id}`, { key: owner.key })).status, 200);
  }
  copyLog(db);
  await confirmUploads(second, owner, 10);
  second.child.kill("SIGKILL");
  await second.ended;
  assert.ok(statSync(`${db}-wal`).size > 0);
  copyFileSync(db, newer);
  copyFileSync(older, db);
  return { dataDir, made, newer, db };
}

test("an older copy beside the log of the newer file: nothing starts, nothing is written, and both ways out are told", async (t) => {
  const { dataDir, made, newer, db } = await mixUp(t);
  const env = { STOWAGE_DATA_DIR: dataDir };
  const before = fingerprints(dataDir);
  const names = [...readdirSync(dataDir), "check.lock"].sort();
  for (const args of [["serve"], ["doctor"], ["keys", "list"], ["workspaces", "create", "--name", "x"], ["init"]]) {
    const { exitCode, stdout, stderr } = await runProgram(t, args, env);
    assert.equal(exitCode, 1, args.join(" "));
    const said = stdout + stderr;
    assert.match(
      said,
      /stowage\.db" and its log ".*-wal" do not belong together: (the log continues another file|with the log there are \d+ faults?)/,
    );
    assert.match(said, /a copy was put back .*Nothing was written/);
    assert.match(said, /mv ".*stowage\.db-wal" ".*stowage\.db-shm" SOMEWHERE/);
    assert.deepEqual(fingerprints(dataDir), before, args.join(" "));
  }
  assert.deepEqual(readdirSync(dataDir).sort(), names, "the checks leave no file behind");

  // One way: go on with the newer file. Everything that was acknowledged is there.
  copyFileSync(newer, db);
  const server = await serveProgram(t, dataDir);
  const { json } = await server.call("GET", "/api/v1/uploads", { key: made.api_key });
  assert.equal(json.pagination.total, 90);
  const said = logLines(server.stderr()).map(({ msg }) => msg);
  assert.ok(said.indexOf("database_check") < said.indexOf("database_sound"), said.join(" "));
  assert.ok(said.indexOf("database_sound") < said.indexOf("listening"), said.join(" "));
});

test("an older copy beside the log of the newer file: with the log moved away the copy is served", async (t) => {
  const { dataDir, made, db } = await mixUp(t);
  for (const suffix of ["-wal", "-shm"]) rmSync(db + suffix, { force: true });
  const server = await serveProgram(t, dataDir);
  const { json } = await server.call("GET", "/api/v1/uploads", { key: made.api_key });
  assert.equal(json.pagination.total, 60);
  assert.ok(!server.stderr().includes("database_check"), "after a clean end nothing has to be checked");
  const sql = new Database(db, { readonly: true });
  t.after(() => sql.close());
  checkBooks(sql);
});

test("the log of an older file beside the newer database is noticed too", async (t) => {
  const { dataDir, made } = await initProgram(t);
  const owner = { key: made.api_key, workspaceId: made.workspace_id };
  const db = join(dataDir, DATABASE_FILE);
  const first = await serveProgram(t, dataDir);
  const ids = await confirmUploads(first, owner, 60);
  copyLog(db);
  await confirmUploads(first, owner, 20);
  first.child.kill("SIGKILL");
  await first.ended;
  copyFileSync(`${db}-wal`, `${dataDir}-older-wal`);
  const second = await serveProgram(t, dataDir);
  for (const id of ids) await second.call("DELETE", `/api/v1/uploads/${id}`, { key: owner.key });
  await confirmUploads(second, owner, 60);
  second.child.kill("SIGTERM");
  await second.ended;
  copyFileSync(`${dataDir}-older-wal`, `${db}-wal`);
  const before = fingerprints(dataDir);
  const { exitCode, stderr } = await runProgram(t, ["serve"], { STOWAGE_DATA_DIR: dataDir });
  assert.equal(exitCode, 1);
  assert.match(stderr, /do not belong together/);
  assert.deepEqual(fingerprints(dataDir), before);
});

/** Stops a server. */
async function stop({ child, ended }: ServingProgram, signal: NodeJS.Signals): Promise<void> {
  child.kill(signal);
  await ended;
}

test("a log that holds a single change tells that it continues another file, though the two look sound together", async (t) => {
  const dataDir = temporaryFolder(t);
  const db = join(dataDir, DATABASE_FILE);
  async function addUsers(count: number, { closes }: { closes: boolean }): Promise<void> {
    const app = openTestDb(t, { dataDir });
    const insert = app.db.prepare("INSERT INTO users (id, name, created_at_ms) VALUES (?, 'x', 1)");
    for (let i = 0; i < count; i++) await app.db.write(() => insert.run(newId()));
    app.second.close();
    if (closes) await app.db.close();
  }
  await addUsers(5, { closes: true });
  copyFileSync(db, `${db}-older`);
  await addUsers(5, { closes: true });
  await addUsers(1, { closes: false });
  copyFileSync(`${db}-wal`, `${db}-older-wal`);
  const older = `${db}-older`;
  const pair = new Database(older, { readonly: true });
  assert.equal(pair.pragma("integrity_check", { simple: true }), "ok");
  pair.close();
  assert.throws(() => refuseUnsound(older, silentLog), /do not belong together: the log continues another file/);
  // And its own file is taken.
  copyFileSync(db, `${db}-own`);
  copyFileSync(`${db}-wal`, `${db}-own-wal`);
  refuseUnsound(`${db}-own`, silentLog);
});

test("a file that a checkpoint has left half way, in whatever order the disk kept its pages, is taken with its log", async (t) => {
  const random = createRandom(testSeed((text) => t.diagnostic(text)));
  const { dataDir, made } = await initProgram(t);
  const owner = { key: made.api_key, workspaceId: made.workspace_id };
  const db = join(dataDir, DATABASE_FILE);
  const first = await serveProgram(t, dataDir);
  const ids = await confirmUploads(first, owner, 20);
  await stop(first, "SIGTERM");
  const second = await serveProgram(t, dataDir);
  await confirmUploads(second, owner, 30);
  for (const id of ids) await second.call("DELETE", `/api/v1/uploads/${id}`, { key: owner.key });
  await stop(second, "SIGKILL");
  const [before, wal] = [readFileSync(db), readFileSync(`${db}-wal`)];
  const sql = new Database(db);
  sql.pragma("wal_checkpoint(TRUNCATE)");
  const all = rowsOf(sql);
  sql.close();
  const after = readFileSync(db);
  assert.ok(after.length > before.length);
  const pageBytes = 4_096;
  for (let round = 0; round < 30; round++) {
    const length = random.percent(50) ? before.length : after.length;
    const file = Buffer.alloc(length);
    before.copy(file);
    for (let at = 0; at < length; at += pageBytes) if (random.percent(50)) after.copy(file, at, at, at + pageBytes);
    writeFileSync(db, file);
    writeFileSync(`${db}-wal`, wal);
    rmSync(`${db}-shm`, { force: true });
    refuseUnsound(db, silentLog);
    const pair = new Database(db, { readonly: true });
    assert.deepEqual(rowsOf(pair), all);
    pair.close();
  }
});

function rowsOf(sql: Database.Database): unknown[] {
  return ["uploads", "storage_events", "object_removals"].map((table) => sql.prepare(`SELECT * FROM ${table}`).all());
}

test("what file and log say of their log decides whether they belong together", () => {
  const pair = { log: "c", before: "b", ledger_seq: 5 };
  const file = { log: "b", before: "a", ledger_seq: 2 };
  for (const [what, says, seq, expected] of [
    ["the log that the file has taken in last", file, 5, true],
    ["some of the log is in the file already", file, 7, true],
    ["the file's ledger cannot be read, half way through a checkpoint", file, null, true],
    ["an earlier moment of that log", file, 4, false],
    ["a log before that one", { ...file, log: "a" }, 5, false],
    ["a log of another history", { ...file, log: "x" }, 9, false],
    ["the same log", pair, 5, true],
    ["what cannot be read", undefined, 5, true],
    ["nothing, as a file whose first log was not begun", null, 5, false],
  ] as const) {
    assert.equal(belongTogether(pair, says, seq), expected, what);
  }
  assert.equal(belongTogether({ ...pair, before: null }, null, 5), true, "the first log of a file");
  for (const says of [null, undefined]) {
    assert.equal(belongTogether(says, file, 5), true, "a log of an older version says nothing");
  }
});

/** A data directory with some uploads, whose server was killed. */
async function killed(t: TestContext): Promise<{ dataDir: string; made: InitOutput; db: string }> {
  const { dataDir, made } = await initProgram(t);
  const server = await serveProgram(t, dataDir);
  await confirmUploads(server, { key: made.api_key, workspaceId: made.workspace_id }, 20);
  server.child.kill("SIGKILL");
  await server.ended;
  return { dataDir, made, db: join(dataDir, DATABASE_FILE) };
}

for (const [what, damage] of [
  ["missing", (db: string) => rmSync(db)],
  ["empty", (db: string) => truncateSync(db)],
] as const) {
  test(`a database that is ${what} beside its log is not made anew, and the log stays`, async (t) => {
    const { dataDir, db } = await killed(t);
    damage(db);
    const before = fingerprints(dataDir);
    for (const args of [["serve"], ["init"], ["doctor"], ["keys", "list"]]) {
      const { exitCode, stdout, stderr } = await runProgram(t, args, { STOWAGE_DATA_DIR: dataDir });
      assert.equal(exitCode, 1, args.join(" "));
      assert.match(stdout + stderr, /is missing or empty, and its log ".*-wal" is there\. Nothing was written/);
      assert.deepEqual(fingerprints(dataDir), before, args.join(" "));
    }
  });
}

test("an empty database is not taken for a fresh one by serve", async (t) => {
  const { dataDir } = await initProgram(t);
  const db = join(dataDir, DATABASE_FILE);
  truncateSync(db);
  const { exitCode, stderr } = await runProgram(t, ["serve"], { STOWAGE_DATA_DIR: dataDir });
  assert.equal(exitCode, 1);
  assert.match(
    stderr,
    /stowage\.db" is empty: an `init` or a copy was cut off\nstowage: hint: if there was data in it, restore/,
  );
  assert.equal(statSync(db).size, 0);
});

test("a file that is damaged itself is called so, and not written to", async (t) => {
  const { dataDir, db } = await killed(t);
  // What lies in the log too would hide the damage: so it is copied first, and then holds one change of a small table.
  const sql = new Database(db);
  sql.pragma("wal_checkpoint(TRUNCATE)");
  sql.exec("UPDATE users SET name = 'written once more'");
  const rootPage = sql.prepare("SELECT rootpage FROM sqlite_schema WHERE name = 'uploads_by_workspace'").pluck().get();
  const [file, wal] = [readFileSync(db), readFileSync(`${db}-wal`)];
  sql.close();
  const pageBytes = 4_096;
  file.fill(0x5a, (Number(rootPage) - 1) * pageBytes, Number(rootPage) * pageBytes);
  writeFileSync(db, file);
  writeFileSync(`${db}-wal`, wal);
  const before = fingerprints(dataDir);
  const { exitCode, stderr } = await runProgram(t, ["serve"], { STOWAGE_DATA_DIR: dataDir });
  assert.equal(exitCode, 1);
  assert.match(stderr, /stowage\.db" is damaged: \d+ faults? .*Nothing was written\n.*restore the newest backup/s);
  assert.deepEqual(fingerprints(dataDir), before);
  assert.ok(existsSync(`${db}-wal`));
});

test("a command beside another one, with no server, neither checks the file nor speaks of a run that did not end", async (t) => {
  const { dataDir, db } = await killed(t);
  const other = new Database(db);
  t.after(() => other.close());
  other.exec("UPDATE users SET name = 'another'");
  const { exitCode, stderr } = await runProgram(t, ["keys", "list"], { STOWAGE_DATA_DIR: dataDir });
  assert.equal(exitCode, 0, stderr);
  assert.equal(stderr, "");
  // But who is to serve relies on nobody.
  const server = await serveProgram(t, dataDir);
  assert.match(server.stderr(), /"msg":"database_sound"/);
});

test("whoever finds a log waits while another process checks the file, and then checks it, if that one has not opened it", async (t) => {
  const { dataDir } = await killed(t);
  const checking = new Database(join(dataDir, "check.lock"));
  t.after(() => checking.close());
  checking.exec("BEGIN IMMEDIATE");
  const waiting = startProgram(t, ["keys", "list"], { env: { STOWAGE_DATA_DIR: dataDir } });
  await delay(2_000);
  assert.equal(waiting.child.exitCode, null);
  assert.equal(waiting.stderr(), "");
  checking.exec("ROLLBACK");
  const { exitCode, stderr } = await waiting.ended;
  assert.equal(exitCode, 0, stderr);
  assert.match(stderr, /database_sound/);
});
