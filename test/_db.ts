import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import Database from "better-sqlite3";
import { DATABASE_FILE, type Db, type DbOptions, openDb } from "../lib/db/db.ts";
import { createLog } from "../lib/log.ts";
import { collectOutput } from "./_output.ts";

/** A database of the service's own, and what a test looks at it with. */
export interface TestDb {
  db: Db;
  dataDir: string;
  /** Another connection to the same file: it sees what is committed, and nothing else. */
  second: Database.Database;
  /** The messages that were logged. */
  logged: () => string[];
  /** The whole lines of them. */
  lines: () => Record<string, unknown>[];
  /** The names of the users that another connection sees. */
  names: () => string[];
}

const undos = new WeakMap<TestContext, (() => unknown)[]>();

/** Runs `undo` after the test, last first: node:test runs its own hooks first to last, and would remove what is in use. */
export function afterwards(t: TestContext, undo: () => unknown): void {
  const known = undos.get(t);
  if (known !== undefined) return void known.push(undo);
  const list = [undo];
  undos.set(t, list);
  t.after(async () => {
    for (const each of list.toReversed()) await each();
  });
}

export function temporaryFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "stowage-db-"));
  afterwards(t, () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export function openTestDb(t: TestContext, options: Partial<DbOptions> = {}): TestDb {
  const dataDir = options.dataDir ?? temporaryFolder(t);
  const lines: string[] = [];
  const log = createLog({ level: "debug", write: (text) => void lines.push(...text.trimEnd().split("\n")) });
  const onFatal = (error: unknown) => {
    throw error;
  };
  const db = openDb({ log, migrate: true, onFatal, ...options, dataDir });
  const second = new Database(join(dataDir, DATABASE_FILE));
  afterwards(t, async () => {
    second.close();
    await db.close();
  });
  function logged(): Record<string, unknown>[] {
    log.flush();
    return lines.map((line) => JSON.parse(line));
  }
  const selectNames = second.prepare<[], string>("SELECT name FROM users ORDER BY name").pluck();
  return {
    db,
    dataDir,
    second,
    logged: () => logged().map(({ msg }) => String(msg)),
    lines: logged,
    names: () => selectNames.all(),
  };
}

/** How many transactions the log holds since it last started over: each ends in a frame that states the file's size. */
export function commitsInLog(dataDir: string): number {
  const wal = readFileSync(join(dataDir, `${DATABASE_FILE}-wal`));
  if (wal.length === 0) return 0;
  const frameBytes = 24 + wal.readUInt32BE(8);
  const salt = wal.subarray(16, 24);
  let commits = 0;
  for (let at = 32; at + frameBytes <= wal.length; at += frameBytes) {
    // Frames of an earlier round have another salt.
    if (!salt.equals(wal.subarray(at + 8, at + 16))) break;
    if (wal.readUInt32BE(at + 4) !== 0) commits++;
  }
  return commits;
}

export interface Child {
  process: ChildProcess;
  /** Resolves once the child has said this line; rejects if it ends without. */
  says: (line: string) => Promise<void>;
  /** Everything that it said, once it has ended. */
  ended: Promise<{ code: number | null; stdout: string; stderr: string }>;
}

/** Starts one of the scripts beside this file in a process of its own; `shell` is put before its command line. */
export function startChild(t: TestContext, script: string, args: string[], shell = "exec"): Child {
  const path = fileURLToPath(new URL(script, import.meta.url));
  const command = ["sh", "-c", `${shell} "$@"`, "sh", process.execPath, path, ...args];
  const [program = "sh", ...rest] = command;
  const child = spawn(program, rest, { stdio: ["pipe", "pipe", "pipe"] });
  afterwards(t, () => {
    child.kill("SIGKILL");
    return ended;
  });
  const output = collectOutput(child);
  const ended = new Promise<{ code: number | null; stdout: string; stderr: string }>((resolve) => {
    child.on("close", (code) => resolve({ code, ...output }));
  });
  function says(line: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const look = () => {
        if (!output.stdout.split("\n").includes(line)) return;
        child.stdout.off("data", look);
        resolve();
      };
      child.stdout.on("data", look);
      void ended.then(() =>
        reject(new Error(`The child ended without saying "${line}": ${output.stdout}${output.stderr}`)),
      );
      look();
    });
  }
  return { process: child, says, ended };
}

/** What another process holds; `release` lets go of it, `kill` is SIGKILL. */
export interface Held {
  processId: number;
  release: () => void;
  kill: () => void;
}

/** Holds the write lock from another process, or with "read" a view of what is there now. */
export async function holdLock(t: TestContext, dataDir: string, kind?: "read"): Promise<Held> {
  const child = startChild(t, "./_hold_lock.ts", [join(dataDir, DATABASE_FILE), ...(kind === undefined ? [] : [kind])]);
  await child.says("held");
  return {
    processId: child.process.pid ?? 0,
    release: () => void child.process.stdin?.end(),
    kill: () => void child.process.kill("SIGKILL"),
  };
}
