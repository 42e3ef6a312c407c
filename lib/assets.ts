import { readFileSync } from "node:fs";

/** The files that the program carries with it. The one place that knows their paths. */
export type AssetName =
  | "schema.sql"
  | "lib/books/sqlite/db/upgrade_2.sql"
  | "lib/books/sqlite/db/upgrade_3.sql"
  | "lib/books/sqlite/db/upgrade_4.sql"
  | "package.json";

export function readAsset(name: AssetName): string {
  return readFileSync(new URL(`../${name}`, import.meta.url), "utf8");
}
