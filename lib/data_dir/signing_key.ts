import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { AppError } from "../errors.ts";
import { replaceFile } from "../files.ts";
import { isThere } from "./access.ts";
import { SIGNING_KEY_FILE } from "./layout.ts";

export const SIGNING_KEY_BYTES = 32;

/** Makes the key if there is none, and resolves with whether it did. */
export async function makeSigningKey(dataDir: string): Promise<boolean> {
  const path = join(dataDir, SIGNING_KEY_FILE);
  if (isThere(path)) return false;
  await replaceFile(path, randomBytes(SIGNING_KEY_BYTES));
  return true;
}

/** The key that signs the embedded store's URLs; null if there is none. Throws an `AppError` if it has a wrong length. */
export function readSigningKey(dataDir: string): Buffer | null {
  const path = join(dataDir, SIGNING_KEY_FILE);
  if (!isThere(path)) return null;
  const key = readFileSync(path);
  if (key.length !== SIGNING_KEY_BYTES) {
    throw new AppError("internal_error", `"${path}" must have ${SIGNING_KEY_BYTES} bytes, not ${key.length}`, {
      hint: `restore it from a backup; without one, move it away (mv "${path}" "${path}.broken") and start \`stowage serve\`: it makes a new one, and URLs given out before become void`,
    });
  }
  return key;
}
