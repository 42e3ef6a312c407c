import { statSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import { readAsset } from "../../../assets.ts";
import { isThere } from "../../../data_dir/access.ts";
import { DATABASE_FILE } from "../../../data_dir/layout.ts";
import { AppError } from "../../../errors.ts";
import { openFailure } from "../../../sqlite/sqlite_errors.ts";

/** The step from each version to the next, the first from 1 to 2. Only ever appended to. `schema.sql` makes a fresh file. */
const UPGRADES: readonly (() => string)[] = [
  () => readAsset("lib/books/sqlite/db/upgrade_2.sql"),
  () => readAsset("lib/books/sqlite/db/upgrade_3.sql"),
  () => readAsset("lib/books/sqlite/db/upgrade_4.sql"),
];

/** The version that this program reads and writes: the file's `PRAGMA user_version`. */
export const SCHEMA_VERSION = UPGRADES.length + 1;

/**
 * Compares the file's schema with the program's; with `migrate`, runs the missing steps in one transaction. Returns the version
 * that the file had; 0 for a fresh one. Throws `conflict` if the file is newer than the program, or older and `migrate` is not
 * set.
 */
export function checkSchema(sqlite: Database.Database, path: string, migrate: boolean): number {
  const fileVersion = readVersion(sqlite, path);
  if (fileVersion === SCHEMA_VERSION) return fileVersion;
  if (!migrate) {
    throw new AppError(
      "conflict",
      `Cannot use database "${path}": its schema version ${fileVersion} is older than this program's (${SCHEMA_VERSION})`,
      { hint: "restart `stowage serve` with this version: it brings the file up to date" },
    );
  }
  // Reads the version again inside: another process may have run the steps while this one waited for the lock.
  const runSteps = sqlite.transaction(() => {
    const version = readVersion(sqlite, path);
    if (version === 0) sqlite.exec(readAsset("schema.sql"));
    else for (const upgrade of UPGRADES.slice(version - 1)) sqlite.exec(upgrade());
    sqlite.pragma(`user_version = ${SCHEMA_VERSION}`);
  });
  runSteps.immediate();
  return fileVersion;
}

/** Whether there is a database with a schema. An `init` that was cut off leaves none, and the next `init` starts over. */
export function hasDatabase(dataDir: string): boolean {
  const path = join(dataDir, DATABASE_FILE);
  // SQLite removes the log of an empty file, even if it opens the file only for reading.
  return isThere(path) && statSync(path).size > 0 && schemaVersionOf(path) > 0;
}

/** The version of a database file; 0 if its schema was never made. */
function schemaVersionOf(path: string): number {
  let sqlite: Database.Database | null = null;
  try {
    sqlite = new Database(path, { readonly: true });
    return Number(sqlite.pragma("user_version", { simple: true }));
  } catch (error) {
    throw openFailure(error, "open database", path);
  } finally {
    sqlite?.close();
  }
}

function readVersion(sqlite: Database.Database, path: string): number {
  const fileVersion = Number(sqlite.pragma("user_version", { simple: true }));
  if (fileVersion <= SCHEMA_VERSION) return fileVersion;
  throw new AppError(
    "conflict",
    `Cannot open database "${path}": its schema version ${fileVersion} is newer than this program's (${SCHEMA_VERSION})`,
    { hint: "install the release that wrote it, or restore the backup taken before the upgrade" },
  );
}
