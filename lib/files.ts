import { closeSync, fsyncSync, openSync } from "node:fs";
import { mkdir, open, rename, stat } from "node:fs/promises";
import { dirname } from "node:path";

/** Makes what happened to a file's data, or to the names in a folder, survive a power loss. */
export function fsyncPathSync(path: string): void {
  const fd = openSync(path, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** As `fsyncPathSync`, without blocking the event loop. */
export async function fsyncPath(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/**
 * Replaces a file, or makes it, private to this user. It is durable when this resolves, and after a crash the path holds
 * either the old file or the new one, whole. Only for one writer at a time.
 */
export async function replaceFile(path: string, content: string | Buffer): Promise<void> {
  // Always the same name, and opened with "w": the next writer overwrites a file that a killed one left behind.
  const draft = `${path}.new`;
  const file = await open(draft, "w", 0o600);
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(draft, path);
  await fsyncPath(dirname(path));
}

/**
 * Makes a folder and those above it that are missing, private to this user. The folders that are new are durable before
 * it returns: an fsync of a file inside a folder does not make the folder's own name survive.
 *
 * Step by step: Node's recursive `mkdir` never ends if a file system reports on each try that something is missing, as `/proc`
 * does.
 */
export async function makeFolder(path: string): Promise<void> {
  if (await isFolder(path)) return;
  const parent = dirname(path);
  if (parent !== path) await makeFolder(parent);
  try {
    await mkdir(path, { mode: 0o700 });
  } catch (error) {
    // Another process may have made it meanwhile.
    if (!(await isFolder(path))) throw error;
  }
  await fsyncPath(parent);
}

async function isFolder(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => null);
  return found?.isDirectory() === true;
}
