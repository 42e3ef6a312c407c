import { randomBytes } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { open, rename } from "node:fs/promises";
import { join } from "node:path";
import { AppError } from "../errors.ts";
import { DATABASE_FILE } from "./db.ts";
import { fsyncPath, makeFolder } from "./files.ts";
import { schemaVersionOf } from "./schema_version.ts";

/** Signs the embedded store's URLs. Whoever has it can read and write any object. */
const SIGNING_KEY_FILE = "url_signing.key";
const SIGNING_KEY_BYTES = 32;

/** Whether `stowage init` has been here. */
export function isInitialised(dataDir: string): boolean {
  return existsSync(join(dataDir, DATABASE_FILE)) && existsSync(join(dataDir, SIGNING_KEY_FILE));
}

/** Whether there is a database whose schema was made: an `init` that was cut off before that goes on from the start. */
export function hasDatabase(dataDir: string): boolean {
  const path = join(dataDir, DATABASE_FILE);
  return existsSync(path) && schemaVersionOf(path) > 0;
}

/** Throws `not_found`, with the command that helps, where there is no data directory yet. */
export function checkInitialised(dataDir: string): void {
  if (isInitialised(dataDir)) return;
  throw new AppError("not_found", `There is no Stowage data in "${dataDir}"`, {
    hint: "`stowage init` makes it; if it is elsewhere, set STOWAGE_DATA_DIR to that folder",
  });
}

/**
 * Makes the data directory, private to this user, and its signing key. What is there already stays. Throws
 * `storage_unavailable` where it cannot be made.
 */
export async function makeDataDir(dataDir: string): Promise<void> {
  try {
    await makeFolder(dataDir);
    await makeSigningKey(dataDir);
  } catch (error) {
    throw new AppError(
      "storage_unavailable",
      `Cannot make the data directory "${dataDir}": ${error instanceof Error ? error.message : String(error)}`,
      { hint: "set STOWAGE_DATA_DIR to a folder that this user may write to", cause: error },
    );
  }
}

async function makeSigningKey(dataDir: string): Promise<void> {
  const path = join(dataDir, SIGNING_KEY_FILE);
  if (existsSync(path)) return;
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
}

/** The key that signs the embedded store's URLs. */
export function readSigningKey(dataDir: string): Buffer {
  const key = readFileSync(join(dataDir, SIGNING_KEY_FILE));
  if (key.length !== SIGNING_KEY_BYTES) {
    throw new AppError(
      "internal_error",
      `"${join(dataDir, SIGNING_KEY_FILE)}" must have ${SIGNING_KEY_BYTES} bytes, not ${key.length}`,
      {
        hint: "restore it from a backup; a new one (remove the file, `stowage init`) ends all signed URLs that are out",
      },
    );
  }
  return key;
}
