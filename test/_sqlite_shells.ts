import { spawnSync } from "node:child_process";
import { copyFileSync } from "node:fs";
import Database from "better-sqlite3";

/** One script to be typed into a SQLite. */
export interface ShellJob {
  file: string;
  /** What the shell opens: the file, or something else where the script reaches it in another way. */
  open: string;
  sql: string;
  /** Where the file's state after the script is copied to. */
  keep?: string;
}

/** A SQLite that people type SQL into. */
export interface SqliteShell {
  name: string;
  /** Its version, or null where this machine does not have it. */
  version: () => string | null;
  /** Runs the jobs in order, each over a connection of its own that ends at the first error; returns the errors. */
  run: (jobs: ShellJob[]) => (string | null)[];
}

/** STRICT tables came with 3.37; an older SQLite cannot open the file at all. */
const OLDEST_VERSION = [3, 37] as const;

/** Debian's `sqlite3` or whichever is on the PATH: foreign keys off, nothing of ours in it. */
export const commandLineShell: SqliteShell = {
  name: "the sqlite3 command",
  version: () => usableVersion(spawnSync("sqlite3", ["--version"], { encoding: "utf8" }).stdout),
  run: (jobs) =>
    jobs.map(({ file, open, sql, keep }) => {
      const { status, stderr, error } = spawnSync("sqlite3", ["-batch", "-bail", open], {
        input: sql,
        encoding: "utf8",
      });
      if (error) throw error;
      if (keep !== undefined) copyFileSync(file, keep);
      return status === 0 ? null : stderr.trim() || `exit code ${status}`;
    }),
};

const PYTHON_DRIVER = `
import json, shutil, sqlite3, sys
errors = []
for job in json.load(sys.stdin):
    connection = sqlite3.connect(job["open"], isolation_level=None)
    try:
        connection.executescript(job["sql"])
        errors.append(None)
    except (sqlite3.Error, sqlite3.Warning) as error:
        errors.append(str(error))
    finally:
        connection.close()
    if "keep" in job:
        shutil.copyfile(job["file"], job["keep"])
json.dump(errors, sys.stdout)
`;

/** Python's own module: one process for all jobs, because starting it takes longer than they do. */
export const pythonShell: SqliteShell = {
  name: "Python's sqlite3",
  version: () =>
    usableVersion(
      spawnSync("python3", ["-c", "import sqlite3; print(sqlite3.sqlite_version)"], { encoding: "utf8" }).stdout,
    ),
  run: (jobs) => {
    const input = JSON.stringify(jobs);
    const { status, stdout, stderr } = spawnSync("python3", ["-c", PYTHON_DRIVER], { input, encoding: "utf8" });
    if (status !== 0) throw new Error(`Cannot run Python: ${stderr}`);
    return JSON.parse(stdout) as (string | null)[];
  },
};

/** The service's own driver, newer than the others and with recursive triggers on. Foreign keys off, as by hand. */
export const ownShell: SqliteShell = {
  name: "better-sqlite3",
  version: () => usableVersion(new Database(":memory:").prepare<[], string>("SELECT sqlite_version()").pluck().get()),
  run: (jobs) =>
    jobs.map(({ file, open, sql, keep }) => {
      const db = new Database(open);
      let message: string | null = null;
      try {
        db.pragma("foreign_keys = OFF");
        db.exec(sql);
      } catch (error) {
        message = error instanceof Error ? error.message : String(error);
      } finally {
        db.close();
      }
      if (keep !== undefined) copyFileSync(file, keep);
      return message;
    }),
};

/** The version that a program printed, if the program is there and new enough for the file. */
function usableVersion(printed: string | null | undefined): string | null {
  const [, major, minor] = /^(\d+)\.(\d+)\S*/.exec(printed ?? "") ?? [];
  if (major === undefined || minor === undefined) return null;
  const [oldestMajor, oldestMinor] = OLDEST_VERSION;
  const isUsable = Number(major) > oldestMajor || (Number(major) === oldestMajor && Number(minor) >= oldestMinor);
  return isUsable ? `${major}.${minor}` : null;
}
