import { randomBytes } from "node:crypto";
import { link, open, readdir, rm, unlink } from "node:fs/promises";
import { join } from "node:path";
import { AppError } from "../../errors.ts";
import type { Log } from "../../log.ts";
import { eachOf } from "./each_of.ts";

/** A moment whose fraction, 2^-15 s, a double holds exactly: it shows whether the file system keeps microseconds. */
const PROBE_MTIME_SECONDS = 1_700_000_000 + 2 ** -15;
const PROBE_MTIME_US = 1_700_000_000_000_030n;

/** Removes what an earlier process left half-written. */
export async function sweepFolder(temporaryFolder: string, log: Log): Promise<void> {
  const names = await readdir(temporaryFolder);
  await eachOf(names, (name) => rm(join(temporaryFolder, name), { force: true }));
  if (names.length > 0) log.info("temporary_files_swept", { files: names.length });
}

/** Resolves where files can be made and removed, with how far the file system's clock is ahead of ours. */
export async function probeFolder(temporaryFolder: string, now: () => number): Promise<number> {
  const path = join(temporaryFolder, randomName());
  const askedAtMs = now();
  const file = await open(path, "wx", 0o600);
  try {
    return (await file.stat()).mtimeMs - askedAtMs;
  } finally {
    await file.close();
    await unlink(path);
  }
}

/**
 * Throws `storage_unavailable` where the file system lacks what the store stands on: hard links, and modification times
 * in microseconds. Fails at the start, with the reason, instead of at the first confirm or with ETags that two uploads share.
 */
export async function checkFileSystem(temporaryFolder: string): Promise<void> {
  const path = join(temporaryFolder, randomName());
  const linkPath = join(temporaryFolder, randomName());
  const file = await open(path, "wx", 0o600);
  try {
    await file.utimes(PROBE_MTIME_SECONDS, PROBE_MTIME_SECONDS);
    const { mtimeNs } = await file.stat({ bigint: true });
    if (mtimeNs / 1_000n !== PROBE_MTIME_US) throw unsuitable("keep modification times in microseconds");
    try {
      await link(path, linkPath);
    } catch (error) {
      throw unsuitable("make hard links", error);
    }
  } finally {
    await file.close();
    await rm(path, { force: true });
    await rm(linkPath, { force: true });
  }
}

function unsuitable(ability: string, cause?: unknown): AppError {
  return new AppError(
    "storage_unavailable",
    `Cannot keep objects in the data directory: its file system cannot ${ability}. Put it on another one (ext4, XFS, Btrfs, ZFS and APFS are known to do)`,
    cause === undefined ? {} : { cause },
  );
}

function randomName(): string {
  return randomBytes(16).toString("hex");
}
