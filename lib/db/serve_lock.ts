import { chmodSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import { AppError } from "../errors.ts";
import { isThere } from "./access.ts";
import { isSqliteError, openFailure } from "./sqlite_errors.ts";

const LOCK_FILE = "serve.lock";

/**
 * How long a locked file is waited for: a process that was just killed may take a moment to be gone, and whoever reads
 * the holder's row holds the file for microseconds.
 */
const LOCK_WAIT_MS = 500;

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
  const sqlite = openLockFile(path);

  /** Takes the lock, or keeps it, and commits who holds it. */
  function hold(url: string): void {
    try {
      if (!sqlite.inTransaction) sqlite.exec("BEGIN IMMEDIATE");
      sqlite.exec(
        "CREATE TABLE IF NOT EXISTS holder (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), process_id INTEGER NOT NULL, url TEXT NOT NULL)",
      );
      sqlite.prepare("INSERT OR REPLACE INTO holder VALUES (1, ?, ?)").run(process.pid, url);
      sqlite.exec("COMMIT");
      // The row is now readable for others. Whoever got in between the two statements holds the lock, and this one fails.
      sqlite.exec("BEGIN IMMEDIATE");
    } catch (error) {
      if (!isSqliteError(error, "SQLITE_BUSY")) throw unusable(path, error);
      throw alreadyServed(dataDir, readHolder(sqlite), error);
    }
  }

  try {
    // Beside a writer, readers go on only with a rollback journal that is not yet being committed: nothing here is.
    sqlite.pragma("journal_mode = DELETE");
    hold("");
  } catch (error) {
    sqlite.close();
    throw error instanceof AppError ? error : unusable(path, error);
  }
  return { announce: hold, release: () => sqlite.close() };
}

/** Which process serves the data directory, or null where none does. Its URL is empty while it starts. */
export function findServer(dataDir: string): Holder | null {
  const path = join(dataDir, LOCK_FILE);
  if (!isThere(path)) return null;
  const sqlite = openExisting(path);
  try {
    // Taken for an instant if it is free: a server that starts just now waits longer than that.
    sqlite.exec("BEGIN IMMEDIATE; ROLLBACK");
    return null;
  } catch (error) {
    if (!isSqliteError(error, "SQLITE_BUSY")) throw unusable(path, error);
    return readHolder(sqlite) ?? { processId: 0, url: "" };
  } finally {
    sqlite.close();
  }
}

function openExisting(path: string): Database.Database {
  try {
    return new Database(path, { timeout: 0, fileMustExist: true });
  } catch (error) {
    throw unusable(path, error);
  }
}

function openLockFile(path: string): Database.Database {
  try {
    const sqlite = new Database(path, { timeout: LOCK_WAIT_MS });
    chmodSync(path, 0o600);
    return sqlite;
  } catch (error) {
    throw unusable(path, error);
  }
}

/** The process that holds the lock. */
export interface Holder {
  processId: number;
  /** Empty while it is starting. */
  url: string;
}

function readHolder(sqlite: Database.Database): Holder | undefined {
  try {
    return sqlite.prepare<[], Holder>("SELECT process_id AS processId, url FROM holder").get();
  } catch {
    // The other process is about to write its first row: who it is stays unknown.
    return undefined;
  }
}

function alreadyServed(dataDir: string, holder: Holder | undefined, cause: unknown): AppError {
  const who =
    holder === undefined ? "another process" : `process ${holder.processId}${holder.url && ` at ${holder.url}`}`;
  return new AppError("conflict", `The data directory "${dataDir}" is already served by ${who}`, {
    hint: "stop that one first, or set STOWAGE_DATA_DIR to another directory",
    cause,
  });
}

function unusable(path: string, cause: unknown): unknown {
  const failure = openFailure(cause, "use the lock file", path);
  if (failure instanceof AppError) return failure;
  return new AppError(
    "storage_unavailable",
    `Cannot use the lock file "${path}": ${cause instanceof Error ? cause.message : String(cause)}`,
    { hint: "the data directory must be on a local disk, and this user must be allowed to write to it", cause },
  );
}
