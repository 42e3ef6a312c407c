import { chmodSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import { isSqliteError } from "./db.ts";
import { AppError } from "./errors.ts";

const LOCK_FILE = "serve.lock";

export interface ServeLock {
  /** Tells a second process where this one is reached. */
  announce: (url: string) => void;
  release: () => void;
}

/**
 * Makes this process the only one that serves a data directory: two cleaners, or two confirms of one upload, must not meet.
 *
 * The lock is an open write transaction on a small database of its own, so the kernel frees it when the process ends in
 * whatever way; there is no stale lock to remove by hand. Its committed row says who holds it. Throws `conflict` where
 * another process does.
 */
export function takeServeLock(dataDir: string): ServeLock {
  const path = join(dataDir, LOCK_FILE);
  const sqlite = new Database(path, { timeout: 0 });
  chmodSync(path, 0o600);

  function hold(url: string): void {
    sqlite.exec("BEGIN IMMEDIATE");
    sqlite.exec(
      "CREATE TABLE IF NOT EXISTS holder (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), process_id INTEGER NOT NULL, url TEXT NOT NULL)",
    );
    sqlite.prepare("INSERT OR REPLACE INTO holder VALUES (1, ?, ?)").run(process.pid, url);
    sqlite.exec("COMMIT");
    // The row is now readable for others. Whoever got in between the two statements holds the lock, and this one fails.
    sqlite.exec("BEGIN IMMEDIATE");
  }

  try {
    // Beside a writer, readers go on only with a rollback journal that is not yet being committed: nothing here is.
    sqlite.pragma("journal_mode = DELETE");
    hold("");
  } catch (error) {
    const holder = isSqliteError(error, "SQLITE_BUSY") ? readHolder(sqlite) : undefined;
    sqlite.close();
    if (!isSqliteError(error, "SQLITE_BUSY")) throw error;
    const who =
      holder === undefined ? "another process" : `process ${holder.processId}${holder.url && ` at ${holder.url}`}`;
    throw new AppError(
      "conflict",
      `The data directory "${dataDir}" is already served by ${who}: stop that one first, or use another directory`,
    );
  }

  return {
    announce: (url) => {
      sqlite.exec("ROLLBACK");
      hold(url);
    },
    release: () => sqlite.close(),
  };
}

function readHolder(sqlite: Database.Database): { processId: number; url: string } | undefined {
  try {
    return sqlite
      .prepare<[], { processId: number; url: string }>("SELECT process_id AS processId, url FROM holder")
      .get();
  } catch {
    // The other process is about to write its first row: who it is stays unknown.
    return undefined;
  }
}
