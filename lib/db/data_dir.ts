import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { open, rename } from "node:fs/promises";
import { join } from "node:path";
import { AppError } from "../errors.ts";
import { checkRights, isThere } from "./access.ts";
import { DATABASE_FILE } from "./db.ts";
import { fsyncPath, makeFolder } from "./files.ts";
import { schemaVersionOf } from "./schema_version.ts";

/** Signs the embedded store's URLs. Whoever has it can read and write any object. */
export const SIGNING_KEY_FILE = "url_signing.key";
export const SIGNING_KEY_BYTES = 32;

/** The embedded store's folder in the data directory. */
export const OBJECTS_FOLDER = "objects";
/** What lies in it once something was stored. */
const OBJECTS_TRACES = ["ledger-marker", "staging", "final"] as const;

/** Whether there is a database whose schema was made: an `init` that was cut off before that goes on from the start. */
export function hasDatabase(dataDir: string): boolean {
  const path = join(dataDir, DATABASE_FILE);
  // SQLite removes the log of an empty file, also when it is opened for reading.
  return isThere(path) && statSync(path).size > 0 && schemaVersionOf(path) > 0;
}

/**
 * Throws `not_found`, with the command that helps, where there is no data directory yet, and `storage_unavailable` where
 * this user may not use it: what cannot be looked at is not "not there".
 */
export function checkInitialised(dataDir: string): void {
  const path = join(dataDir, DATABASE_FILE);
  if (!isThere(path)) {
    // The message of a database that is lost, with a log beside it, comes when it is opened.
    if (isThere(`${path}-wal`)) return;
    checkHoldsNoObjects(dataDir);
    throw new AppError("not_found", `There is no Stowage data in "${dataDir}"`, {
      hint: "`stowage init` makes it; if it is elsewhere, set STOWAGE_DATA_DIR to that folder",
    });
  }
  checkRights(dataDir);
  if (statSync(path).size > 0 || isThere(`${path}-wal`)) return;
  throw new AppError("not_found", `The database "${path}" is empty: an \`init\` or a copy was cut off`, {
    hint: 'if there was data in it, restore a backup into an empty folder (README, "Backup"); if not, run `stowage init`',
  });
}

/**
 * Throws `conflict` if the folder holds an installation's files and no database: a new one would take them for leftovers,
 * and the one that knows them may still be found.
 */
export function checkHoldsNoObjects(dataDir: string): void {
  const folder = join(dataDir, OBJECTS_FOLDER);
  const isUsed = OBJECTS_TRACES.some((name) => {
    const path = join(folder, name);
    return isThere(path) && (!statSync(path).isDirectory() || readdirSync(path).length > 0);
  });
  // With its log beside it, a database that is missing has a message of its own, when it is opened.
  if (!isUsed || hasDatabase(dataDir) || isThere(join(dataDir, `${DATABASE_FILE}-wal`))) return;
  throw new AppError("conflict", `The database of "${dataDir}" is missing, but "${folder}" holds its files`, {
    hint: `restore "${join(dataDir, DATABASE_FILE)}" from a backup (README, "Backup"); to begin anew, move "${folder}" away first`,
  });
}

/** Makes the data directory, private to this user. Throws `storage_unavailable` where it cannot be made. */
export async function makeDataFolder(dataDir: string): Promise<void> {
  // What cannot be looked at may well be there: that is told, before anything is made.
  isThere(dataDir);
  try {
    await makeFolder(dataDir);
  } catch (error) {
    throw cannotMake(dataDir, error);
  }
  checkRights(dataDir);
}

/**
 * Makes the data directory, private to this user, and its signing key. What is there already stays. Throws
 * `storage_unavailable` where it cannot be made.
 */
export async function makeDataDir(dataDir: string): Promise<void> {
  await makeDataFolder(dataDir);
  try {
    await makeSigningKey(dataDir);
  } catch (error) {
    throw cannotMake(dataDir, error);
  }
}

function cannotMake(dataDir: string, cause: unknown): AppError {
  return new AppError(
    "storage_unavailable",
    `Cannot make the data directory "${dataDir}": ${cause instanceof Error ? cause.message : String(cause)}`,
    { hint: "set STOWAGE_DATA_DIR to a folder that this user may write to", cause },
  );
}

/** Makes the key where there is none, and resolves with whether it did. */
export async function makeSigningKey(dataDir: string): Promise<boolean> {
  const path = join(dataDir, SIGNING_KEY_FILE);
  if (isThere(path)) return false;
  // Whole or not at all: half a key after a crash would be taken for the key.
  const draft = `${path}.${process.pid}`;
  // "w": in a container the process id of a first try that was killed comes again.
  const file = await open(draft, "w", 0o600);
  try {
    await file.writeFile(randomBytes(SIGNING_KEY_BYTES));
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(draft, path);
  await fsyncPath(dataDir);
  return true;
}

/** The key that signs the embedded store's URLs; null where there is none. */
export function readSigningKey(dataDir: string): Buffer | null {
  const path = join(dataDir, SIGNING_KEY_FILE);
  if (!isThere(path)) return null;
  const key = readFileSync(path);
  if (key.length !== SIGNING_KEY_BYTES) {
    throw new AppError("internal_error", `"${path}" must have ${SIGNING_KEY_BYTES} bytes, not ${key.length}`, {
      hint: `restore it from a backup; without one, move it away (mv "${path}" "${path}.broken") and start \`stowage serve\`: it makes a new one, and URLs that are out are void`,
    });
  }
  return key;
}
