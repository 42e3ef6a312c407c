import { open, readFile, rename, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { fsyncPath } from "../../db/files.ts";
import { sha256Hex } from "../../ids.ts";
import { type StoredMarker, StoreError } from "../objects.ts";
import { isMissing } from "./file_errors.ts";

/** What the marker's file holds, or null where there is none. Rejects with `bucket_missing` where its folder is not there. */
export async function readMarkerFile(path: string): Promise<StoredMarker | null> {
  try {
    const text = await readFile(path, "utf8");
    return { text, etag: sha256Hex(text) };
  } catch (error) {
    if (!isMissing(error)) throw error;
    await checkFolder(dirname(path));
    return null;
  }
}

/** Rejects with `bucket_missing` where the store's folder is not there. */
export async function checkFolder(folder: string): Promise<void> {
  try {
    await stat(folder);
  } catch (error) {
    if (isMissing(error)) throw new StoreError("bucket_missing", `The folder "${folder}" is not there`, error);
    throw error;
  }
}

/**
 * Replaces the marker's file if it still is the one that was read. It survives a power loss when this resolves, and is
 * never found half-written.
 */
export async function writeMarkerFile(path: string, text: string, replaces: string | null): Promise<void> {
  const present = await readMarkerFile(path);
  if ((present?.etag ?? null) !== replaces) throw new StoreError("changed", "The marker is another by now");
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
