import type { ObjectStat } from "../objects.ts";

/** Some 300 bytes each. An upload is confirmed soon after its PUT, if at all. */
const KEPT_MAX = 10_000;

/** The SHA-256 sums of the objects that were PUT last, until their uploads are confirmed. They do not survive a restart. */
export function createStagedChecksums() {
  const sums = new Map<string, { etag: string; checksumSha256: string }>();

  function note(objectKey: string, { etag, checksumSha256 }: ObjectStat): void {
    // At its end again: the oldest go first.
    sums.delete(objectKey);
    if (checksumSha256 === undefined || checksumSha256 === null) return;
    sums.set(objectKey, { etag, checksumSha256 });
    const [oldest] = sums.keys();
    if (sums.size > KEPT_MAX && oldest !== undefined) sums.delete(oldest);
  }

  /** The sum of this very object; null if it is not known. */
  function find(objectKey: string, { etag }: ObjectStat): string | null {
    const sum = sums.get(objectKey);
    return sum?.etag === etag ? sum.checksumSha256 : null;
  }

  return { note, find };
}
