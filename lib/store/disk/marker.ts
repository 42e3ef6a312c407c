import { open, readFile, rename } from "node:fs/promises";
import { dirname } from "node:path";
import { fsyncPath } from "../../db/files.ts";
import { isMissing } from "./file_errors.ts";

/** What the marker's file holds, or null where there is none. */
export async function readMarkerFile(path: string): Promise<string | null> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
}

/** Replaces the marker's file. It survives a power loss when this resolves, and is never found half-written. */
export async function writeMarkerFile(path: string, text: string): Promise<void> {
  // Always the same name, so that what a kill leaves is written over: there is one writer at a time.
  const draft = `${path}.new`;
  const file = await open(draft, "w", 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(draft, path);
  await fsyncPath(dirname(path));
}
