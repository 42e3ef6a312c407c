import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import Database from "better-sqlite3";
import { DATABASE_FILE } from "../lib/db/db.ts";
import type { LogFields } from "../lib/log.ts";
import { StoreError } from "../lib/store/objects.ts";
import { initDataDir, type Owner, silentLog, startTestApp, temporaryFolder, testClock, testConfig } from "./_app.ts";
import { rawPathOf } from "./_books.ts";
import { type FaultyApp, startFaultyApp, stillClock } from "./_faulty_app.ts";
import { logLines, runProgram, serveProgram } from "./_process.ts";
import { until } from "./_until.ts";

const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;

interface Place {
  dataDir: string;
  owner: Owner;
  clock: ReturnType<typeof testClock>;
}

async function newPlace(t: TestContext): Promise<Place> {
  const dataDir = join(await temporaryFolder(t), "data");
  return { dataDir, owner: await initDataDir(testConfig(dataDir), 1_000_000), clock: testClock() };
}

function markerOf(dataDir: string): { ledger_seq: number; installation: string; event_sha256: string } {
  return JSON.parse(readFileSync(join(dataDir, "objects", "ledger-marker"), "utf8"));
}

/** Copies the database out of the data directory while nothing serves it, or back in. */
function copyDatabase(from: string, to: string): void {
  for (const suffix of ["-wal", "-shm"]) rmSync(to + suffix, { force: true });
  copyFileSync(from, to);
}

async function confirmAndDelete(its: FaultyApp, text: string): Promise<void> {
  const { id } = await its.confirmedUpload(text);
  assert.equal((await its.call("DELETE", `/api/v1/uploads/${id}`)).status, 200);
}

/** A restored old database: a lease of its time covers what is a charged object today. */
async function restored(t: TestContext) {
  const place = await newPlace(t);
  const database = join(place.dataDir, DATABASE_FILE);
  const backup = join(place.dataDir, "..", "backup.db");
  const first = await startFaultyApp(t, place);
  const old = await first.confirmedUpload("old");
  await first.app.cleaner.runOnce();
  const staged = await first.staged("today");
  const deletedToday = await first.confirmedUpload("deleted today");
  await first.close();
  copyDatabase(database, backup);

  const second = await startFaultyApp(t, place);
  const today = await second.confirm(staged.id);
  assert.equal(today.status, 200);
  assert.equal((await second.call("DELETE", `/api/v1/uploads/${deletedToday.id}`)).status, 200);
  place.clock.advance(2 * MINUTE_MS);
  await second.app.cleaner.runOnce();
  const todaysKey = second.keyOf(staged.id);
  await second.close();

  copyDatabase(backup, database);
  // What a backup taken in the middle of a confirm holds.
  const sql = new Database(database);
  sql
    .prepare(
      "INSERT INTO object_removals (object_key, upload_id, entered_at_ms, due_at_ms, again_at_ms) VALUES (?, ?, 1, 1, 2)",
    )
    .run(todaysKey, staged.id);
  sql.close();
  return { ...place, old, todaysKey, stagedId: staged.id };
}

test("the marker follows the ledger: before the first removal, then once a minute, and at the end", async (t) => {
  const place = await newPlace(t);
  const its = await startFaultyApp(t, place);
  const { app, clock, dataDir } = its;
  const seqs: (number | null)[] = [];
  its.hooks.before = ({ name }) => {
    const path = join(dataDir, "objects", "ledger-marker");
    if (name === "remove") seqs.push(existsSync(path) ? markerOf(dataDir).ledger_seq : null);
  };
  await confirmAndDelete(its, "one");
  await app.cleaner.runOnce();
  assert.deepEqual(seqs, [2], "written before anything was removed");
  await confirmAndDelete(its, "two");
  clock.advance(MINUTE_MS - 2_000);
  await app.cleaner.runOnce();
  assert.deepEqual(seqs, [2, 2], "not yet again");
  clock.advance(2_000);
  await confirmAndDelete(its, "three");
  await app.cleaner.runOnce();
  assert.deepEqual(seqs, [2, 2, 6]);
  await its.confirmedUpload("four");
  await its.close();
  assert.equal(markerOf(dataDir).ledger_seq, 7, "whoever stops in good order leaves it up to date");
});

test("what was charged is marked also where nothing is removed", async (t) => {
  const place = await newPlace(t);
  const its = await startFaultyApp(t, place);
  await its.confirmedUpload("one");
  its.sql.exec("UPDATE object_removals SET due_at_ms = 9e15");
  its.clock.advance(MINUTE_MS);
  await its.app.cleaner.runOnce();
  assert.equal(markerOf(its.dataDir).ledger_seq, 1);
});

test("nothing is removed where the marker cannot be written, and the entries wait with their attempts unburnt", async (t) => {
  let isBroken = false;
  const removed: string[] = [];
  const broken = await startTestApp(t, {
    cleansInBackground: false,
    wrapStore: (objects) => ({
      ...objects,
      async writeMarker(...args) {
        if (isBroken) throw new StoreError("unavailable", "the marker's disk is full");
        await objects.writeMarker(...args);
      },
      async remove(keys) {
        removed.push(...keys);
        return await objects.remove(keys);
      },
    }),
  });
  const { id } = await broken.confirmedUpload("x");
  isBroken = true;
  await broken.call("DELETE", `/api/v1/uploads/${id}`);
  await broken.app.cleaner.runOnce();
  assert.deepEqual(removed, []);
  const entries = broken.sql
    .prepare("SELECT attempts, last_error FROM object_removals WHERE last_error IS NOT NULL")
    .all();
  assert.deepEqual(entries.slice(0, 1), [{ attempts: 0, last_error: "the marker's disk is full" }]);
  isBroken = false;
  for (let pass = 0; pass < 2; pass++) await broken.app.cleaner.runOnce();
  assert.equal(removed.length > 0, true);
});

test("a restored old database: nothing is removed, expired or entered, and ready and the log say so", async (t) => {
  const { todaysKey, stagedId, ...place } = await restored(t);
  const errors: [string, LogFields | undefined][] = [];
  const log = { ...silentLog, error: (msg: string, fields?: LogFields) => void errors.push([msg, fields]) };
  const its = await startFaultyApp(t, { ...place, log });
  const late = `staging/${its.app.core.workspaces.installationId()}/0190a000-0000-7000-8000-000000000000/${"a".repeat(32)}`;
  const latePath = rawPathOf(its.dataDir, late);
  mkdirSync(dirname(latePath), { recursive: true });
  writeFileSync(latePath, "late");
  utimesSync(latePath, 1, 1);
  const before = its.files().sort();
  const rows = () => its.sql.prepare("SELECT object_key, taken_at_ms FROM object_removals ORDER BY seq").all();
  const entries = rows();
  its.clock.advance(3 * DAY_MS);
  assert.deepEqual(await its.app.cleaner.runOnce(), { removed: 0, failed: 0, expired: 0 });
  assert.equal(await its.app.cleaner.lookForLateArrivals(), 0);
  assert.deepEqual(its.files().sort(), before, "today's charged object is still there");
  assert.deepEqual(rows(), entries);
  assert.equal(its.statusOf(stagedId), "pending");

  const ready = await its.call("GET", "/ready", { key: "" });
  assert.equal(ready.status, 200);
  assert.match(ready.json.cleaner, /^paused: the ledger ends at 2, the store has seen it at 4$/);
  assert.equal(errors[0]?.[0], "cleaner_paused");
  assert.equal(errors.length, 2, "told at the start, and again after three days");
  assert.match(String(errors[0]?.[1]?.hint), /doctor --accept-older-database/);
  // The service itself goes on: a delete is booked and its object waits.
  assert.equal((await its.call("DELETE", `/api/v1/uploads/${place.old.id}`)).status, 200);
  await its.app.cleaner.runOnce();
  assert.ok(its.files().includes(todaysKey));
  await its.close();
  assert.equal(markerOf(its.dataDir).ledger_seq, 4, "the marker of the lost database stays");
});

test("a restored old database that was written on beyond the marker is still noticed", async (t) => {
  const { todaysKey, ...place } = await restored(t);
  const paused = await startFaultyApp(t, place);
  for (let i = 0; i < 5; i++) await paused.confirmedUpload(`later ${i}`);
  await paused.close();
  const its = await startFaultyApp(t, place);
  await its.app.cleaner.runOnce();
  assert.equal(its.app.cleaner.pauseReason(), "the ledger's number 4 is not the one that the store has seen");
  assert.ok(its.files().includes(todaysKey));
});

test("the embedded store's marker is read before and after each batch that is removed, and seldom otherwise", async (t) => {
  let reads = 0;
  const its = await startTestApp(t, {
    ...{ clock: stillClock(), cleansInBackground: false },
    wrapStore: (objects) => ({
      ...objects,
      async readMarker(key) {
        reads++;
        return await objects.readMarker(key);
      },
    }),
  });
  for (let i = 0; i < 50; i++) {
    const { id } = await its.confirmedUpload("x");
    await its.call("DELETE", `/api/v1/uploads/${id}`);
  }
  reads = 0;
  assert.equal((await its.app.cleaner.runOnce()).removed, 100);
  assert.ok(reads <= 5, `${reads} reads for a batch of 100 objects`);
  reads = 0;
  await its.app.cleaner.runOnce();
  assert.ok(reads <= 1, `${reads} reads for a pass with nothing to remove`);
});

/** The store's folder is not mounted any more, and the last comparison is a while ago. */
function unmount({ dataDir, clock }: Pick<FaultyApp, "dataDir" | "clock">): string {
  const away = join(dataDir, "objects.away");
  renameSync(join(dataDir, "objects"), away);
  mkdirSync(join(dataDir, "objects"));
  clock.advance(2_000);
  return away;
}

test("a store that was swapped: nothing expires either", async (t) => {
  const its = await startFaultyApp(t, await newPlace(t));
  const { id } = await its.staged("pending");
  assert.equal((await its.app.cleaner.runOnce()).expired, 0);
  const away = unmount(its);
  its.clock.advance(30 * DAY_MS);
  assert.deepEqual(await its.app.cleaner.runOnce(), { removed: 0, failed: 0, expired: 0 });
  assert.equal(its.statusOf(id), "pending");
  rmdirSync(join(its.dataDir, "objects"));
  renameSync(away, join(its.dataDir, "objects"));
  assert.equal((await its.app.cleaner.runOnce()).expired, 1);
});

test("a store that is swapped in the middle of a long pass: nothing of this batch or the next is settled", async (t) => {
  const its = await startFaultyApp(t, await newPlace(t));
  const [first, second] = [await its.confirmedUpload("first"), await its.confirmedUpload("second")];
  await its.app.cleaner.runOnce();
  await its.call("DELETE", `/api/v1/uploads/${first.id}`);
  let away = "";
  its.hooks.after = async ({ name }) => {
    if (name !== "remove") return;
    its.hooks.after = undefined;
    away = unmount(its);
    await its.call("DELETE", `/api/v1/uploads/${second.id}`);
  };
  assert.equal((await its.app.cleaner.runOnce()).removed, 0);
  const waiting = its.entries().filter(({ object_key: key }) => key.startsWith("final/") && key.includes(second.id));
  assert.deepEqual(
    waiting.map(({ taken_at_ms, attempts }) => [taken_at_ms, attempts]),
    [[null, 0]],
  );
  const held = its.entries().filter(({ object_key: key }) => key.startsWith("final/") && key.includes(first.id));
  assert.match(String(held[0]?.last_error), /^paused: the objects are in the folder/);
  rmdirSync(join(its.dataDir, "objects"));
  renameSync(away, join(its.dataDir, "objects"));
  await its.checkEnd();
});

test("the store of another installation, or a marker that cannot be read, pauses the cleaner", async (t) => {
  const place = await newPlace(t);
  const first = await startFaultyApp(t, place);
  await confirmAndDelete(first, "x");
  await first.app.cleaner.runOnce();
  await first.close();
  const path = join(place.dataDir, "objects", "ledger-marker");
  for (const [text, reason] of [
    [
      JSON.stringify({ ...markerOf(place.dataDir), installation: "0123456789abcdef" }),
      /belongs to the installation "0123456789abcdef"/,
    ],
    ["", /cannot be read/],
    ["{}", /cannot be read/],
  ] as const) {
    writeFileSync(path, text);
    const its = await startFaultyApp(t, place);
    await its.app.cleaner.runOnce();
    assert.match(its.app.cleaner.pauseReason() ?? "", reason);
    await its.close();
    assert.equal(readFileSync(path, "utf8"), text);
  }
});

test("a database that is no older than the marker is trusted, also where the marker lies behind", async (t) => {
  const place = await newPlace(t);
  const first = await startFaultyApp(t, place);
  await confirmAndDelete(first, "x");
  await first.app.cleaner.runOnce();
  await first.close();
  const path = join(place.dataDir, "objects", "ledger-marker");
  writeFileSync(path, JSON.stringify({ ...markerOf(place.dataDir), ledger_seq: 0, event_sha256: "" }));
  const its = await startFaultyApp(t, place);
  await confirmAndDelete(its, "y");
  assert.ok((await its.app.cleaner.runOnce()).removed > 0);
  assert.equal(its.app.cleaner.pauseReason(), null);
});

test("where the store cannot be asked at start, the cleaner waits until it could be", async (t) => {
  const place = await newPlace(t);
  let isDown = true;
  let asked = 0;
  const removed: string[] = [];
  const its = await startTestApp(t, {
    ...place,
    wrapStore: (objects) => ({
      ...objects,
      async readMarker(key) {
        asked++;
        if (isDown) throw new StoreError("unavailable", "down");
        return await objects.readMarker(key);
      },
      async remove(keys) {
        removed.push(...keys);
        return await objects.remove(keys);
      },
    }),
  });
  const { id, uploadUrl } = await its.createUpload();
  await its.put(uploadUrl, "x");
  assert.equal((await its.confirm(id)).status, 503, "nothing is charged in a store that was not compared");
  await its.call("DELETE", `/api/v1/uploads/${id}`);
  await until(() => asked >= 3, "the store is asked again");
  assert.deepEqual(removed, []);
  isDown = false;
  await until(() => removed.length === 1, "the object is removed");
  await its.app.cleaner.stop();
});

test("accept-older-database shows the losses, does nothing unasked, and a running server goes on", async (t) => {
  const { todaysKey, ...place } = await restored(t);
  const env = { STOWAGE_DATA_DIR: place.dataDir };
  const server = await serveProgram(t, place.dataDir);
  await server.says("cleaner_paused");
  const ready = await server.call("GET", "/ready");
  assert.match(ready.json.cleaner, /^paused: /);

  const declined = await runProgram(t, ["doctor", "--accept-older-database"], env);
  assert.equal(declined.exitCode, 1, "nobody answered, so the answer is no");
  assert.match(declined.stdout, /older than the store: the ledger ends at 2, the store has seen it at 4/);
  assert.match(declined.stdout, /^ {2}1 object \(5 bytes\) that are there now and will be removed/m);
  assert.match(declined.stdout, /^ {2}1 confirmed upload \(13 bytes\) whose object is gone/m);
  assert.match(declined.stdout, /Not accepted/);
  const doctor = await runProgram(t, ["doctor", "--fix"], env);
  assert.equal(doctor.exitCode, 1);
  assert.match(doctor.stdout, /^problem +ledger marker +the database is older than the store/m);
  assert.match((await server.call("GET", "/ready")).json.cleaner, /^paused: /);

  const accepted = await runProgram(t, ["doctor", "--accept-older-database", "--yes", "--json"], env);
  assert.equal(accepted.exitCode, 0, accepted.stderr);
  const told = JSON.parse(accepted.stdout);
  assert.deepEqual([told.older, told.accepted], [true, true]);
  assert.deepEqual(told.losses.removedObjects.examples, [todaysKey]);
  await server.says("cleaner_goes_on");
  assert.equal((await server.call("GET", "/ready")).json.cleaner, undefined);
  assert.ok(logLines(server.stderr()).some(({ msg, level }) => msg === "cleaner_paused" && level === "error"));
  const again = await runProgram(t, ["doctor", "--accept-older-database"], env);
  assert.deepEqual(
    [again.exitCode, again.stdout],
    [0, "This database is as new as the store: there is nothing to accept\n"],
  );
});

test("accept-older-database takes a typed yes, and nothing else, for an answer", async (t) => {
  const { dataDir, clock, owner, old } = await restored(t);
  const answer = (input: string) =>
    spawnSync(process.execPath, ["server.ts", "doctor", "--accept-older-database"], {
      input,
      env: { ...process.env, STOWAGE_DATA_DIR: dataDir },
      encoding: "utf8",
    });
  for (const no of ["", "\n", "n\n", "yesterday\n"]) {
    const { status, stdout, stderr } = answer(no);
    assert.equal(status, 1, stdout + stderr);
    assert.equal(markerOf(dataDir).ledger_seq, 4);
  }
  const { status, stdout, stderr } = answer("y\n");
  assert.equal(status, 0, stderr);
  assert.match(stderr, /^Go on with this database\? \[y\/N\] /);
  assert.match(stdout, /\nAccepted: a running server goes on within a minute/);
  assert.equal(markerOf(dataDir).ledger_seq, 2);
  const its = await startFaultyApp(t, { dataDir, clock, owner });
  assert.ok((await its.app.cleaner.runOnce()).removed > 0);
  assert.equal(its.bytesOf(old.id), "old");
});
