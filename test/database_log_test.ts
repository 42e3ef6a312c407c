// Goal: the database's log keeps the size that is promised, or it is told that it does not, and because of whom; it gets
// shorter as soon as it can.
// Method: another process that reads and does not end, as a forgotten shell; real files, measured.
import assert from "node:assert/strict";
import { statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import Database from "better-sqlite3";
import { DATABASE_FILE } from "../lib/db/db.ts";
import { freeBytesOf } from "../lib/db/free_space.ts";
import { newId } from "../lib/ids.ts";
import { startTestApp } from "./_app.ts";
import { holdLock, openTestDb, type TestDb } from "./_db.ts";
import { scrape } from "./_metrics_page.ts";
import { isRoot, mountSmallDisk } from "./_operator.ts";
import { initProgram, runProgram, serveProgram } from "./_process.ts";
import { until } from "./_until.ts";

const MIB = 1024 * 1024;

let letters = 0;

/** Writes so many MiB to the log, one a group. */
async function writeMib({ db }: TestDb, mib: number): Promise<void> {
  const rewrite = db.prepare<[string]>("UPDATE users SET name = ?");
  for (let i = 0; i < mib; i++) {
    // Another letter each time: SQLite does not write a page again whose content stays the same.
    const letter = String.fromCharCode(97 + (letters++ % 26));
    await db.writeStatement(() => rewrite.run(letter.repeat(MIB / 16)));
  }
}

async function addUsers({ db }: TestDb): Promise<void> {
  const insert = db.prepare<[string, string]>("INSERT INTO users (id, name, created_at_ms) VALUES (?, ?, 1)");
  for (let i = 0; i < 16; i++) await db.write(() => insert.run(newId(), String(i)));
}

test("a reader that stays is told with its process; the log is measured, and gets shorter once it is gone", async (t) => {
  let passedMs = 0;
  const app = openTestDb(t, { monotonicMs: () => performance.now() + passedMs });
  const path = join(app.dataDir, DATABASE_FILE);
  await addUsers(app);
  assert.equal(app.db.logFigures().heldUpMs, 0);
  const reader = await holdLock(t, app.dataDir, "read");
  await writeMib(app, 80);
  const { logBytes } = app.db.logFigures();
  assert.equal(logBytes, statSync(`${path}-wal`).size);
  assert.ok(logBytes > 64 * MIB, `${logBytes}`);
  await until(() => app.db.logFigures().heldUpMs > 0, "it is held up");
  assert.ok(!app.logged().includes("log_held_up"), "a reader of a moment is nobody's trouble");
  passedMs = 11_000;
  await until(() => app.logged().includes("log_held_up"), "it is told");
  const told = app.lines().find(({ msg }) => msg === "log_held_up");
  assert.equal(told?.level, "warn");
  assert.deepEqual(told?.readers, [`process ${reader.processId} (node)`]);
  assert.match(String(told?.hint), new RegExp(`kill ${reader.processId}$`));
  assert.ok(Number(told?.held_up_seconds) >= 11);
  assert.ok(Number(told?.log_bytes) > 64 * MIB);
  passedMs = 60_000;
  await writeMib(app, 2);
  assert.equal(app.logged().filter((msg) => msg === "log_held_up").length, 1, "once in ten minutes");

  reader.release();
  // Nothing is written any more: it is not the next commit that shortens the file.
  await until(() => statSync(`${path}-wal`).size <= 64 * MIB, "the file gets shorter");
  await until(() => app.logged().includes("log_free_again"), "that is told too");
  assert.equal(app.db.logFigures().heldUpMs, 0);
});

test("under load the file gets shorter too once the reader is gone", async (t) => {
  const app = openTestDb(t);
  const path = join(app.dataDir, DATABASE_FILE);
  await addUsers(app);
  const reader = await holdLock(t, app.dataDir, "read");
  await writeMib(app, 100);
  assert.ok(statSync(`${path}-wal`).size > 90 * MIB);
  reader.release();
  let isShort = false;
  const writing = (async () => {
    while (!isShort) await writeMib(app, 1);
  })();
  await until(() => statSync(`${path}-wal`).size <= 64 * MIB, "the file gets shorter").finally(() => {
    isShort = true;
  });
  await writing;
});

test("doctor and the metrics tell of a log that had to grow, and doctor names the process", async (t) => {
  const { dataDir, made } = await initProgram(t);
  const env = { STOWAGE_DATA_DIR: dataDir };
  const server = await serveProgram(t, dataDir);
  const create = () =>
    server.call("POST", "/api/v1/uploads", {
      key: made.api_key,
      body: { filename: "a.bin", category: "file" },
    });
  await create();
  const sound = await runProgram(t, ["doctor"], env);
  assert.match(sound.stdout, /^ok +log +\d+ bytes$/m);
  const reader = await holdLock(t, dataDir, "read");
  const wal = join(dataDir, `${DATABASE_FILE}-wal`);
  // By hand, beside the server, which is faster than requests.
  const sql = new Database(join(dataDir, DATABASE_FILE), { timeout: 5_000 });
  t.after(() => sql.close());
  while (statSync(wal).size <= 66 * MIB) sql.exec(`UPDATE users SET name = hex(randomblob(${MIB}))`);
  await until(async () => {
    await create();
    const page = await scrape(`${server.url}/metrics`);
    return page.value("stowage_db_checkpoint_held_up_seconds") > 0;
  }, "the gauge rises");
  const page = await scrape(`${server.url}/metrics`);
  assert.equal(page.value("stowage_db_log_bytes"), statSync(wal).size);
  const doctor = await runProgram(t, ["doctor"], env);
  assert.equal(doctor.exitCode, 1);
  assert.match(doctor.stdout, /^problem +log +the database's log has grown to \d+ bytes, more than 67108864\n/m);
  assert.ok(doctor.stdout.includes(`process ${reader.processId} (node) is reading the database`), doctor.stdout);
  assert.match(doctor.stdout, new RegExp(`do: end what reads for so long \\(kill ${reader.processId}\\)`));
  reader.kill();
  await until(() => statSync(wal).size <= 64 * MIB, "the file gets shorter");
  await until(async () => {
    const { value } = await scrape(`${server.url}/metrics`);
    return value("stowage_db_checkpoint_held_up_seconds") === 0;
  }, "the gauge falls");
});

test("while the log grows into the last free bytes creates and PUTs are refused first, and deletes go on", async (t) => {
  if (!isRoot(t)) return;
  const dataDir = join(mountSmallDisk(t, 128 * MIB), "data");
  const its = await startTestApp(t, { dataDir, env: { STOWAGE_MIN_FREE_BYTES: String(64 * MIB) } });
  const { id } = await its.confirmedUpload("12345");
  const { uploadUrl } = await its.createUpload();
  await holdLock(t, dataDir, "read");
  const create = async (): Promise<number> =>
    (await its.call("POST", "/api/v1/uploads", { body: { filename: "a.bin", category: "file" } })).status;
  await until(async () => {
    if (freeBytesOf(dataDir) > 60 * MIB) its.sql.exec(`UPDATE users SET name = hex(randomblob(${MIB}))`);
    return (await create()) === 507;
  }, "creates are refused");
  assert.equal((await its.put(uploadUrl, "x")).status, 507);
  assert.equal((await its.call("GET", `/api/v1/uploads/${id}`)).status, 200);
  assert.equal((await its.call("DELETE", `/api/v1/uploads/${id}`)).status, 200);
  assert.equal((await its.call("GET", "/ready")).status, 200);
});
