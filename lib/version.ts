import { readAsset } from "./assets.ts";

function readVersion(): string {
  const manifest: unknown = JSON.parse(readAsset("package.json"));
  if (
    typeof manifest === "object" &&
    manifest !== null &&
    "version" in manifest &&
    typeof manifest.version === "string"
  ) {
    return manifest.version;
  }
  throw new Error("package.json names no version");
}

/** The version of this program. */
export const VERSION = readVersion();
