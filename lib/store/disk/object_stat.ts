import type { BigIntStats } from "node:fs";
import type { ObjectStat } from "../objects.ts";

/**
 * Size and ETag of an object's file. The ETag is the size and the modification time in microseconds, which is set once
 * when the object is stored and is unique to that storing. So it needs no file of its own beside the object, a hard link
 * shares it, and it survives a backup that keeps times (`cp -a`, `rsync -a`).
 */
export function statOfFile({ size, mtimeNs }: BigIntStats): ObjectStat {
  return { sizeBytes: Number(size), etag: `"${size.toString(16)}-${(mtimeNs / 1_000n).toString(16)}"` };
}
