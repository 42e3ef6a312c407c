// Goal: what is wrong with the file of small objects is found, told, and repaired only if nothing can be lost by that.
import assert from "node:assert/strict";
import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import Database from "better-sqlite3";
import { runDoctor } from "../../lib/doctor/doctor.ts";
import { type Finding, type Report, reportText } from "../../lib/doctor/report.ts";
import { silentLog, startTestApp, type TestApp } from "../help/app.ts";

interface Patient extends TestApp {
  path: string;
  examine: (options?: { fix?: boolean }) => Promise<Report>;
  inFile: <T>(work: (sql: Database.Database) => T) => T;
}

async function startPatient(t: TestContext): Promise<Patient> {
  const its = await startTestApp(t, { cleansInBackground: false, env: { STOWAGE_STORE: "disk" } });
  const path = join(its.dataDir, "objects", "small.db");
  return {
    ...its,
    path,
    examine: ({ fix = false } = {}) => runDoctor({ config: its.config, log: silentLog, now: its.clock.now, fix }),
    inFile(work) {
      const sql = new Database(path, { timeout: 5_000 });
      try {
        return work(sql);
      } finally {
        sql.close();
      }
    },
  };
}

function find({ findings }: Report, check: string): Finding[] {
  return findings.filter((finding) => finding.check === check && finding.result !== "ok");
}

test("a sound file is said to be sound, with and without a server", async (t) => {
  const its = await startPatient(t);
  await its.confirmedUpload("hello");
  for (const isServed of [true, false]) {
    if (!isServed) await its.close();
    const report = await its.examine({ fix: true });
    assert.ok(report.isFine(), reportText(report));
    assert.ok(report.findings.some(({ check, result }) => check === "small objects" && result === "ok"));
  }
});

test("damage to the structure of the file is found", async (t) => {
  const its = await startPatient(t);
  for (let i = 0; i < 40; i++) await its.confirmedUpload(`${i}`.repeat(5_000));
  await its.close();
  const page = its.inFile((sql) =>
    Number(sql.prepare("SELECT rootpage FROM sqlite_schema WHERE name = 'bodies'").pluck().get()),
  );
  const before = readFileSync(its.path);
  const file = openSync(its.path, "r+");
  writeSync(file, Buffer.alloc(64, 0xff), 0, 64, (page - 1) * 4096);
  closeSync(file);
  const report = await its.examine();
  const [finding] = find(report, "small objects");
  assert.equal(finding?.result, "problem", reportText(report));
  assert.match(finding?.what ?? "", /fault|damaged/);
  assert.match(finding?.advice ?? "", /restore the newest backup/);
  writeFileSync(its.path, before);
  assert.deepEqual(find(await its.examine(), "small objects"), []);
});

test("a row without its bytes is a ghost, and nothing is removed while there is one", async (t) => {
  const its = await startPatient(t);
  for (let i = 0; i < 3; i++) await its.confirmedUpload(`sound ${i}`);
  const { id } = await its.confirmedUpload("hello");
  its.inFile((sql) => {
    sql.prepare("UPDATE bodies SET id = 1000 WHERE bytes = CAST('hello' AS BLOB)").run();
  });
  const report = await its.examine({ fix: true });
  const [broken, loose] = find(report, "small objects");
  assert.match(broken?.what ?? "", /^1 object has lost bytes/);
  assert.match(broken?.examples?.[0] ?? "", new RegExp(`${id}/.*: none of 5 bytes`));
  assert.match(loose?.what ?? "", /^5 bytes in 1 body of no object/);
  assert.match(loose?.advice ?? "", /^nothing is removed/);
  const [ghost] = find(report, "NO-GHOST");
  assert.deepEqual([ghost?.result, ghost?.count], ["problem", 1], reportText(report));
  assert.match(ghost?.examples?.[0] ?? "", new RegExp(id));
  its.inFile((sql) =>
    sql
      .prepare(
        "UPDATE bodies SET id = (SELECT body_id FROM objects WHERE body_id NOT IN (SELECT id FROM bodies)) WHERE id = 1000",
      )
      .run(),
  );
  assert.ok((await its.examine()).isFine());
});

test("bytes of no object are reported, and freed by --fix beside the server", async (t) => {
  const its = await startPatient(t);
  const { id } = await its.confirmedUpload("hello");
  its.inFile((sql) => sql.prepare("INSERT INTO bodies (bytes) VALUES (zeroblob(7))").run());
  const [told] = find(await its.examine(), "small objects");
  assert.deepEqual([told?.result, told?.what], ["problem", "7 bytes in 1 body of no object"]);
  assert.match(told?.advice ?? "", /--fix/);
  const [fixed] = find(await its.examine({ fix: true }), "small objects");
  assert.deepEqual([fixed?.result, fixed?.count], ["fixed", 1]);
  assert.ok((await its.examine()).isFine());
  const shown = await its.call("GET", `/api/v1/uploads/${id}`);
  assert.equal((await its.call("GET", shown.json.data.download_url)).text, "hello");
});

test("what to do about lost objects is told as it is for small ones, and a hint of SQLite's is not dropped", async (t) => {
  const its = await startPatient(t);
  for (let i = 0; i < 3; i++) await its.confirmedUpload(`sound ${i}`);
  await its.confirmedUpload("hello");
  await its.close();
  const before = readFileSync(its.path);
  its.inFile((sql) => sql.prepare("DELETE FROM objects WHERE size_bytes = 5").run());
  const [ghost] = find(await its.examine(), "NO-GHOST");
  assert.match(ghost?.advice ?? "", /up to 65536 bytes lie in objects\/small\.db/);
  assert.doesNotMatch(ghost?.advice ?? "", /bucket|S3/);
  writeFileSync(its.path, before);
  const file = openSync(its.path, "r+");
  writeSync(file, Buffer.alloc(8_000, 0xff), 0, 8_000, 100);
  closeSync(file);
  const findings = find(await its.examine(), "store");
  assert.equal(findings[0]?.result, "problem");
  assert.match(findings[0]?.what ?? "", /small objects|small\.db/);
  assert.match(findings[0]?.advice ?? "", /restore the newest backup/);
});
