import { chmodSync } from "node:fs";
import { dirname } from "node:path";
import Database from "better-sqlite3";
import { AppError } from "../errors.ts";
import type { Log } from "../log.ts";
import { isThere } from "./access.ts";
import { inTurn, isOpenElsewhere } from "./check_turn.ts";
import { fsyncPathSync } from "./files.ts";
import { checkSchema, SCHEMA_VERSION } from "./schema_version.ts";
import { findServer } from "./serve_lock.ts";
import { hasLog, refuseUnsound } from "./soundness.ts";
import { isSqliteError, openFailure } from "./sqlite_errors.ts";

/** Opening may have to wait for another process that recovers or checkpoints the file. */
const OPEN_TIMEOUT_MS = 5_000;

export interface ConnectionOptions {
  path: string;
  dataDir: string;
  /** Makes a missing file, and brings an older one up to date. Only for the holder of the serve lock. */
  migrate: boolean;
  /** Whether this process holds the serve lock. */
  holdsLock: boolean;
  log: Log;
}

/** Opens the database's file for reading and writing. Throws an `AppError` where that cannot be done, or must not be. */
export function openConnection(options: ConnectionOptions): Database.Database {
  const { path, dataDir } = options;
  try {
    return hasLog(path) ? inTurn(dataDir, () => openWithLog(options)) : openThere(options);
  } catch (error) {
    throw openFailure(error, "open database", path);
  }
}

function openWithLog(options: ConnectionOptions): Database.Database {
  const { path, dataDir, holdsLock, log } = options;
  // Beside a server or another command there always is a log, and they have checked the file before they opened it. Who is
  // to serve does not rely on that: a shell that somebody has left open checks nothing.
  if (holdsLock || (findServer(dataDir) === null && !isOpenElsewhere(path))) refuseUnsound(path, log);
  return openThere(options);
}

function openThere(options: ConnectionOptions): Database.Database {
  const { path, migrate } = options;
  const isNew = !isThere(path);
  if (isNew && !migrate) {
    throw new AppError("not_found", `Cannot open database "${path}": there is none`, {
      hint: "name the data directory with STOWAGE_DATA_DIR, or make one with `stowage init`",
    });
  }
  return open(options, isNew);
}

function open({ path, migrate, log }: ConnectionOptions, isNew: boolean): Database.Database {
  const sqlite = new Database(path, { timeout: OPEN_TIMEOUT_MS });
  try {
    if (isNew) chmodSync(path, 0o600);
    prepareConnection(sqlite);
    const fileVersion = checkSchema(sqlite, path, migrate);
    if (fileVersion > 0 && fileVersion < SCHEMA_VERSION) {
      log.warn("database_upgraded", {
        from_version: fileVersion,
        to_version: SCHEMA_VERSION,
        effect: "versions of this program before this one refuse it from now on",
      });
    }
    checkWritable(sqlite);
    // Each time, not only when the file is new: whoever made it may have lost power before this line.
    fsyncPathSync(dirname(path));
    return sqlite;
  } catch (error) {
    sqlite.close();
    throw error;
  }
}

/** SQLite opens a file that it may not write for reading, without a word: the first write would fail. */
function checkWritable(sqlite: Database.Database): void {
  sqlite.pragma("busy_timeout = 0");
  try {
    sqlite.exec("BEGIN IMMEDIATE; ROLLBACK");
  } catch (error) {
    // Whoever holds the lock at this moment can write.
    if (!isSqliteError(error, "SQLITE_BUSY")) throw error;
  }
}

function prepareConnection(sqlite: Database.Database): void {
  // Readers never wait for the writer, and one fsync of the log makes a whole group durable.
  sqlite.pragma("journal_mode = WAL");
  // The driver's default in WAL mode is NORMAL, which may lose the last commits on power loss (NO-LOSS).
  sqlite.pragma("synchronous = FULL");
  // Off by default in SQLite; a row must not point to a user or workspace that does not exist.
  sqlite.pragma("foreign_keys = ON");
  // macOS: a plain fsync there does not reach the disk itself.
  sqlite.pragma("fullfsync = ON");
  sqlite.pragma("checkpoint_fullfsync = ON");
  // Ours run between groups, after the answers have left; SQLite's own would run inside a COMMIT.
  sqlite.pragma("wal_autocheckpoint = 0");
}
