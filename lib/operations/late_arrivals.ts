import type { Removals } from "../core/removals.ts";
import type { ObjectStore } from "../store/objects.ts";

/** A staging object younger than its URL's life and this may belong to a PUT that is still under way. */
const LATE_ARRIVAL_AGE_MS = 24 * 60 * 60_000;
/** What follows the prefix in a key of ours: the upload's id and 32 random digits. */
const UNDER_PREFIX = /^([0-9a-f-]{36})\/[0-9a-f]{32}$/;

export interface LateArrivalsOptions {
  objects: ObjectStore;
  removals: Removals;
  /**
   * Told of every object: on an S3 server nothing else says what was PUT for a pending upload. Returns false if no pending
   * upload names it.
   */
  noteStaged: (objectKey: string, sizeBytes: number) => boolean;
  /** The staging prefix of this installation, ending in a slash. */
  stagingPrefix: string;
  uploadUrlTtlMs: number;
  now: () => number;
  /** Asked before each object: the look ends early where the service does. */
  isStopping: () => boolean;
}

/**
 * Looks through staging for objects that nothing names, and enters them for removal: a PUT that began in time may end long
 * after its row and its removal are gone (NO-ORPHAN). Resolves with their number; rejects where the store cannot be listed.
 */
export async function enterLateArrivals(options: LateArrivalsOptions): Promise<number> {
  const { objects, removals, noteStaged, stagingPrefix, uploadUrlTtlMs, now, isStopping } = options;
  let found = 0;
  for await (const { objectKey, modifiedAtMs, sizeBytes } of objects.list(stagingPrefix)) {
    if (isStopping()) break;
    const nowMs = now();
    const [, uploadId] = UNDER_PREFIX.exec(objectKey.slice(stagingPrefix.length)) ?? [];
    // What someone else has put under our prefix stays: it is not ours to remove.
    if (uploadId === undefined) continue;
    if (noteStaged(objectKey, sizeBytes)) continue;
    // Nothing else tells what was PUT to a URL that has outlived its upload.
    await removals.noteFound(objectKey, sizeBytes);
    if (modifiedAtMs > nowMs - uploadUrlTtlMs - LATE_ARRIVAL_AGE_MS) continue;
    if (await removals.enterFound({ objectKey, uploadId, sizeBytes, nowMs })) found++;
  }
  return found;
}
