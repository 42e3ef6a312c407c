/**
 * Reads a body whose length is known and small; the caller checks that so many came. Chunks are copied: a client that sends
 * single bytes would else keep far more than it has sent.
 */
export async function readSmallBody(chunks: AsyncIterable<Buffer>, lengthBytes: number): Promise<Buffer> {
  let whole: Buffer | null = null;
  let sizeBytes = 0;
  for await (const chunk of chunks) {
    // All of it at once, which is the rule: what is still to come is the end.
    if (sizeBytes === 0 && chunk.length === lengthBytes) whole = chunk;
    else {
      whole ??= Buffer.allocUnsafeSlow(lengthBytes);
      chunk.copy(whole, sizeBytes);
    }
    sizeBytes += chunk.length;
  }
  return (whole ?? Buffer.alloc(0)).subarray(0, sizeBytes);
}
