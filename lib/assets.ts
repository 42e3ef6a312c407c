import { readFileSync } from "node:fs";

/** The files that the program carries with it. The one place that knows where they lie. */
export type AssetName = "schema.sql" | "lib/db/upgrade_2.sql" | "lib/db/upgrade_3.sql" | "package.json";

export function readAsset(name: AssetName): string {
  return readFileSync(new URL(`../${name}`, import.meta.url), "utf8");
}
