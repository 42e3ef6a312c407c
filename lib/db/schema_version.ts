import Database from "better-sqlite3";
import { readAsset } from "../assets.ts";
import { AppError } from "../errors.ts";
import { openFailure } from "./sqlite_errors.ts";

/** What brings a file from each version to the next, from 1 to 2 on; only ever appended. A fresh file is made by `schema.sql`. */
const UPGRADES: readonly (() => string)[] = [
  () => readAsset("lib/db/upgrade_2.sql"),
  () => readAsset("lib/db/upgrade_3.sql"),
];

/** The version that this program reads and writes, as `PRAGMA user_version` has it. */
export const SCHEMA_VERSION = UPGRADES.length + 1;

/**
 * Compares the file's schema with the program's; with `migrate`, runs the missing steps in one transaction. Returns
 * the version that the file had; 0 is a fresh one. Throws `conflict` where the file is newer than the program, or older and `migrate` is not set.
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
  // The version is read again inside: another process may have run the steps while this one waited for the lock.
  const runSteps = sqlite.transaction(() => {
    const version = readVersion(sqlite, path);
    if (version === 0) sqlite.exec(readAsset("schema.sql"));
    else for (const upgrade of UPGRADES.slice(version - 1)) sqlite.exec(upgrade());
    sqlite.pragma(`user_version = ${SCHEMA_VERSION}`);
  });
  runSteps.immediate();
  return fileVersion;
}

/** The version of a database file; 0 if its schema was never made. */
export function schemaVersionOf(path: string): number {
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
