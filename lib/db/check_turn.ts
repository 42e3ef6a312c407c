import { chmodSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import { isSqliteError } from "./sqlite_errors.ts";
import { withoutLog } from "./without_log.ts";

const TURN_FILE = "check.lock";
/** Longer than any check takes, also of a file that has to be read from a slow disk. */
const TURN_WAIT_MS = 120_000;

/**
 * Does `work` while no other process does: whoever finds a log checks the file and opens it in one turn, so that nobody
 * writes to a file that another one is still checking. The kernel ends the turn of a process that is killed.
 */
export function inTurn<T>(dataDir: string, work: () => T): T {
  const path = join(dataDir, TURN_FILE);
  const sqlite = new Database(path, { timeout: TURN_WAIT_MS });
  try {
    chmodSync(path, 0o600);
    sqlite.exec("BEGIN IMMEDIATE");
    return work();
  } finally {
    sqlite.close();
  }
}

/** Whether another process has the database open at this moment. Writes to neither the file nor its log. */
export function isOpenElsewhere(path: string): boolean {
  try {
    // Locks are the file's, not the name's.
    return withoutLog(path, (link) => {
      const sqlite = new Database(link, { timeout: 0 });
      try {
        // Whoever has the file open in WAL mode holds a shared lock on it.
        sqlite.pragma("locking_mode = EXCLUSIVE");
        sqlite.prepare("SELECT count(*) FROM sqlite_schema").get();
        return false;
      } finally {
        sqlite.close();
      }
    });
  } catch (error) {
    return isSqliteError(error, "SQLITE_BUSY");
  }
}
