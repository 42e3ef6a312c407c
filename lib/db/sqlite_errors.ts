import { statSync } from "node:fs";
import { dirname } from "node:path";
import Database from "better-sqlite3";
import { AppError } from "../errors.ts";
import { describeRights } from "./access.ts";
import { freeBytesOf } from "./free_space.ts";

/**
 * What opening the database takes on its disk where it was closed before: its log, the index of the log, and the journal
 * of the lock. Measured: 48 KiB; the rest is for the first writes.
 */
export const OPENING_BYTES = 1024 * 1024;

/** Whether `error` came from SQLite with this result code, or an extended form of it. */
export function isSqliteError(error: unknown, code: string): error is Database.SqliteError & Error {
  return error instanceof Database.SqliteError && (error.code === code || error.code.startsWith(`${code}_`));
}

/** The database as a whole cannot be used, for one of SQLite's reasons. */
interface Cause {
  code: string;
  /** What is wrong, as the end of a sentence. Names no path: clients see it. */
  what: string;
  hint: string;
}

const RESTORE =
  'stop the service, keep a copy of the whole data directory, and restore the newest backup that is sound (README, "Backup")';

const CAUSES: readonly Cause[] = [
  {
    code: "SQLITE_CANTOPEN",
    what: "its file, or one beside it, cannot be opened",
    hint: "it must be a file on a local disk, in a folder that this user may write to",
  },
  {
    code: "SQLITE_READONLY",
    what: "it cannot be written: its file, its folder or its disk is read-only for this user",
    hint: "see that the disk is not mounted read-only (`mount`), and that this user owns the data directory (`ls -ln`)",
  },
  {
    code: "SQLITE_PERM",
    what: "this user may not use its file",
    hint: "see that this user owns the data directory (`ls -ln`)",
  },
  {
    code: "SQLITE_FULL",
    what: "its disk is full",
    hint: `make room on the disk of the data directory: ${OPENING_BYTES} bytes are enough to start and to delete uploads`,
  },
  {
    code: "SQLITE_IOERR",
    what: "its disk fails to read or write",
    hint: "see what the system's log says of the disk (`dmesg`); the data directory must be on a local disk, not on a network file system",
  },
  { code: "SQLITE_CORRUPT", what: "its file is damaged", hint: RESTORE },
  { code: "SQLITE_NOTADB", what: "its file is not a database, or it is encrypted or damaged", hint: RESTORE },
  {
    code: "SQLITE_BUSY",
    what: "another process holds it locked",
    hint: "wait for that process, or end it: a shell, a copy or another program that has the file open",
  },
  {
    code: "SQLITE_LOCKED",
    what: "another process holds it locked",
    hint: "wait for that process, or end it: a shell, a copy or another program that has the file open",
  },
  {
    code: "SQLITE_PROTOCOL",
    what: "its locks do not work",
    hint: "the data directory must be on a local disk, not on a network file system",
  },
  {
    code: "SQLITE_NOMEM",
    what: "there is not enough memory",
    hint: "give the process more memory, and start it again",
  },
];

function causeOf(error: unknown): Cause | undefined {
  return CAUSES.find(({ code }) => isSqliteError(error, code));
}

/** The file that this process has open is no longer the one at its path. */
export class DatabaseMoved extends Error {}

/** Why the database as a whole cannot be used, as the end of a sentence; null where something else failed. */
export function whyUnusable(error: unknown): string | null {
  return error instanceof DatabaseMoved ? error.message : (causeOf(error)?.what ?? null);
}

/** What an administrator can do about it; null where the error is none of SQLite's that we know. */
export function hintOn(error: unknown): string | null {
  return causeOf(error)?.hint ?? null;
}

/** What the caller of a request is told: 503 where the database as a whole failed. All else passes through as it is. */
export function toUnavailable(error: unknown): unknown {
  const why = whyUnusable(error);
  if (why === null) return error;
  return new AppError("storage_unavailable", `The database cannot be used at the moment: ${why}`, {
    retryAfterSeconds: 1,
    cause: error,
  });
}

/**
 * What an administrator is told where a file of SQLite's could not be opened: `what` is "open database", for example. What
 * is not SQLite's passes through.
 */
export function openFailure(error: unknown, what: string, path: string): unknown {
  const found = causeOf(error);
  if (!(error instanceof Database.SqliteError) || found === undefined) return error;
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory() === true) {
    return new AppError("storage_unavailable", `Cannot ${what} "${path}": it is a folder, and must be a file`, {
      hint: 'move it away, and put the file in its place (README, "Backup")',
      cause: error,
    });
  }
  const folder = dirname(path);
  const rights = describeRights(folder);
  const isRefused = ["SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM"].includes(found.code);
  if (isRefused && rights !== null) {
    return new AppError("storage_unavailable", `Cannot ${what} "${path}": ${rights.message}`, {
      hint: rights.hint,
      cause: error,
    });
  }
  // SQLite tells a disk that has no room for the log's index from one that fails by nothing but the place.
  const freeBytes = found.code === "SQLITE_FULL" || found.code === "SQLITE_IOERR" ? freeBytesIn(folder) : null;
  const full = CAUSES.find(({ code }) => code === "SQLITE_FULL");
  if (freeBytes !== null && full !== undefined && (found === full || freeBytes < OPENING_BYTES)) {
    return new AppError("storage_unavailable", `Cannot ${what} "${path}": ${full.what} (${freeBytes} bytes are free)`, {
      hint: full.hint,
      cause: error,
    });
  }
  return new AppError("storage_unavailable", `Cannot ${what} "${path}": ${found.what} (${error.code})`, {
    hint: found.hint,
    cause: error,
  });
}

function freeBytesIn(folder: string): number | null {
  try {
    return freeBytesOf(folder);
  } catch {
    return null;
  }
}
