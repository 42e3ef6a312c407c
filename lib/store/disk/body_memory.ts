/**
 * The memory that all PUTs together may hold. A body that finds none left goes on with less: a small one to a file, a large
 * one to the disk chunk by chunk.
 */
const BODY_MEMORY_BYTES_MAX = 16 * 1024 * 1024;

/** The part of it that one PUT holds. */
export interface BodyMemory {
  /** False if there is no room for so many bytes more. */
  take: (bytes: number) => boolean;
  /** Gives all of it back. */
  release: () => void;
}

/** The memory for the bodies of PUTs. Each one that begins takes its own share of it, and releases it in the end. */
export function createBodyMemory(bytesMax = BODY_MEMORY_BYTES_MAX): () => BodyMemory {
  let takenBytes = 0;

  return () => {
    let ownBytes = 0;
    return {
      take(bytes) {
        if (takenBytes + bytes > bytesMax) return false;
        takenBytes += bytes;
        ownBytes += bytes;
        return true;
      },
      release() {
        takenBytes -= ownBytes;
        ownBytes = 0;
      },
    };
  };
}
