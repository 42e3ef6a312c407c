import { readFileSync } from "node:fs";
import { stat } from "node:fs/promises";
import { dirname } from "node:path";
import { replaceFile } from "../../files.ts";
import { sha256Hex } from "../../ids.ts";
import { type StoredMarker, StoreError } from "../objects.ts";
import { isMissing } from "./file_errors.ts";

/**
 * Reads the marker's file; null if there is none. Rejects with `bucket_missing` if its folder is not there.
 *
 * Read synchronously: it is a few hundred bytes that the system holds in memory, and four trips to another thread take far
 * longer. Every batch of removals reads it twice, and confirms wait for that.
 */
export async function readMarkerFile(path: string): Promise<StoredMarker | null> {
  try {
    const text = readFileSync(path, "utf8");
    return { text, etag: sha256Hex(text) };
  } catch (error) {
    if (!isMissing(error)) throw error;
    await checkFolder(dirname(path));
    return null;
  }
}

/** Rejects with `bucket_missing` if the store's folder is not there. */
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
  await replaceFile(path, text);
}
