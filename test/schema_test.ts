import assert from "node:assert/strict";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, type TestContext, test } from "node:test";
import Database from "better-sqlite3";
import { type Books, brokenRules, readBooks } from "./_books_check.ts";
import { makeSeededFile } from "./_books_seed.ts";
import { type HostileStatement, hostileStatements } from "./_hostile_statements.ts";
import { skipLoudly } from "./_loud_skip.ts";
import { commandLineShell, ownShell, pythonShell, type ShellJob, type SqliteShell } from "./_sqlite_shells.ts";

// Goal: no SQL typed by hand breaks BOOKS, ONCE, ROW-FIRST or NO-ORPHAN, whichever SQLite it is typed into.
// Method: each statement on its own copy of a seeded file, and all of them on one file; after each, the raw file is
// checked by SQL that shares nothing with schema.sql.

const HOW_TO_GET_A_SHELL = "install SQLite 3.37 or newer (Debian: apt-get install sqlite3), or Python 3";

function temporaryFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "stowage-schema-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

function withFile<T>(path: string, look: (db: Database.Database) => T): T {
  const db = new Database(path, { readonly: true });
  try {
    return look(db);
  } finally {
    db.close();
  }
}

function job({ sql, attached }: HostileStatement, file: string): ShellJob {
  const open = attached ? ":memory:" : file;
  const attach = attached ? `ATTACH '${file}' AS s;` : "";
  // Nothing here is about power loss, and an fsync for each of a thousand statements takes most of the time.
  return { file, open, sql: `${attach} PRAGMA synchronous = OFF; ${sql};` };
}

/** What one statement did that it should not have done; empty if all is well. */
function complaints(statement: HostileStatement, error: string | null, file: string, was: Books): string[] {
  const found: string[] = [];
  if (statement.refused === undefined && error !== null) found.push(`refused, though it is harmless: ${error}`);
  if (statement.refused !== undefined && error === null) found.push(`passed, expected: ${statement.refused}`);
  if (statement.refused !== undefined && error !== null && !new RegExp(statement.refused).test(error)) {
    found.push(`refused with ${error}, expected: ${statement.refused}`);
  }
  const keys = new Set([...was.keys, ...(statement.named ?? [])]);
  withFile(file, (db) => {
    const now = readBooks(db);
    found.push(...brokenRules(db, { ...was, keys }, now));
    const hasChanged = now.rows !== was.rows;
    if (hasChanged !== statement.changes) found.push(hasChanged ? "rows changed" : "nothing changed");
    if (statement.shows !== undefined && db.prepare(statement.shows).pluck().get() !== 1) {
      found.push(`does not show: ${statement.shows}`);
    }
  });
  return found;
}

function eachOnItsOwn(t: TestContext, shell: SqliteShell): void {
  const folder = temporaryFolder(t);
  const seeded = join(folder, "seeded.db");
  const statements = hostileStatements(makeSeededFile(seeded));
  const was = withFile(seeded, readBooks);
  const jobs = statements.map((statement, i) => {
    const file = join(folder, `${i}.db`);
    copyFileSync(seeded, file);
    return job(statement, file);
  });
  const errors = shell.run(jobs);
  const problems = statements.flatMap((statement, i) => {
    const found = complaints(statement, errors[i] ?? null, jobs[i]?.file ?? "", was);
    return found.length === 0 ? [] : [`${statement.sql}\n    ${found.join("\n    ")}`];
  });
  assert.deepEqual(problems, [], `${problems.length} of ${statements.length} statements:\n${problems.join("\n")}\n`);
}

function allOnOneFile(t: TestContext, shell: SqliteShell, backwards: boolean): void {
  const folder = temporaryFolder(t);
  const file = join(folder, "stowage.db");
  const statements = hostileStatements(makeSeededFile(file));
  if (backwards) statements.reverse();
  let was = withFile(file, readBooks);
  const jobs = statements.map((statement, i) => ({ ...job(statement, file), keep: join(folder, `${i}.db`) }));
  shell.run(jobs);
  for (const [i, { keep }] of jobs.entries()) {
    withFile(keep, (db) => {
      const now = readBooks(db);
      assert.deepEqual(brokenRules(db, was, now), [], statements[i]?.sql);
      was = now;
    });
  }
}

const typedByHand = [commandLineShell, pythonShell];

test("a SQLite that is not ours is at hand to type hostile SQL into", (t) => {
  const versions = typedByHand.map((shell) => shell.version());
  if (versions.every((version) => version === null)) {
    skipLoudly(t, "There is neither a sqlite3 command nor a Python with SQLite 3.37 or newer", HOW_TO_GET_A_SHELL);
  }
});

for (const shell of [...typedByHand, ownShell]) {
  const version = shell.version();
  describe(`hostile SQL typed into ${shell.name} ${version ?? "(not here)"}`, { skip: version === null }, () => {
    test("each statement is refused, or leaves the books true", (t) => eachOnItsOwn(t, shell));
    // Both orders, but not in every shell: a thousand checked files are enough.
    const backwards = shell === pythonShell;
    const order = backwards ? "last first" : "first to last";
    test(`all of them on one file, ${order}, leave the books true after each`, (t) =>
      allOnOneFile(t, shell, backwards));
  });
}

describe("the check itself", () => {
  let folder = "";
  let seeded = "";
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "stowage-schema-"));
    seeded = join(folder, "seeded.db");
    makeSeededFile(seeded);
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  // Without the triggers each of these breaks one rule: a check that stayed silent here would prove nothing above.
  const breaks: [rule: string, sql: string][] = [
    ["the counter is not the sum of the ledger", "UPDATE workspaces SET storage_bytes_used = storage_bytes_used + 1"],
    ["the counter is not the sum of the confirmed sizes", "UPDATE uploads SET size_bytes = 1 WHERE size_bytes = 300"],
    ["the counter is not the last balance", "UPDATE storage_events SET balance_bytes = 7"],
    ["a balance is not the sum up to it", "UPDATE storage_events SET balance_bytes = 7 WHERE seq = 1"],
    ["below zero", "UPDATE uploads SET size_bytes = -1 WHERE size_bytes = 300"],
    ["of no workspace", "UPDATE storage_events SET workspace_id = 'x' WHERE seq = 1"],
    [
      "charged or released twice",
      "INSERT INTO storage_events SELECT seq + 99, workspace_id, upload_id, kind, bytes, balance_bytes, at_ms FROM storage_events WHERE seq = 1",
    ],
    ["a release without its charge", "UPDATE storage_events SET upload_id = 'x' WHERE kind = 'release'"],
    ["without its one charge", "DELETE FROM storage_events WHERE kind = 'charge'"],
    ["a pending upload has events", "UPDATE uploads SET status = 'pending' WHERE size_bytes = 300"],
    ["gone and was not released", "DELETE FROM uploads WHERE size_bytes = 300"],
    [
      "named and entered",
      "INSERT INTO object_removals (object_key, upload_id, entered_at_ms, due_at_ms) SELECT object_key, id, 1, 1 FROM uploads",
    ],
    ["named or entered twice", "UPDATE uploads SET object_key = 'x'"],
    ["key is not its own", "UPDATE uploads SET object_key = replace(object_key, 'final', 'staging')"],
    ["numbered below one", "UPDATE storage_events SET seq = -1 WHERE seq = 1"],
    ["NO-ORPHAN", "DELETE FROM uploads WHERE status = 'pending'"],
    ["KEYS: not of the form", "UPDATE object_removals SET object_key = 'staging/../x' WHERE seq = 1"],
    ["above the quota", "UPDATE workspaces SET storage_bytes_used = storage_bytes_quota + 1"],
    ["a workspace is gone", "DELETE FROM workspaces"],
  ];
  for (const [i, [rule, sql]] of breaks.entries()) {
    test(`notices: ${rule}`, () => {
      const file = join(folder, `broken-${i}.db`);
      copyFileSync(seeded, file);
      const db = new Database(file);
      try {
        const was = readBooks(db);
        assert.deepEqual(brokenRules(db, was), []);
        db.pragma("foreign_keys = OFF");
        db.pragma("ignore_check_constraints = ON");
        const names = db.prepare<[string], string>("SELECT name FROM sqlite_schema WHERE type = ?").pluck();
        for (const name of names.all("trigger")) db.exec(`DROP TRIGGER ${name}`);
        db.exec("DROP INDEX storage_events_once");
        db.exec(sql);
        assert.match(brokenRules(db, was).join("\n"), new RegExp(rule));
      } finally {
        db.close();
      }
    });
  }
});
