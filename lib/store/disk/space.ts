import { statfsSync } from "node:fs";
import { noSpace } from "./file_errors.ts";

/** What an upload of unknown length is promised at a time. */
const WINDOW_BYTES = 8 * 1024 * 1024;

/** Room on the disk that one upload may count on. */
export interface Reservation {
  /** To be called before bytes are written. Throws `insufficient_storage` where there is no more room to promise. */
  take: (bytes: number) => void;
  /** Looks again: others write to the disk too. Throws `insufficient_storage`. */
  check: () => void;
  /** Gives back what was promised and not used. */
  release: () => void;
}

export interface DiskSpace {
  /** Promises room for an upload; null is an unknown length. Throws `insufficient_storage` where there is none. */
  reserve: (bytes: number | null) => Reservation;
}

/**
 * Keeps `minFreeBytes` of the folder's disk free, counting what was promised to uploads in flight and is not written
 * yet. The file system is asked synchronously: asking and promising are one step, and two uploads cannot be promised the
 * same room.
 */
export function createDiskSpace(folder: string, minFreeBytes: number): DiskSpace {
  let promisedBytes = 0;

  function refuseIfShort(moreBytes: number): void {
    const { bavail, bsize, frsize } = statfsSync(folder);
    // Blocks are counted in fragments, which on some network file systems are smaller than a block. Older versions of
    // Node do not tell their size.
    const freeBytes = bavail * (frsize || bsize);
    if (freeBytes - promisedBytes - moreBytes < minFreeBytes) throw noSpace();
  }

  function reserve(bytes: number | null): Reservation {
    let leftBytes = bytes ?? 0;
    refuseIfShort(leftBytes);
    promisedBytes += leftBytes;

    function take(count: number): void {
      if (count > leftBytes) {
        const moreBytes = Math.max(WINDOW_BYTES, count);
        refuseIfShort(moreBytes);
        leftBytes += moreBytes;
        promisedBytes += moreBytes;
      }
      leftBytes -= count;
      promisedBytes -= count;
    }

    function release(): void {
      promisedBytes -= leftBytes;
      leftBytes = 0;
    }

    return { take, check: () => refuseIfShort(0), release };
  }

  return { reserve };
}
