import type { StagedPut, Staging } from "../../books/staging.ts";
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

/** A PUT that may be written. */
export interface Admitted {
  /** To be awaited before so many more bytes are written. Throws as `Admission`. */
  take: (bytes: number) => Promise<void>;
  /** Checks again that there is room: others write to the disk too. Throws `insufficient_storage`. */
  check: () => void;
  /** All of it is stored. */
  stored: (sizeBytes: number) => void;
  /** It has ended, well or not: gives back what was not used. */
  end: () => void;
}

/**
 * Lets a PUT begin; null is an unknown length. Throws `rate_limited`, `storage_limit_exceeded` or `insufficient_storage`.
 */
export type Admission = (objectKey: string, ownerId: string, announcedBytes: number | null) => Promise<Admitted>;

/** Bounds what PUTs in flight take: their number for each URL and each owner, what an owner may stage, and the disk. */
export function createAdmission({ space, beginPut }: Pick<Staging, "beginPut"> & { space: DiskSpace }): Admission {
  const putsByUrl = new Map<string, number>();
  const putsByOwner = new Map<string, number>();

  return async function admit(objectKey, ownerId, announcedBytes) {
    refuseIfMany(putsByUrl.get(objectKey), PUTS_PER_URL_MAX, "to this URL");
    refuseIfMany(putsByOwner.get(ownerId), PUTS_PER_OWNER_MAX, "of this workspace or person");
    // Counted before the books are asked: nobody else gets this place meanwhile.
    countPut(1);
    let put: StagedPut | null = null;
    let reservation: Reservation;
    try {
      put = await beginPut(objectKey, announcedBytes);
      reservation = space.reserve(ownerId, announcedBytes);
    } catch (error) {
      put?.end();
      countPut(-1);
      throw error;
    }
    const { growTo, stored, end } = put;
    let takenBytes = 0;

    function countPut(by: 1 | -1): void {
      count(putsByUrl, objectKey, by);
      count(putsByOwner, ownerId, by);
    }

    return {
      async take(bytes) {
        takenBytes += bytes;
        await growTo(takenBytes);
        reservation.take(bytes);
      },
      check: reservation.check,
      stored,
      end() {
        countPut(-1);
        end();
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
