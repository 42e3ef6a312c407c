import { AppError } from "../../errors.ts";
import type { DiskSpace, Reservation } from "./space.ts";

/**
 * PUTs to one URL at once: a client whose connection broke retries before the old one is noticed to be dead, and clients
 * that retry by themselves do so twice.
 */
const PUTS_PER_URL_MAX = 3;

/** PUTs of one workspace or person at once. Each costs a socket, an open file and up to a window of disk space. */
const PUTS_PER_OWNER_MAX = 64;

/** A PUT of a few megabytes is over by then. */
const RETRY_AFTER_SECONDS = 5;

/** Whether a PUT may begin. Throws `rate_limited` or `insufficient_storage`; null is an unknown length. */
export type Admission = (objectKey: string, ownerId: string, announcedBytes: number | null) => Reservation;

/** Bounds what PUTs in flight take: their number for each URL and each owner, and their part of the disk. */
export function createAdmission(space: DiskSpace): Admission {
  const putsByUrl = new Map<string, number>();
  const putsByOwner = new Map<string, number>();

  return function admit(objectKey, ownerId, announcedBytes) {
    refuseIfMany(putsByUrl.get(objectKey), PUTS_PER_URL_MAX, "to this URL");
    refuseIfMany(putsByOwner.get(ownerId), PUTS_PER_OWNER_MAX, "of this workspace or person");
    const reservation = space.reserve(ownerId, announcedBytes);
    count(putsByUrl, objectKey, 1);
    count(putsByOwner, ownerId, 1);
    return {
      ...reservation,
      release() {
        count(putsByUrl, objectKey, -1);
        count(putsByOwner, ownerId, -1);
        reservation.release();
      },
    };
  };
}

function refuseIfMany(puts: number | undefined, max: number, whose: string): void {
  if (puts === undefined || puts < max) return;
  throw new AppError(
    "rate_limited",
    `Cannot take the upload: ${puts} others ${whose} are under way, which is the most allowed at once. Send it again when one of them has ended`,
    { retryAfterSeconds: RETRY_AFTER_SECONDS },
  );
}

function count(counts: Map<string, number>, key: string, by: number): void {
  const counted = (counts.get(key) ?? 0) + by;
  if (counted === 0) counts.delete(key);
  else counts.set(key, counted);
}
