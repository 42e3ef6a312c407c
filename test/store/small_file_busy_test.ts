// Goal: another process that holds the file of small objects is told apart from one that holds the database, and holds up the
// giving back of room for as long as it is there and no longer.
import assert from "node:assert/strict";
import { statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import Database from "better-sqlite3";
import { checkLogs } from "../../lib/doctor/log.ts";
import { createReport } from "../../lib/doctor/report.ts";
import { SMALL_BYTES_MAX } from "../../lib/store/disk/small_objects.ts";
import { afterwards } from "../help/db.ts";
import { openTestStore, uncounted } from "../help/disk_store.ts";
import { collectLog } from "../help/s3_servers.ts";
import { until } from "../help/until.ts";

test("room is given back once another process lets the file go, without another write", async (t) => {
  const s = await openTestStore(t, { staging: uncounted((objectKey) => objectKey) });
  const keys = Array.from({ length: 100 }, s.newPendingKey);
  await Promise.all(keys.map((key) => s.put(key, Buffer.alloc(SMALL_BYTES_MAX))));
  await s.store.remove(keys);
  const other = new Database(join(s.objectsDir, "small.db"));
  afterwards(t, () => void other.close());
  other.exec("BEGIN IMMEDIATE");
  // Longer than it takes until the room is to be given back.
  await delay(1_500);
  other.exec("COMMIT");
  await until(() => statSync(join(s.objectsDir, "small.db")).size < 2 * 1024 ** 2, "the file has become small");
});

test("a write that waits too long for another process says which file is busy", async (t) => {
  const { log, events } = collectLog();
  const s = await openTestStore(t, { log });
  const key = s.newPendingKey();
  await s.put(key, "x");
  const other = new Database(join(s.objectsDir, "small.db"));
  afterwards(t, () => void other.close());
  other.exec("BEGIN IMMEDIATE");
  await assert.rejects(s.store.remove([key]), {
    message: "The file of small objects is busy with another process: retry",
  });
  assert.ok(events.some(({ msg, fields }) => msg === "database_busy" && fields.file === "The file of small objects"));
  other.exec("ROLLBACK");
  assert.deepEqual(await s.store.remove([key]), new Map());
});

test("doctor reports a log of the small objects' file that has grown", async (t) => {
  const s = await openTestStore(t);
  await s.store.close();
  const log = join(s.objectsDir, "small.db-wal");
  writeFileSync(log, "");
  truncateSync(log, 65 * 1024 ** 2);
  const report = createReport();
  checkLogs(report, join(s.objectsDir, ".."), null);
  assert.deepEqual(
    report.findings.map(({ result }) => result),
    ["problem"],
  );
  assert.match(report.findings[0]?.what ?? "", /^the log of the file of small objects has grown/);
});
