import { freeBytesOf } from "../../db/free_space.ts";
import { noSpace, shareUsedUp } from "./file_errors.ts";

/**
 * What an upload is promised at a time, as its bytes come. It is also the most that an idle one can keep from others; a
 * file system is asked this often within microseconds.
 */
const WINDOW_BYTES = 1024 * 1024;

/** The part of the room for uploads that one owner may take: two would have to fill the disk together. */
const OWNER_SHARE = 0.5;

/** Room on the disk that one upload may count on. */
export interface Reservation {
  /** To be called before bytes are written. Throws `insufficient_storage` if there is no more room to promise. */
  take: (bytes: number) => void;
  /** Looks again: others write to the disk too. Throws `insufficient_storage`. */
  check: () => void;
  /** Gives back what was promised and not used. From then on what was written counts only if it was staged. */
  release: () => void;
}

export interface DiskSpace {
  /**
   * Begins an upload of an owner; null is an unknown length. Nothing is promised yet, but a length that could not fit
   * is refused. Throws `insufficient_storage`.
   */
  reserve: (ownerId: string, announcedBytes: number | null) => Reservation;
}

export interface DiskSpaceOptions {
  folder: string;
  /** Uploads leave this much of the folder's disk free. */
  minFreeBytes: number;
  /** The bytes that lie on the disk for an owner's unconfirmed uploads. */
  stagedBytes: (ownerId: string) => number;
}

interface InFlight {
  uploads: number;
  promisedBytes: number;
  writtenBytes: number;
}

/**
 * Keeps part of a disk free, and part of the rest for other owners, counting what was promised to uploads in flight and
 * is not written yet. The file system is asked synchronously: asking and promising are one step, and two uploads cannot
 * be promised the same room.
 */
export function createDiskSpace({ folder, minFreeBytes, stagedBytes }: DiskSpaceOptions): DiskSpace {
  const inFlight = new Map<string, InFlight>();
  let promisedBytes = 0;

  /** The bytes that can still be promised to anyone; below zero if the disk is too full already. */
  function roomBytes(): number {
    return freeBytesOf(folder) - minFreeBytes - promisedBytes;
  }

  function refuseIfShort(ownerId: string, own: InFlight, moreBytes: number): void {
    const room = roomBytes();
    if (room < moreBytes) throw noSpace();
    if (moreBytes === 0) return;
    const ownBytes = own.promisedBytes + own.writtenBytes + stagedBytes(ownerId);
    const shareBytes = Math.floor((room + ownBytes) * OWNER_SHARE);
    if (ownBytes + moreBytes > shareBytes) throw shareUsedUp(ownBytes);
  }

  function reserve(ownerId: string, announcedBytes: number | null): Reservation {
    const own = inFlight.get(ownerId) ?? { uploads: 0, promisedBytes: 0, writtenBytes: 0 };
    refuseIfShort(ownerId, own, announcedBytes ?? 0);
    inFlight.set(ownerId, own);
    own.uploads++;
    let toComeBytes = announcedBytes ?? Number.POSITIVE_INFINITY;
    let leftBytes = 0;
    let takenBytes = 0;

    function promise(bytes: number): void {
      leftBytes += bytes;
      own.promisedBytes += bytes;
      promisedBytes += bytes;
    }

    function take(count: number): void {
      if (count > leftBytes) {
        const moreBytes = Math.max(count, Math.min(WINDOW_BYTES, toComeBytes)) - leftBytes;
        refuseIfShort(ownerId, own, moreBytes);
        promise(moreBytes);
      }
      promise(-count);
      toComeBytes -= count;
      takenBytes += count;
      own.writtenBytes += count;
    }

    function release(): void {
      promise(-leftBytes);
      own.writtenBytes -= takenBytes;
      takenBytes = 0;
      own.uploads--;
      if (own.uploads === 0) inFlight.delete(ownerId);
    }

    return { take, check: () => refuseIfShort(ownerId, own, 0), release };
  }

  return { reserve };
}
