// Goal: whatever keeps the database from being opened is told in words of its own, with what to do; no command ends with a
// stack, and doctor makes a finding of it.
// Method: each reason, brought about for the real program; those that cannot be are taken from SQLite's list.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, openSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import Database from "better-sqlite3";
import { DATABASE_FILE } from "../lib/db/db.ts";
import { openFailure, toUnavailable } from "../lib/db/sqlite_errors.ts";
import { guarded } from "../lib/doctor/guarded.ts";
import { createReport } from "../lib/doctor/report.ts";
import { AppError } from "../lib/errors.ts";
import { startChild } from "./_db.ts";
import { fillDisk, isRoot, mountSmallDisk } from "./_operator.ts";
import { initProgram, runProgram, startProgram } from "./_process.ts";

const MIB = 1024 * 1024;

interface Reason {
  name: string;
  /** Makes it so; false where this machine cannot. */
  bringAbout: (t: TestContext, dataDir: string) => unknown;
  says: RegExp;
  /** Comes before the program, such as a limit. */
  under?: readonly string[];
  needsRoot?: boolean;
}

const REASONS: readonly Reason[] = [
  {
    name: "a folder in place of the file",
    bringAbout: (_t, dataDir) => {
      rmSync(join(dataDir, DATABASE_FILE));
      mkdirSync(join(dataDir, DATABASE_FILE));
    },
    says: /Cannot open database ".*": it is a folder, and must be a file/,
  },
  {
    name: "a text in place of the file",
    bringAbout: (_t, dataDir) => writeFileSync(join(dataDir, DATABASE_FILE), "no database ".repeat(1_000)),
    says: /Cannot open database ".*": its file is not a database, or it is encrypted or damaged \(SQLITE_NOTADB\)/,
  },
  {
    name: "a damaged file",
    bringAbout: (_t, dataDir) => {
      const file = openSync(join(dataDir, DATABASE_FILE), "r+");
      writeSync(file, Buffer.alloc(3_000, 0x5a), 0, 3_000, 100);
    },
    says: /Cannot open database ".*": its file is damaged \(SQLITE_CORRUPT\)/,
  },
  {
    name: "a process that has it for itself",
    bringAbout: async (t, dataDir) => {
      const child = startChild(t, "./_hold_lock.ts", [join(dataDir, DATABASE_FILE), "exclusive"]);
      await child.says("held");
    },
    says: /Cannot open database ".*": another process holds it locked \(SQLITE_BUSY/,
  },
  {
    name: "a disk that fails",
    bringAbout: () => {},
    // The kernel refuses to let the log's index grow, which SQLite cannot tell from a disk that fails.
    under: ["sh", "-c", 'ulimit -f 24; exec "$@"', "sh"],
    says: /Cannot open database ".*": its disk fails to read or write \(SQLITE_IOERR/,
  },
  {
    name: "a disk that is mounted read-only",
    needsRoot: true,
    bringAbout: (_t, dataDir) => execFileSync("mount", ["-o", "remount,ro", join(dataDir, "..")]),
    says: /the disk of ".*" is mounted read-only/,
  },
  {
    name: "a full disk without any reserve",
    needsRoot: true,
    bringAbout: (_t, dataDir) => fillDisk(join(dataDir, "..")),
    says: /Cannot use the lock file ".*": its disk is full \(\d+ bytes are free\)|Cannot open database ".*": its disk is full \(\d+ bytes are free\)/,
  },
];

for (const { name, bringAbout, says, under = [], needsRoot = false } of REASONS) {
  test(`${name} is told by serve and by doctor, with what to do`, async (t) => {
    if (needsRoot && !isRoot(t)) return;
    const { dataDir: made } = await initProgram(t);
    let dataDir = made;
    if (needsRoot) {
      dataDir = join(mountSmallDisk(t, 4 * MIB), "data");
      execFileSync("cp", ["-a", made, dataDir]);
    }
    await bringAbout(t, dataDir);
    const env = { STOWAGE_DATA_DIR: dataDir };
    for (const args of [["serve"], ["doctor"], ["doctor", "--json"], ["keys", "list"], ["init"]]) {
      const { exitCode, stdout, stderr } = await startProgram(t, args, { env, under }).ended;
      const said = stdout + stderr;
      assert.equal(exitCode, 1, `${args}: ${said}`);
      assert.match(said.replaceAll('\\"', '"'), says, args.join(" "));
      assert.match(said, args[0] === "doctor" ? /do: |"advice":/ : /stowage: hint: /);
      assert.doesNotMatch(said, /\n +at /, "no stack");
    }
  });
}

test("each of SQLite's reasons has words of its own at opening, is 503 at work, and a finding for doctor", async () => {
  const codes = "CANTOPEN READONLY PERM FULL IOERR CORRUPT NOTADB BUSY PROTOCOL NOMEM".split(" ");
  const texts = new Set<string>();
  for (const code of codes) {
    for (const extended of [`SQLITE_${code}`, `SQLITE_${code}_SOMETHING`]) {
      const error = new Database.SqliteError("text of SQLite", extended);
      const atOpening = openFailure(error, "open database", "/nowhere/stowage.db");
      assert.ok(atOpening instanceof AppError && atOpening.hint !== null, extended);
      texts.add(atOpening.message.replace("_SOMETHING", ""));
      const atWork = toUnavailable(error);
      assert.ok(atWork instanceof AppError && atWork.code === "storage_unavailable", extended);
      assert.doesNotMatch(atWork.message, /text of SQLite|\//, "clients see it");
      const report = createReport();
      await guarded(report, "x", () => {
        throw error;
      });
      assert.equal(report.findings[0]?.result, "problem");
    }
  }
  assert.equal(texts.size, codes.length);
  const other = new Database.SqliteError("no such table", "SQLITE_ERROR");
  assert.equal(openFailure(other, "open database", "/x"), other);
  assert.equal(toUnavailable(other), other);
});

test("a page that is damaged and that a command comes to is told without a stack", async (t) => {
  const { dataDir } = await initProgram(t);
  const path = join(dataDir, DATABASE_FILE);
  const sql = new Database(path);
  const page = Number(sql.prepare("SELECT rootpage FROM sqlite_schema WHERE name = 'installation'").pluck().get());
  sql.close();
  writeSync(openSync(path, "r+"), Buffer.alloc(4_096, 0x5a), 0, 4_096, (page - 1) * 4_096);
  for (const args of [["serve"], ["doctor"]]) {
    const { exitCode, stdout, stderr } = await runProgram(t, args, { STOWAGE_DATA_DIR: dataDir });
    assert.equal(exitCode, 1);
    assert.match(stdout + stderr, /its file is damaged \(SQLite: /);
    assert.doesNotMatch(stdout + stderr, /\n +at /);
  }
});

test("every check of doctor is guarded: a failure in one is a finding of its own, and the others are run", async (t) => {
  const { dataDir } = await initProgram(t);
  const path = join(dataDir, DATABASE_FILE);
  const sql = new Database(path);
  const page = Number(sql.prepare("SELECT rootpage FROM sqlite_schema WHERE name = 'object_removals'").pluck().get());
  sql.close();
  const file = openSync(path, "r+");
  writeSync(file, Buffer.alloc(4_096, 0x5a), 0, 4_096, (page - 1) * 4_096);
  writeFileSync(join(dataDir, "objects"), "a file");
  const { exitCode, stdout, stderr } = await runProgram(t, ["doctor"], { STOWAGE_DATA_DIR: dataDir });
  assert.equal(exitCode, 1);
  assert.equal(stderr, "");
  assert.doesNotMatch(stdout, /\n +at /);
  assert.match(stdout, /^problem +database file +its file is damaged/m);
  assert.match(stdout, /^ok +BOOKS/m);
  assert.match(stdout, /^problem +outbox +its file is damaged/m);
  assert.match(stdout, /^problem +store +The file system failed: ENOTDIR/m);
});
