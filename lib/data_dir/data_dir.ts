import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { OBJECT_PLACES } from "../books/object_keys.ts";
import { AppError } from "../errors.ts";
import { makeFolder } from "../files.ts";
import { checkRights, isThere } from "./access.ts";
import { DATABASE_FILE, DATABASE_LOG_FILE, MARKER_FILE, OBJECTS_FOLDER, SMALL_OBJECTS_FILE } from "./layout.ts";
import { makeSigningKey } from "./signing_key.ts";

/**
 * Throws `not_found`, with the command that helps, if there is no data directory yet, and `storage_unavailable` if this user
 * may not use it. A path that this user may not look at does not count as missing.
 */
export function checkInitialised(dataDir: string): void {
  const path = join(dataDir, DATABASE_FILE);
  if (!isThere(path)) {
    // A log without its database: opening the database fails with a message about that.
    if (hasDatabaseLog(dataDir)) return;
    checkHoldsNoObjects(dataDir);
    throw new AppError("not_found", `There is no Stowage data in "${dataDir}"`, {
      hint: "`stowage init` makes it; if it is elsewhere, set STOWAGE_DATA_DIR to that folder",
    });
  }
  checkRights(dataDir);
  if (statSync(path).size > 0 || hasDatabaseLog(dataDir)) return;
  throw new AppError("not_found", `The database "${path}" is empty: an \`init\` or a copy was cut off`, {
    hint: 'if there was data in it, restore a backup into an empty folder (README, "Backup"); if not, run `stowage init`',
  });
}

/**
 * To be called if there is no database. Throws `conflict` if the folder holds an installation's files: a new database would
 * take them for leftovers, and the one that knows them may still turn up.
 */
export function checkHoldsNoObjects(dataDir: string): void {
  const folder = join(dataDir, OBJECTS_FOLDER);
  const isUsed = [MARKER_FILE, SMALL_OBJECTS_FILE, ...OBJECT_PLACES].some((name) => holdsSomething(join(folder, name)));
  // A log without its database: opening the database fails with a message about that.
  if (!isUsed || hasDatabaseLog(dataDir)) return;
  throw new AppError("conflict", `The database of "${dataDir}" is missing, but "${folder}" holds its files`, {
    hint: `restore "${join(dataDir, DATABASE_FILE)}" from a backup (README, "Backup"); to begin anew, move "${folder}" away first`,
  });
}

/** Makes the data directory, private to this user. Throws `storage_unavailable` if it cannot be made. */
export async function makeDataFolder(dataDir: string): Promise<void> {
  // Throws, before anything is made, if this user may not look at the path: the folder may well be there.
  isThere(dataDir);
  try {
    await makeFolder(dataDir);
  } catch (error) {
    throw cannotMake(dataDir, error);
  }
  checkRights(dataDir);
}

/**
 * Makes the data directory, private to this user, and its signing key. Keeps what is there already. Throws
 * `storage_unavailable` if it cannot be made.
 */
export async function makeDataDir(dataDir: string): Promise<void> {
  await makeDataFolder(dataDir);
  try {
    await makeSigningKey(dataDir);
  } catch (error) {
    throw cannotMake(dataDir, error);
  }
}

function hasDatabaseLog(dataDir: string): boolean {
  return isThere(join(dataDir, DATABASE_LOG_FILE));
}

/** Whether there is a file, or a folder that is not empty, at this path. */
function holdsSomething(path: string): boolean {
  return isThere(path) && (!statSync(path).isDirectory() || readdirSync(path).length > 0);
}

function cannotMake(dataDir: string, cause: unknown): AppError {
  return new AppError(
    "storage_unavailable",
    `Cannot make the data directory "${dataDir}": ${cause instanceof Error ? cause.message : String(cause)}`,
    { hint: "set STOWAGE_DATA_DIR to a folder that this user may write to", cause },
  );
}
