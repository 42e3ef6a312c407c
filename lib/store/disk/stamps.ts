import type { ObjectStat } from "../objects.ts";

/** Steps of the times that objects are stamped with. A double holds today's seconds to a quarter of a microsecond. */
const STAMP_STEP_US = 4;

/**
 * Makes the stamps of objects, in microseconds: the time, but never twice the same in a process, and later ones are
 * higher. Two objects of one length still differ by it.
 */
export function createStamps(now: () => number): () => number {
  let lastUs = 0;
  return () => {
    lastUs = Math.max(lastUs + STAMP_STEP_US, Math.floor(now()) * 1_000);
    return lastUs;
  };
}

/**
 * Size and ETag of an object. The ETag is the size and the stamp, which is set once when the object is stored: as its
 * file's modification time, or in its row.
 */
export function statOf(sizeBytes: number, stampUs: number | bigint): ObjectStat {
  return { sizeBytes, etag: `"${sizeBytes.toString(16)}-${stampUs.toString(16)}"` };
}

/**
 * Size and ETag of an object's file. The ETag's stamp is the modification time: so it needs no file of its own beside the
 * object, a hard link shares it, and it survives a backup that keeps times (`cp -a`, `rsync -a`).
 */
export function statOfFile({ size, mtimeNs }: { size: bigint; mtimeNs: bigint }): ObjectStat {
  return statOf(Number(size), mtimeNs / 1_000n);
}

/** When an object was stored, as its ETag has it. */
export function modifiedAtMsOf({ etag }: ObjectStat): number {
  return Math.floor(Number.parseInt(etag.slice(etag.indexOf("-") + 1), 16) / 1_000);
}
