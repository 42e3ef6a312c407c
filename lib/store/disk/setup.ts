import { randomBytes } from "node:crypto";
import type { Dirent } from "node:fs";
import { link, open, readdir, rm, unlink } from "node:fs/promises";
import { join } from "node:path";
import { AppError } from "../../errors.ts";
import type { Log } from "../../log.ts";
import { eachOf } from "./each_of.ts";

/** A moment whose fraction, 2^-15 s, a double holds exactly: it shows whether the file system keeps microseconds. */
const PROBE_MTIME_SECONDS = 1_700_000_000 + 2 ** -15;
const PROBE_MTIME_US = 1_700_000_000_000_030n;

/** The names of our half-written files; as `randomName` makes them. */
const OUR_NAME = /^[0-9a-f]{32}$/;
/** As many names of foreign files as one line of the log takes. */
const NAMES_TOLD_MAX = 5;

/**
 * Removes files that an earlier process left half-written. Others stay, and are logged once: a file system of its own has
 * a `lost+found`, and no oddity in here is a reason not to serve.
 */
export async function sweepFolder(temporaryFolder: string, log: Log): Promise<void> {
  const entries = await readdir(temporaryFolder, { withFileTypes: true });
  const isOurs = (entry: Dirent): boolean => entry.isFile() && OUR_NAME.test(entry.name);
  const ours = entries.filter(isOurs);
  const foreign = entries.filter((entry) => !isOurs(entry)).map(({ name }) => name);
  let swept = 0;
  await eachOf(ours, async ({ name }) => {
    try {
      await rm(join(temporaryFolder, name), { force: true });
      swept++;
    } catch (error) {
      log.warn("temporary_file_stays", { until: "next start", error });
    }
  });
  if (swept > 0) log.info("temporary_files_swept", { files: swept });
  if (foreign.length > 0) {
    log.warn("foreign_files_found", {
      ...{ folder: temporaryFolder, files: foreign.length, names: foreign.slice(0, NAMES_TOLD_MAX) },
      hint: "they are left alone: only this service's own files belong in there",
    });
  }
}

/** Checks that files can be made and removed, and resolves with how far the file system's clock is ahead of ours. */
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
 * Throws `storage_unavailable` if the file system lacks what the store is built on: hard links, and modification times
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
