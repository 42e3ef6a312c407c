import type { BodyMemory } from "./body_memory.ts";

/** The first piece of memory for a body of unknown length; doubled as it grows. */
const FIRST_BYTES = 4 * 1024;

/** A body that ended and is small, or what came of one before it proved not to be. */
export type SmallBody = { isWhole: true; bytes: Buffer } | { isWhole: false; chunks: Buffer[] };

/**
 * Reads a body as long as it is small and there is memory for it. Chunks are copied: a client that sends single bytes would
 * else keep far more than it has sent.
 */
export async function readSmallBody(
  chunks: AsyncIterator<Buffer>,
  { lengthBytes, bytesMax, memory }: { lengthBytes: number | null; bytesMax: number; memory: BodyMemory },
): Promise<SmallBody> {
  let buffer: Buffer = Buffer.alloc(0);
  let sizeBytes = 0;

  /** Whether there is room for a chunk. */
  function makeRoom(chunk: Buffer): boolean {
    const neededBytes = sizeBytes + chunk.length;
    if (neededBytes > bytesMax) return false;
    if (neededBytes <= buffer.length) return true;
    const capacityBytes = Math.min(bytesMax, Math.max(neededBytes, lengthBytes ?? 0, 2 * buffer.length, FIRST_BYTES));
    if (!memory.take(capacityBytes - buffer.length)) return false;
    const larger = Buffer.allocUnsafeSlow(capacityBytes);
    buffer.copy(larger, 0, 0, sizeBytes);
    buffer = larger;
    return true;
  }

  for (;;) {
    const { value: chunk, done } = await chunks.next();
    if (done === true) return { isWhole: true, bytes: buffer.subarray(0, sizeBytes) };
    if (sizeBytes === 0 && chunk.length === lengthBytes && memory.take(chunk.length)) {
      // All of it at once, which is the rule: what is still to come is the end.
      buffer = chunk;
      sizeBytes = chunk.length;
      continue;
    }
    if (!makeRoom(chunk)) return { isWhole: false, chunks: [buffer.subarray(0, sizeBytes), chunk] };
    chunk.copy(buffer, sizeBytes);
    sizeBytes += chunk.length;
  }
}
