import assert from "node:assert/strict";
import { copyFileSync, existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Database from "better-sqlite3";
import { openApp } from "../lib/app.ts";
import { DATABASE_FILE } from "../lib/db.ts";
import { silentLog, testClock, testConfig } from "./_app.ts";
import { checkAll, checkDrained, rawTemporaryFiles } from "./_books.ts";
import type { Load } from "./_crash_load.ts";
import { judge, readRows } from "./_crash_uploads.ts";

const TWO_DAYS_MS = 2 * 86_400_000;

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
export function checkAfterKill(dataDir: string, load: Load, strangers: Set<string>, met?: Met): void {
  const unansweredCreates = load.unansweredCreates();
  let changed = 0;
  withCopy(dataDir, (sql) => {
    assert.deepEqual(sql.pragma("integrity_check"), [{ integrity_check: "ok" }]);
    assert.deepEqual(sql.pragma("foreign_key_check"), []);
    checkAll(sql, dataDir);
    const rows = readRows(sql);
    for (const upload of load.uploads()) {
      if (judge(upload, rows.get(upload.id), dataDir)) changed++;
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
    met.halfWritten += Math.sign(rawTemporaryFiles(dataDir).length);
  });
}

/**
 * Opens the data directory with the clock two days on, and lets the cleaner do all that is left: no entry remains, and the
 * files are exactly the confirmed ones.
 */
export async function checkTwoDaysOn(dataDir: string, load: Load, strangers: Set<string>): Promise<void> {
  const clock = testClock();
  clock.advance(TWO_DAYS_MS);
  const app = await openApp({
    ...{ config: testConfig(dataDir), log: silentLog, cleansInBackground: false },
    now: clock.now,
    monotonicNow: clock.monotonicNow,
    onFatal: (error) => assert.fail(String(error)),
  });
  try {
    for (let pass = 0; pass < 3; pass++) await app.cleaner.runOnce();
  } finally {
    await app.close();
  }
  for (const upload of load.uploads()) if (upload.state === "pending") upload.state = "deleted";
  strangers.clear();
  withCopy(dataDir, (sql) => checkDrained(sql, dataDir));
  checkAfterKill(dataDir, load, strangers);
  load.forgetDeleted();
}

/** A copy, so that the log that a killed process left is still there for the next process to recover. */
function withCopy(dataDir: string, look: (sql: Database.Database) => void): void {
  const folder = mkdtempSync(join(tmpdir(), "stowage-test-"));
  try {
    for (const suffix of ["", "-wal"]) {
      const path = join(dataDir, DATABASE_FILE + suffix);
      if (existsSync(path)) copyFileSync(path, join(folder, DATABASE_FILE + suffix));
    }
    const sql = new Database(join(folder, DATABASE_FILE));
    try {
      look(sql);
    } finally {
      sql.close();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
