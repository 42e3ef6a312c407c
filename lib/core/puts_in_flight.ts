/** The PUTs to one upload. Each replaces what the one before it stored, so of all of them only the largest counts. */
interface Puts {
  ownerId: string;
  sizes: Set<{ bytes: number }>;
  /** What they may bring beyond what is counted for the upload already. */
  extraBytes: number;
}

/** One PUT to an upload. */
export interface PutInFlight {
  /** Its size as it is counted. */
  bytes: () => number;
  /** It may come to so many bytes in all. */
  growTo: (bytes: number) => void;
  end: () => void;
}

export type PutsInFlight = ReturnType<typeof createPutsInFlight>;

/** Adds up what PUTs in flight may come to, by owner. `countedBytes`: what is counted for an upload without them. */
export function createPutsInFlight(countedBytes: (uploadId: string) => number) {
  const byUpload = new Map<string, Puts>();
  const byOwner = new Map<string, number>();

  function extraOf(uploadId: string, bytes: number): number {
    return Math.max(0, bytes - countedBytes(uploadId));
  }

  /** To be called whenever a PUT, or what is counted for its upload, has changed. */
  function refresh(uploadId: string): void {
    const puts = byUpload.get(uploadId);
    if (puts === undefined) return;
    const largestBytes = Math.max(0, ...[...puts.sizes].map(({ bytes }) => bytes));
    const extraBytes = extraOf(uploadId, largestBytes);
    const ownerBytes = of(puts.ownerId) + extraBytes - puts.extraBytes;
    if (ownerBytes === 0) byOwner.delete(puts.ownerId);
    else byOwner.set(puts.ownerId, ownerBytes);
    puts.extraBytes = extraBytes;
    if (puts.sizes.size === 0) byUpload.delete(uploadId);
  }

  /** How many bytes more are to be counted if a PUT of this size is under way to this upload. */
  function moreBytes(uploadId: string, bytes: number): number {
    return Math.max(0, extraOf(uploadId, bytes) - (byUpload.get(uploadId)?.extraBytes ?? 0));
  }

  function begin(uploadId: string, ownerId: string, bytes: number): PutInFlight {
    const puts = byUpload.get(uploadId) ?? { ownerId, sizes: new Set(), extraBytes: 0 };
    byUpload.set(uploadId, puts);
    const size = { bytes };
    puts.sizes.add(size);
    refresh(uploadId);
    return {
      bytes: () => size.bytes,
      growTo(grownBytes) {
        size.bytes = grownBytes;
        refresh(uploadId);
      },
      end() {
        puts.sizes.delete(size);
        refresh(uploadId);
      },
    };
  }

  function of(ownerId: string): number {
    return byOwner.get(ownerId) ?? 0;
  }

  return { begin, moreBytes, refresh, of };
}
