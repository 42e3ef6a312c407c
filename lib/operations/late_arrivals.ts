import { uploadIdOfKey } from "../books/object_keys.ts";
import type { Removals } from "../books/removals.ts";
import type { Staging } from "../books/staging.ts";
import type { ObjectStore } from "../store/objects.ts";

/** Until it is older than its URL's life plus this, a staging object may belong to a PUT that is still under way. */
const LATE_ARRIVAL_AGE_MS = 24 * 60 * 60_000;

export interface LateArrivalsOptions {
  objects: Pick<ObjectStore, "list">;
  removals: Pick<Removals, "noteFound" | "enterFound">;
  /** Gets every object: on an S3 server nothing else says how much was PUT for a pending upload. */
  staging: Pick<Staging, "noteStaged">;
  /** The staging prefix of this installation, ending in a slash. */
  stagingPrefix: string;
  uploadUrlTtlMs: number;
  now: () => number;
  /** Asked before each object: the scan ends early if the service does. */
  isStopping: () => boolean;
}

/**
 * Scans staging for objects that nothing names, and enters them for removal: a PUT that began in time may end long after its
 * row and its removal are gone (NO-ORPHAN). Resolves with their number. Rejects if the store cannot be listed.
 */
export async function enterLateArrivals(options: LateArrivalsOptions): Promise<number> {
  const { objects, removals, staging, stagingPrefix, uploadUrlTtlMs, now, isStopping } = options;
  let found = 0;
  for await (const { objectKey, modifiedAtMs, sizeBytes } of objects.list(stagingPrefix)) {
    if (isStopping()) break;
    const nowMs = now();
    const uploadId = uploadIdOfKey(objectKey);
    // Somebody else put this under our prefix, so it is not ours to remove.
    if (uploadId === null) continue;
    if (await staging.noteStaged(objectKey, sizeBytes)) continue;
    // Nothing else tells the size of an object that arrived by URL after its upload was gone.
    await removals.noteFound(objectKey, sizeBytes);
    if (modifiedAtMs > nowMs - uploadUrlTtlMs - LATE_ARRIVAL_AGE_MS) continue;
    if (await removals.enterFound({ objectKey, uploadId, sizeBytes, nowMs })) found++;
  }
  return found;
}
