import { chmodSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import Database from "better-sqlite3";
import { SMALL_OBJECTS_FILE } from "../../data_dir/layout.ts";
import { AppError } from "../../errors.ts";
import { fsyncPathSync } from "../../files.ts";
import type { Log } from "../../log.ts";
import { createCheckpoints } from "../../sqlite/checkpoints.ts";
import { createFileWatch } from "../../sqlite/file_watch.ts";
import { createGroupCommit, type GroupCommit } from "../../sqlite/group_commit.ts";
import { DatabaseMoved, isSqliteError, openFailure } from "../../sqlite/sqlite_errors.ts";
import { createVacuum } from "./vacuum.ts";

const SCHEMA_VERSION = 1;
/** Opening may have to wait for another process that recovers or checkpoints the file. */
const OPEN_TIMEOUT_MS = 5_000;

/**
 * Names and bytes apart: a listing, and whoever asks for a size, goes through the names alone. A key is kept as text, so
 * that the file can be read with `sqlite3`.
 */
const SCHEMA = `
CREATE TABLE objects (
  object_key  TEXT    NOT NULL PRIMARY KEY,
  body_id     INTEGER NOT NULL,
  size_bytes  INTEGER NOT NULL,
  -- Unique to this storing of the object; with the size it is the ETag.
  stamp_us    INTEGER NOT NULL,
  -- 1: a file with an older or newer object may lie under the same key. The row is what counts; the file goes with it.
  file_beside INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE bodies (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
PRAGMA user_version = ${SCHEMA_VERSION};`;

/** Which store the file belongs to, and how far the ledger had come when that was last written; one row at most. */
const MARK_SCHEMA = `
CREATE TABLE IF NOT EXISTS store_mark (
  id         INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
  store_id   TEXT    NOT NULL,
  generation INTEGER NOT NULL,
  ledger_seq INTEGER NOT NULL
) STRICT;`;

/** The open file of small objects. */
export interface SmallFile extends Pick<GroupCommit, "write" | "writeStatement"> {
  sqlite: Database.Database;
  /** Whether the file at the path is still the one that is open, with the log that is open. */
  isInPlace: () => boolean;
  /**
   * Closes a file that is no longer in place, at once: writes that wait are refused. If only its log was moved or removed,
   * all that was committed is copied into the file first. To be called before the path is opened again: two connections of
   * one process to the same file share the index of the log.
   */
  abandon: () => void;
  /** Writes what waits, and closes the file. */
  close: () => Promise<void>;
}

export interface SmallFileOptions {
  objectsDir: string;
  /** Whether this process serves: it keeps the log short, and gives room back. */
  serves: boolean;
  /** Called when a write finds the disk full: even a removal needs some room. */
  onFull?: (() => void) | undefined;
  log: Log;
}

export function smallPathIn(objectsDir: string): string {
  return join(objectsDir, SMALL_OBJECTS_FILE);
}

/**
 * Opens the file, and makes it with `makes` if it is missing. Returns null if there is none, or another file in its place.
 * Throws an `AppError` if it cannot be used.
 */
export function openSmallFile(options: SmallFileOptions, { makes }: { makes: boolean }): SmallFile | null {
  const path = smallPathIn(options.objectsDir);
  if (!makes && identityOf(path) === "none") return null;
  try {
    const sqlite = new Database(path, { timeout: OPEN_TIMEOUT_MS, fileMustExist: !makes });
    try {
      if (!isOurs(sqlite) && !(makes && isEmpty(sqlite))) {
        if (makes) throw foreign(path);
        sqlite.close();
        return null;
      }
      prepare(sqlite, path);
      return open(sqlite, path, options);
    } catch (error) {
      sqlite.close();
      throw error;
    }
  } catch (error) {
    if (!makes && isSqliteError(error, "SQLITE_NOTADB")) return null;
    throw openFailure(error, "open the file of small objects", path);
  }
}

/** Whether the file has the tables, of whichever version. */
export function isOurs(sqlite: Database.Database): boolean {
  return sqlite.prepare("SELECT count(*) FROM sqlite_schema WHERE name IN ('objects', 'bodies')").pluck().get() === 2;
}

function isEmpty(sqlite: Database.Database): boolean {
  return sqlite.prepare("SELECT count(*) FROM sqlite_schema").pluck().get() === 0;
}

function prepare(sqlite: Database.Database, path: string): void {
  // Before there is a log: that one gets the rights of its file.
  chmodSync(path, 0o600);
  // Takes effect before the first table only: pages that become free can be given back.
  sqlite.pragma("auto_vacuum = INCREMENTAL");
  sqlite.pragma("journal_mode = WAL");
  // An acknowledged write survives a power loss, as with the books.
  sqlite.pragma("synchronous = FULL");
  sqlite.pragma("fullfsync = ON");
  sqlite.pragma("checkpoint_fullfsync = ON");
  sqlite.pragma("wal_autocheckpoint = 0");
  sqlite
    .transaction(() => {
      const version = Number(sqlite.pragma("user_version", { simple: true }));
      if (version === 0) sqlite.exec(SCHEMA);
      else if (version > SCHEMA_VERSION) throw newer(path, version);
      sqlite.exec(MARK_SCHEMA);
    })
    .immediate();
  // Each time: whoever made it may have lost power before this line.
  fsyncPathSync(dirname(path));
}

function open(sqlite: Database.Database, path: string, { serves, onFull, log }: SmallFileOptions): SmallFile {
  const opened = identityOf(path);
  const isSameFile = (): boolean => identityOf(path) === opened;
  const checkpoints = createCheckpoints(sqlite, { path, log, keepsLog: serves, monotonicMs: () => performance.now() });
  const vacuum = serves ? createVacuum(sqlite, { onEnd: checkpoints.copy, log }) : null;
  // A PUT that is reported as done must not lie in a file, or a log, that was moved away a moment ago.
  const checkBeforeWrite = createFileWatch(path, { keptMs: 0 });
  // Reads need the log less: it is enough that its loss is noticed soon.
  const checkNowAndThen = createFileWatch(path);
  let isLost = false;
  const commits = createGroupCommit(sqlite, {
    ...{ subject: "The file of small objects", log, onFull },
    checkInPlace() {
      // The state of the connection is unknown: nothing more is written through it.
      if (isLost) throw new DatabaseMoved("the file of small objects has to be opened again");
      try {
        checkBeforeWrite();
      } catch (error) {
        isLost = true;
        throw error;
      }
    },
    afterGroup() {
      checkpoints.afterGroup();
      vacuum?.afterGroup();
    },
    // Everything that was committed is in the file, and is found when it is opened again.
    onFatal: () => {
      isLost = true;
    },
  });
  // The run before may have been ended before it gave all room back.
  vacuum?.afterGroup();

  function isInPlace(): boolean {
    if (isLost || !sqlite.open || !isSameFile()) return false;
    try {
      checkNowAndThen();
      return true;
    } catch {
      isLost = true;
      return false;
    }
  }

  function end(): void {
    vacuum?.stop();
    if (!sqlite.open) return;
    // Without its log the file lacks what was committed last, which this connection still has.
    if (isSameFile()) checkpoints.finish();
    else checkpoints.stop();
    sqlite.close();
  }

  return {
    sqlite,
    write: commits.write,
    writeStatement: commits.writeStatement,
    isInPlace,
    abandon() {
      isLost = true;
      // Refuses all that waits before it returns, because the check throws.
      void commits.finish();
      end();
    },
    async close() {
      await commits.finish();
      end();
    },
  };
}

/** Which file lies at a path; "none" if there is none. */
export function identityOf(path: string): string {
  const found = statSync(path, { throwIfNoEntry: false });
  return found === undefined ? "none" : `${found.dev}:${found.ino}`;
}

function foreign(path: string): AppError {
  return new AppError("conflict", `Cannot use "${path}" for small objects: it is another program's database`, {
    hint: "move it away, and put the file of small objects back in its place if there is a copy",
  });
}

function newer(path: string, version: number): AppError {
  return new AppError(
    "conflict",
    `Cannot open "${path}": its schema version ${version} is newer than this program's (${SCHEMA_VERSION})`,
    { hint: "install the release that wrote it, or restore the backup taken before the upgrade" },
  );
}
