import assert from "node:assert/strict";
import { copyFileSync, existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Database from "better-sqlite3";
import { openApp } from "../lib/app.ts";
import { DATABASE_FILE } from "../lib/db/db.ts";
import { silentLog, testClock, testConfig } from "./_app.ts";
import type { Load } from "./_crash_load.ts";
import { judge, readRows } from "./_crash_uploads.ts";
import { checkRaw, checkRawDrained, type RawStore, rawDiskStore } from "./_raw_store.ts";
import type { TestBucket } from "./_test_store.ts";

const TWO_DAYS_MS = 2 * 86_400_000;
const DISTRUST_MS = 3_600_000;

/** What a process leaves behind. */
export interface Place {
  dataDir: string;
  /** Null where the objects are files in the data directory. */
  bucket: TestBucket | null;
}

/** How often a kill met the service in the middle of something: shows that the moments are well chosen. */
export interface Met {
  /** Something was done, and its answer never came. */
  unanswered: number;
  /** A confirm was under way. */
  lease: number;
  /** A removal was under way. */
  taken: number;
  /** A PUT was under way. */
  halfWritten: number;
}

/**
 * Checks a data directory that a killed process left behind against everything that was ever answered. `strangers` are the
 * rows of creates that were not answered; new ones are added to it.
 */
export async function checkAfterKill(place: Place, load: Load, strangers: Set<string>, met?: Met): Promise<void> {
  const unansweredCreates = load.unansweredCreates();
  let changed = 0;
  await withCopy(place, async (sql, raw) => {
    assert.deepEqual(sql.pragma("integrity_check"), [{ integrity_check: "ok" }]);
    assert.deepEqual(sql.pragma("foreign_key_check"), []);
    await checkRaw(sql, raw);
    const objects = new Map((await raw.objects()).map((object) => [object.objectKey, object]));
    const rows = readRows(sql);
    for (const upload of load.uploads()) {
      if (await judge(upload, rows.get(upload.id), objects)) changed++;
      rows.delete(upload.id);
    }
    const unknown = [...rows.values()].filter(({ id }) => !strangers.has(id));
    assert.ok(unknown.length <= unansweredCreates, `${unknown.length} rows of ${unansweredCreates} unanswered creates`);
    for (const { id } of unknown) strangers.add(id);
    assert.ok([...rows.values()].every(({ status }) => status === "pending"));

    if (met === undefined) return;
    const { leases, taken } = sql
      .prepare<[], { leases: number; taken: number }>(`
        SELECT count(*) FILTER (WHERE again_at_ms > due_at_ms AND due_at_ms > 0) AS leases, count(taken_at_ms) AS taken
          FROM object_removals WHERE object_key LIKE 'final/%'`)
      .get() ?? { leases: 0, taken: 0 };
    met.unanswered += Math.sign(changed + unknown.length);
    met.lease += Math.sign(leases);
    met.taken += Math.sign(taken);
    met.halfWritten += Math.sign(raw.halfWritten().length);
  });
}

/**
 * Opens the data directory with the clock two days on, and lets the cleaner do all that is left: no entry remains, and the
 * files are exactly the confirmed ones.
 */
export async function checkTwoDaysOn(place: Place, load: Load, strangers: Set<string>): Promise<void> {
  const { dataDir, bucket } = place;
  const clock = testClock();
  clock.advance(TWO_DAYS_MS);
  const app = await openApp({
    ...{ config: testConfig(dataDir, bucket?.env), log: silentLog, cleansInBackground: false },
    ...(bucket === null ? {} : { s3: { now: () => Date.now() } }),
    now: clock.now,
    monotonicNow: clock.monotonicNow,
    onFatal: (error) => assert.fail(String(error)),
  });
  try {
    // After a start so long after the last the clock is not trusted before an hour is over.
    await app.cleaner.runOnce();
    clock.advance(DISTRUST_MS);
    for (let pass = 0; pass < 3; pass++) await app.cleaner.runOnce();
  } finally {
    await app.close();
  }
  for (const upload of load.uploads()) if (upload.state === "pending") upload.state = "deleted";
  strangers.clear();
  await withCopy(place, checkRawDrained);
  await checkAfterKill(place, load, strangers);
  load.forgetDeleted();
}

/** A copy, so that the log that a killed process left is still there for the next process to recover. */
async function withCopy(
  { dataDir, bucket }: Place,
  look: (sql: Database.Database, raw: RawStore) => Promise<void>,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "stowage-test-"));
  try {
    for (const suffix of ["", "-wal"]) {
      const path = join(dataDir, DATABASE_FILE + suffix);
      if (existsSync(path)) copyFileSync(path, join(folder, DATABASE_FILE + suffix));
    }
    const sql = new Database(join(folder, DATABASE_FILE));
    try {
      await look(sql, bucket?.raw ?? rawDiskStore(dataDir, sql));
    } finally {
      sql.close();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
