import { statfsSync } from "node:fs";
import { AppError } from "../errors.ts";
import type { Log } from "../log.ts";

/** The file system is asked once in this time at most. */
const KEPT_MS = 1_000;

/** The bytes that are free for this user on the disk of a folder. Throws what the file system throws. */
export function freeBytesOf(folder: string): number {
  const { bavail, bsize, frsize } = statfsSync(folder);
  // Blocks are counted in fragments, which on some network file systems are smaller than a block. Older versions of
  // Node do not tell their size.
  return bavail * (frsize || bsize);
}

/**
 * Makes the check that keeps the last `minFreeBytes` of the folder's disk for what must go on: SQLite needs room for its log
 * even to delete. The check throws `insufficient_storage` while less is free. 0: it never does.
 */
export function createFreeSpaceCheck(folder: string, minFreeBytes: number, log: Log): () => void {
  let askedAtMs = Number.NEGATIVE_INFINITY;
  let isShort = false;

  return () => {
    if (minFreeBytes === 0) return;
    const nowMs = performance.now();
    if (nowMs - askedAtMs >= KEPT_MS) {
      askedAtMs = nowMs;
      const wasShort = isShort;
      isShort = isBelow(folder, minFreeBytes);
      if (isShort && !wasShort) {
        log.warn("disk_space_low", {
          folder,
          min_free_bytes: minFreeBytes,
          effect:
            "new uploads, workflows, workspaces, members and users are refused with 507; deletes and confirms go on",
          hint: "make room on this disk, or lower STOWAGE_MIN_FREE_BYTES",
        });
      } else if (wasShort && !isShort) log.info("disk_space_back", { folder });
    }
    if (isShort) {
      throw new AppError(
        "insufficient_storage",
        `Cannot add anything: the server's disk has less than ${minFreeBytes} bytes free. ` +
          "Its administrator has to make room; deletes and confirms go on",
      );
    }
  };
}

function isBelow(folder: string, minFreeBytes: number): boolean {
  try {
    return freeBytesOf(folder) < minFreeBytes;
  } catch {
    // The write itself will tell what is wrong with the disk.
    return false;
  }
}
