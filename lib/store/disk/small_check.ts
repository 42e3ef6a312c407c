import { statSync } from "node:fs";
import Database from "better-sqlite3";
import { openFailure } from "../../sqlite/sqlite_errors.ts";
import { isOurs, smallPathIn } from "./small_file.ts";

/** SQLite reports no more faults than this: one is enough to restore a backup. */
const FAULTS_MAX = 100;
/** A delete waits this long for the server's write. */
const BUSY_TIMEOUT_MS = 5_000;

/** An object whose bytes are not there, or are not as many as its row says: then `keptBytes` is their number. */
export interface BrokenRow {
  objectKey: string;
  sizeBytes: number;
  keptBytes: number | null;
}

/** The contents of the file of small objects, read beside a server. */
export interface SmallInspection {
  /** The faults that SQLite finds in the file; none if it is sound. */
  findFaults: () => string[];
  /** Objects without their bytes. */
  broken: () => Iterable<BrokenRow>;
  countBodies: () => number;
  /** Bytes that no object has. */
  looseBodies: () => Iterable<{ id: number; bytes: number }>;
  close: () => void;
}

/** The size of the file of small objects in bytes; null if there is none. */
export function smallFileBytes(objectsDir: string): number | null {
  return statSync(smallPathIn(objectsDir), { throwIfNoEntry: false })?.size ?? null;
}

/**
 * Opens the file for reading; null if it is empty, or another program's. Throws an `AppError` if it cannot be opened; what is
 * read throws SQLite's errors.
 */
export function inspectSmallFile(objectsDir: string): SmallInspection | null {
  const sqlite = openAs(objectsDir, { readonly: true });
  try {
    if (!isOurs(sqlite)) {
      sqlite.close();
      return null;
    }
  } catch (error) {
    sqlite.close();
    throw error;
  }
  return {
    findFaults() {
      const found = sqlite.prepare<[], string>(`PRAGMA quick_check(${FAULTS_MAX})`).pluck().all();
      return found.filter((text) => text !== "ok");
    },
    broken: () =>
      sqlite
        .prepare<[], BrokenRow>(`
          SELECT object_key AS objectKey, size_bytes AS sizeBytes, length(bytes) AS keptBytes
            FROM objects LEFT JOIN bodies ON id = body_id WHERE length(bytes) IS NOT size_bytes`)
        .iterate(),
    countBodies: () => sqlite.prepare<[], number>("SELECT count(*) FROM bodies").pluck().get() ?? 0,
    looseBodies: () =>
      sqlite
        .prepare<[], { id: number; bytes: number }>(`
          SELECT id, length(bytes) AS bytes FROM bodies WHERE id NOT IN (SELECT body_id FROM objects)`)
        .iterate(),
    close: () => void sqlite.close(),
  };
}

/** Removes those of these bodies that still belong to no object, and returns how many those were. */
export function removeLooseBodies(objectsDir: string, ids: readonly number[]): number {
  const sqlite = openAs(objectsDir, { readonly: false });
  try {
    // In one statement: a server gives the ids of removed bodies to new ones.
    return sqlite
      .prepare<[string]>(`
        DELETE FROM bodies
         WHERE id IN (SELECT value FROM json_each(?)) AND id NOT IN (SELECT body_id FROM objects)`)
      .run(JSON.stringify(ids)).changes;
  } finally {
    sqlite.close();
  }
}

function openAs(objectsDir: string, { readonly }: { readonly: boolean }): Database.Database {
  const path = smallPathIn(objectsDir);
  try {
    const sqlite = new Database(path, { readonly, fileMustExist: true, timeout: BUSY_TIMEOUT_MS });
    sqlite.pragma("synchronous = FULL");
    return sqlite;
  } catch (error) {
    throw openFailure(error, "open the file of small objects", path);
  }
}
