import assert from "node:assert/strict";
import {
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import Database from "better-sqlite3";
import { DATABASE_FILE } from "../lib/db/db.ts";
import { checkIntegrity } from "../lib/doctor/database.ts";
import { runDoctor } from "../lib/doctor/doctor.ts";
import { createReport, type Finding, type Report, reportJson, reportText } from "../lib/doctor/report.ts";
import type { ListedObject, ObjectStore } from "../lib/store/objects.ts";
import { silentLog, startTestApp, type TestApp } from "./_app.ts";
import { checkBooks, rawPathOf } from "./_books.ts";
import { startFaultProxy } from "./_fault_proxy.ts";
import { initProgram, runProgram, serveProgram } from "./_process.ts";
import { useS3Server } from "./_s3_servers.ts";

const HOUR_MS = 3_600_000;
/** The URLs' life by default, and a day and an hour. */
const GRACE_MS = 900_000 + 25 * HOUR_MS;

interface Patient extends TestApp {
  examine: (options?: { fix?: boolean; wrapStore?: (objects: ObjectStore) => ObjectStore }) => Promise<Report>;
  installationId: string;
  keyOf: (id: string) => string;
  /** Puts a file where the store keeps such an object, so old that it cannot be under way. */
  addOrphan: (place: "staging" | "final", number: number, ageMs?: number) => string;
  entries: () => string[];
}

async function startPatient(t: TestContext, env: Record<string, string> = {}): Promise<Patient> {
  const its = await startTestApp(t, { cleansInBackground: false, env });
  const { app, config, clock, sql, dataDir } = its;
  await app.cleaner.runOnce();
  const installationId = app.core.workspaces.installationId();

  function addOrphan(place: "staging" | "final", number: number, ageMs = GRACE_MS + 60_000): string {
    const id = `0190a000-0000-7000-8000-${String(number).padStart(12, "0")}`;
    const key = `${place}/${installationId}/${id}/${"a".repeat(32)}`;
    const path = rawPathOf(dataDir, key);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, "orphan");
    const seconds = (Date.now() - ageMs) / 1_000;
    utimesSync(path, seconds, seconds);
    return key;
  }

  return {
    ...its,
    installationId,
    addOrphan,
    keyOf: (id) => String(sql.prepare("SELECT object_key FROM uploads WHERE id = ?").pluck().get(id)),
    entries: () => sql.prepare<[], string>("SELECT object_key FROM object_removals ORDER BY seq").pluck().all(),
    examine: ({ fix = false, ...options } = {}) =>
      runDoctor({ config, log: silentLog, now: clock.now, fix, ...options }),
  };
}

function find({ findings }: Report, check: string): Finding[] {
  return findings.filter((finding) => finding.check === check && finding.result !== "ok");
}

function only(report: Report, check: string): Finding {
  const found = find(report, check);
  assert.equal(found.length, 1, reportText(report));
  return found[0] as Finding;
}

async function confirmMany(its: TestApp, count: number): Promise<string[]> {
  const ids: string[] = [];
  for (let i = 0; i < count; i++) ids.push((await its.confirmedUpload(`file ${i}`)).id);
  return ids;
}

test("a sound installation is fine, looked at while it serves, and nothing is changed", async (t) => {
  const its = await startPatient(t);
  await confirmMany(its, 3);
  await its.createUpload();
  const before = its.sql.serialize();
  for (const fix of [false, true]) {
    const report = await its.examine({ fix });
    assert.equal(report.isFine(), true, reportText(report));
    assert.deepEqual(
      report.findings.filter(({ result }) => result !== "ok"),
      [],
    );
    assert.deepEqual(reportJson(report), {
      fine: true,
      problems: 0,
      fixed: 0,
      unknown: 0,
      notes: 0,
      findings: report.findings,
    });
  }
  assert.ok(before.equals(its.sql.serialize()));
});

test("NO-ORPHAN: objects that nothing names are reported, and only with --fix entered; the server removes them", async (t) => {
  const its = await startPatient(t);
  await confirmMany(its, 2);
  const orphans = [its.addOrphan("staging", 1), its.addOrphan("final", 2), its.addOrphan("final", 3)];
  const young = its.addOrphan("final", 4, GRACE_MS - 60_000);
  await its.app.cleaner.runOnce();
  const before = its.entries();

  const dry = await its.examine();
  const { result, count, examples, advice } = only(dry, "NO-ORPHAN");
  assert.deepEqual([result, count, dry.isFine()], ["problem", 3, false]);
  assert.deepEqual(
    examples,
    orphans.map((key) => `${key} (6 bytes)`),
  );
  assert.match(advice ?? "", /doctor --fix/);
  assert.deepEqual(its.entries(), before, "a dry run enters nothing");

  const fixed = await its.examine({ fix: true });
  assert.equal(only(fixed, "NO-ORPHAN").result, "fixed");
  assert.equal(fixed.isFine(), true);
  assert.deepEqual(its.entries(), [...before, ...orphans]);
  const isThere = (key: string): boolean => readdirSync(dirname(rawPathOf(its.dataDir, key))).length > 0;
  assert.ok(orphans.every(isThere), "doctor itself removes nothing");
  await its.app.cleaner.runOnce();
  assert.ok(isThere(young));
  assert.equal((await its.examine()).isFine(), true);
});

test("an object is no orphan while a row names it or the outbox holds it, however old it is", async (t) => {
  const its = await startPatient(t);
  const [deleted = "", kept = ""] = await confirmMany(its, 2);
  const pending = await its.createUpload();
  await its.put(pending.uploadUrl, "pending");
  await its.call("DELETE", `/api/v1/uploads/${deleted}`);
  its.sql.exec("UPDATE object_removals SET due_at_ms = 9e15");
  for (const id of [kept, pending.id]) utimesSync(rawPathOf(its.dataDir, its.keyOf(id)), 1, 1);
  for (const key of its.entries()) utimesSync(rawPathOf(its.dataDir, key), 1, 1);
  assert.deepEqual(find(await its.examine(), "NO-ORPHAN"), []);
});

test("NO-GHOST: confirmed uploads whose object is missing or of another size are reported and never deleted", async (t) => {
  const its = await startPatient(t);
  const [missing = "", shorter = "", touched = ""] = await confirmMany(its, 5);
  rmSync(rawPathOf(its.dataDir, its.keyOf(missing)));
  truncateSync(rawPathOf(its.dataDir, its.keyOf(shorter)), 2);
  utimesSync(rawPathOf(its.dataDir, its.keyOf(touched)), 1, 1);
  const before = its.sql.prepare("SELECT * FROM uploads ORDER BY id").all();
  const report = await its.examine({ fix: true });
  const [ghost, size, etag] = find(report, "NO-GHOST");
  assert.deepEqual([ghost?.result, ghost?.count], ["problem", 1]);
  assert.deepEqual(ghost?.examples, [`${missing} (${its.keyOf(missing)}, 6 bytes)`]);
  assert.deepEqual([size?.result, size?.count], ["problem", 1]);
  assert.match(size?.examples?.[0] ?? "", new RegExp(`^${shorter} has 2 bytes, 6 were charged`));
  assert.deepEqual([etag?.result, etag?.count], ["note", 1]);
  assert.match(etag?.examples?.[0] ?? "", new RegExp(`^${touched} `));
  assert.deepEqual(its.sql.prepare("SELECT * FROM uploads ORDER BY id").all(), before);
  assert.match(
    reportText(report),
    /^problem {2}NO-GHOST .*1 confirmed upload without an object\n.*0[0-9a-f-]{35} .*\n +do: restore/m,
  );
});

test("what changes beside doctor is not mistaken for a fault", async (t) => {
  const its = await startPatient(t);
  const ids = await confirmMany(its, 4);
  const comes = await its.createUpload();
  await its.put(comes.uploadUrl, "comes meanwhile");
  const comesAndGoes = await its.createUpload();
  await its.put(comesAndGoes.uploadUrl, "comes and goes");
  const deleteNow = async (id: string | undefined): Promise<void> => {
    assert.equal((await its.call("DELETE", `/api/v1/uploads/${id}`)).status, 200);
    await its.app.cleaner.runOnce();
  };
  let listings = 0;
  let goingKey = "";
  const report = await its.examine({
    wrapStore: (objects) => ({
      ...objects,
      async *list(prefix) {
        const listed: ListedObject[] = [];
        for await (const object of objects.list(prefix)) listed.push({ ...object, modifiedAtMs: 1 });
        if (++listings === 2) {
          // Between the listing and the look at the rows.
          await deleteNow(ids[1]);
          for (const { id } of [comes, comesAndGoes]) assert.equal((await its.confirm(id)).status, 200);
          goingKey = its.keyOf(comesAndGoes.id);
        }
        yield* listed;
      },
      async stat(key) {
        // Between the look at the row and the second look at the object.
        if (key === goingKey) await deleteNow(comesAndGoes.id);
        return await objects.stat(key);
      },
    }),
  });
  assert.equal(its.entries().includes(goingKey) || goingKey === "", false);
  assert.deepEqual([...find(report, "NO-ORPHAN"), ...find(report, "NO-GHOST")], []);
  assert.match(report.findings.find(({ check }) => check === "NO-GHOST")?.what ?? "", /^4 confirmed uploads/);
});

test("BOOKS: uploads that differ from counter and ledger are adjusted through the schema, with --fix only", async (t) => {
  const its = await startPatient(t);
  const [gone = ""] = await confirmMany(its, 3);
  const trigger = its.sql.prepare("SELECT sql FROM sqlite_schema WHERE name = 'uploads_release'").pluck().get();
  its.sql.exec("DROP TRIGGER uploads_release");
  its.sql.prepare("DELETE FROM uploads WHERE id = ?").run(gone);
  its.sql.exec(String(trigger));
  const dry = only(await its.examine(), "BOOKS");
  assert.equal(dry.result, "problem");
  assert.deepEqual(dry.examples, [`${its.owner.workspaceId}: counter 18, ledger 18, last balance 18, uploads 12`]);
  const fixed = await its.examine({ fix: true });
  assert.equal(only(fixed, "BOOKS").result, "fixed");
  const last = its.sql.prepare("SELECT kind, bytes, balance_bytes FROM storage_events ORDER BY seq DESC").get();
  assert.deepEqual(last, { kind: "adjust", bytes: -6, balance_bytes: 12 });
  assert.deepEqual(find(await its.examine(), "BOOKS"), []);
});

test("BOOKS: a ledger that contradicts itself is reported and left alone", async (t) => {
  const its = await startPatient(t);
  await confirmMany(its, 2);
  its.sql.exec("DROP TRIGGER workspaces_counter_follows_ledger; UPDATE workspaces SET storage_bytes_used = 5");
  const found = only(await its.examine({ fix: true }), "BOOKS");
  assert.equal(found.result, "problem");
  assert.match(found.examples?.[0] ?? "", /counter 5, ledger 12, last balance 12, uploads 12/);
  assert.match(found.advice ?? "", /Restore the newest backup/);
  assert.equal(its.sql.prepare("SELECT count(*) FROM storage_events WHERE kind = 'adjust'").pluck().get(), 0);
});

test("the outbox: removals that fail, and removals that nobody makes", async (t) => {
  const its = await startPatient(t);
  const [id = ""] = await confirmMany(its, 1);
  await its.app.cleaner.runOnce();
  await its.call("DELETE", `/api/v1/uploads/${id}`);
  assert.deepEqual(find(await its.examine(), "outbox"), []);
  its.clock.advance(2 * HOUR_MS);
  const waits = only(await its.examine(), "outbox");
  assert.match(waits.what, /could be removed, the oldest for 2 hours$/);
  its.sql.exec("UPDATE object_removals SET attempts = 3, last_error = 'it is locked', due_at_ms = 9e15");
  const [fails, stillWaits] = find(await its.examine(), "outbox").filter(({ result }) => result === "problem");
  assert.equal(stillWaits?.what, waits.what, "it could have been removed all the same");
  assert.match(fails?.examples?.[0] ?? "", /: 3 attempts, it is locked$/);
  checkBooks(its.sql);
});

test("accident: a prefix that also matches uploads2/, or another installation", async (t) => {
  const its = await startPatient(t);
  await confirmMany(its, 1);
  const upload = `0190a000-0000-7000-8000-000000000001/${"a".repeat(32)}`;
  const theirs = [
    `final/${its.installationId}2/${upload}`,
    `final/0123456789abcdef/${upload}`,
    `final2/${its.installationId}/${upload}`,
  ];
  const strange = `final/${its.installationId}/notes.txt`;
  const report = await its.examine({
    fix: true,
    wrapStore: (objects) => ({
      ...objects,
      async *list(prefix) {
        assert.match(prefix, /^(staging|final)\/[0-9a-f]{16}\/$/, "a prefix ends in a slash");
        for (const objectKey of [...theirs, strange]) yield { objectKey, sizeBytes: 1, etag: '"x"', modifiedAtMs: 1 };
        yield* objects.list(prefix);
      },
      stat: async (key) =>
        [...theirs, strange].includes(key) ? { sizeBytes: 1, etag: '"x"' } : await objects.stat(key),
    }),
  });
  assert.deepEqual(find(report, "NO-ORPHAN"), []);
  assert.deepEqual(
    its.entries().filter((key) => theirs.includes(key) || key === strange),
    [],
  );
  const note = only(report, "store");
  assert.deepEqual([note.result, note.examples], ["note", [strange]]);
});

test("accident: a listing cut off at its first page, by a server or a proxy that says it is whole", async (t) => {
  const server = await useS3Server(t, "minio");
  if (server === null) return;
  const proxy = await startFaultProxy(t, server.endpoint);
  const its = await startPatient(t, {
    STOWAGE_STORE: "s3",
    STOWAGE_S3_ENDPOINT: proxy.url,
    STOWAGE_S3_PUBLIC_ENDPOINT: server.endpoint,
    STOWAGE_S3_BUCKET: server.newBucketName(),
    STOWAGE_S3_ACCESS_KEY: server.accessKey,
    STOWAGE_S3_SECRET_KEY: server.secretKey,
  });
  await confirmMany(its, 4);
  const sound = await its.examine();
  const surprises = sound.findings.filter(({ result, check }) => result !== "ok" && check !== "settings");
  assert.deepEqual(surprises, [], "the ledger's marker lies among the objects, and is none");
  const fault = proxy.setFault({
    kind: "rewrite",
    match: { query: /list-type=2.*prefix=final/ },
    change: (answer) => {
      const pieces = answer.body.toString().split("<Contents>");
      const last = pieces.at(-1)?.split("</Contents>").at(-1) ?? "";
      return { ...answer, body: Buffer.from(`${pieces.slice(0, 3).join("<Contents>")}${last}`) };
    },
  });
  const report = await its.examine({ fix: true });
  assert.ok(fault.hits() > 0);
  assert.deepEqual(find(report, "NO-GHOST"), [], "nothing is concluded from such a listing");
  const found = only(report, "NO-ORPHAN");
  assert.equal(found.result, "unknown");
  assert.match(found.what, /does not list it: its listing ends too early$/);
  assert.equal(report.isFine(), false);
});

test("accident: a listing out of order is not compared", async (t) => {
  const its = await startPatient(t);
  await confirmMany(its, 3);
  const report = await its.examine({
    fix: true,
    wrapStore: (objects) => ({
      ...objects,
      async *list(prefix) {
        const listed: ListedObject[] = [];
        for await (const object of objects.list(prefix)) listed.push(object);
        yield* listed.reverse();
      },
    }),
  });
  assert.match(only(report, "NO-ORPHAN").what, /does not list its keys in order$/);
  assert.deepEqual(find(report, "NO-GHOST"), []);
});

test("accident: a wrong or empty bucket is not a ghost for each upload, and nothing is fixed from it", async (t) => {
  const its = await startPatient(t);
  await confirmMany(its, 3);
  const orphan = its.addOrphan("final", 1);
  const report = await its.examine({
    fix: true,
    wrapStore: (objects) => {
      const isThere = (key: string): boolean => key === orphan;
      return {
        ...objects,
        async *list(prefix) {
          for await (const object of objects.list(prefix)) if (isThere(object.objectKey)) yield object;
        },
        stat: async (key) => (isThere(key) ? await objects.stat(key) : null),
      };
    },
  });
  const found = only(report, "NO-GHOST");
  assert.match(found.what, /^none of 3 confirmed uploads has its object here: is this the wrong bucket or folder\?$/);
  assert.equal(found.examples, undefined);
  assert.match(
    only(report, "NO-ORPHAN").advice ?? "",
    /^nothing is entered for removal, because 3 of 3 confirmed uploads/,
  );
  assert.ok(!its.entries().includes(orphan));
});

test("accident: a restored old database takes today's objects for orphans; nothing is fixed", async (t) => {
  const its = await startPatient(t);
  await confirmMany(its, 1);
  await its.app.cleaner.runOnce();
  const orphan = its.addOrphan("final", 1);
  const marker = join(its.dataDir, "objects", "ledger-marker");
  writeFileSync(
    marker,
    JSON.stringify({ ...JSON.parse(readFileSync(marker, "utf8")), ledger_seq: 7, event_sha256: "x" }),
  );
  const report = await its.examine({ fix: true });
  assert.match(
    only(report, "ledger marker").what,
    /older than the store: the ledger ends at 1, the store has seen it at 7$/,
  );
  assert.match(only(report, "NO-ORPHAN").advice ?? "", /because the database is older than the store$/);
  assert.ok(!its.entries().includes(orphan));
});

test("accident: a clock that is off makes young objects look old; nothing is fixed", async (t) => {
  const its = await startPatient(t);
  await confirmMany(its, 1);
  const young = its.addOrphan("final", 1, HOUR_MS);
  its.clock.setBy(GRACE_MS);
  const report = await its.examine({ fix: true });
  assert.match(only(report, "clock").what, /^the store's clock is \d+ s behind this machine's$/);
  assert.match(only(report, "NO-ORPHAN").advice ?? "", /because the clocks differ/);
  assert.ok(!its.entries().includes(young));
});

test("accident: more than a few percent would go; nothing is fixed", async (t) => {
  const its = await startPatient(t);
  await confirmMany(its, 20);
  const orphans = Array.from({ length: 11 }, (_, i) => its.addOrphan("final", i));
  const report = await its.examine({ fix: true });
  assert.match(only(report, "NO-ORPHAN").advice ?? "", /because 11 of 31 objects would go, more than 5 percent$/);
  assert.ok(orphans.every((key) => !its.entries().includes(key)));
});

test("a store that does not answer is a finding with what to do, and the database is looked at all the same", async (t) => {
  const its = await startPatient(t, {
    STOWAGE_STORE: "s3",
    STOWAGE_S3_ENDPOINT: "http://127.0.0.1:9",
    STOWAGE_S3_ACCESS_KEY: "a",
    STOWAGE_S3_SECRET_KEY: "b",
  });
  const report = await its.examine();
  assert.match(only(report, "store").what, /ECONNREFUSED/);
  assert.equal(report.findings.find(({ check }) => check === "BOOKS")?.result, "ok");
  assert.equal(report.isFine(), false);
});

test("a bucket that is missing is reported, and not made", async (t) => {
  const server = await useS3Server(t, "minio");
  if (server === null) return;
  const { dataDir } = await initProgram(t);
  const env = {
    STOWAGE_DATA_DIR: dataDir,
    STOWAGE_STORE: "s3",
    STOWAGE_S3_ENDPOINT: server.endpoint,
    STOWAGE_S3_BUCKET: server.newBucketName(),
    STOWAGE_S3_ACCESS_KEY: server.accessKey,
    STOWAGE_S3_SECRET_KEY: server.secretKey,
  };
  for (let round = 0; round < 2; round++) {
    const { exitCode, stdout } = await runProgram(t, ["doctor"], env);
    assert.equal(exitCode, 1);
    assert.match(stdout, /^problem +store +.*NoSuchBucket/m);
    assert.match(stdout, /do: check STOWAGE_S3_BUCKET/);
  }
});

test("settings and files that are valid and yet seldom meant", async (t) => {
  const its = await startPatient(t, {
    STOWAGE_PUBLIC_URL: "http://files.example.com",
    STOWAGE_CORS_ORIGINS: "*",
  });
  chmodSync(join(its.dataDir, "url_signing.key"), 0o644);
  const report = await its.examine();
  assert.deepEqual(
    find(report, "settings").map(({ result }) => result),
    ["note", "note"],
  );
  const { what, advice } = only(report, "files");
  assert.match(what, /^others may use ".*url_signing\.key" \(mode 644\)$/);
  assert.match(advice ?? "", /^chmod go= ".*url_signing\.key"$/);
});

test("a damaged database and one of another version are findings, not crashes", async (t) => {
  const { dataDir } = await initProgram(t);
  const env = { STOWAGE_DATA_DIR: dataDir };
  const path = join(dataDir, DATABASE_FILE);
  const sql = new Database(path);
  sql.pragma("user_version = 99");
  const newer = await runProgram(t, ["doctor"], env);
  assert.equal(newer.exitCode, 1);
  assert.match(newer.stdout, /^problem +opening +Cannot open database .* is newer than this program's/m);
  sql.close();
  writeFileSync(path, "not a database at all ".repeat(1_000));
  const damaged = await runProgram(t, ["doctor", "--json"], env);
  assert.equal(damaged.exitCode, 1, damaged.stderr);
  const findings: Finding[] = JSON.parse(damaged.stdout).findings;
  assert.equal(findings.find(({ check }) => check === "opening")?.result, "problem");
});

test("a large file is not checked beside a server, whose log would grow meanwhile", () => {
  const checked: number[] = [];
  for (const [fileBytes, isServed] of [
    [2 ** 29, true],
    [2 ** 29 + 1, true],
    [2 ** 40, false],
  ] as const) {
    const report = createReport();
    const queries = {
      fileBytes: () => fileBytes,
      integrityErrors: () => {
        checked.push(fileBytes);
        return [];
      },
    };
    assert.equal(checkIntegrity(report, queries, { isServed }), true);
    const [found] = report.findings;
    assert.equal(found?.result, checked.includes(fileBytes) ? "ok" : "note");
  }
  assert.deepEqual(checked, [2 ** 29, 2 ** 40]);
});

test("rows that point nowhere are found", async (t) => {
  const its = await startPatient(t);
  its.sql.pragma("foreign_keys = OFF");
  its.sql.exec("DELETE FROM users");
  const found = only(await its.examine(), "database file");
  assert.match(found.examples?.[0] ?? "", /^a row of \w+ has no row in users$/);
});

test("the command runs beside a server: 0 where all is fine, 1 where not, 2 for wrong usage", async (t) => {
  const { dataDir, made } = await initProgram(t);
  const env = { STOWAGE_DATA_DIR: dataDir };
  const server = await serveProgram(t, dataDir);
  const fine = await runProgram(t, ["doctor"], env);
  assert.deepEqual([fine.exitCode, fine.stderr], [0, ""]);
  assert.match(fine.stdout, /\n0 problems\n$/);
  chmodSync(join(dataDir, "serve.lock"), 0o640);
  const json = await runProgram(t, ["doctor", "--json"], env);
  assert.deepEqual([json.exitCode, json.stderr], [1, ""]);
  assert.deepEqual([JSON.parse(json.stdout).fine, JSON.parse(json.stdout).problems], [false, 1]);
  for (const args of [["--fix", "--accept-older-database"], ["--yes"], ["--fixx"]]) {
    assert.equal((await runProgram(t, ["doctor", ...args], env)).exitCode, 2, args.join(" "));
  }
  const { status } = await server.call("GET", "/api/v1/uploads", { key: made.api_key });
  assert.equal(status, 200);
});
