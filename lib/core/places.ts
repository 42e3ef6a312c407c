/** Owners whose places are remembered. */
const OWNERS_HELD_MAX = 10_000;
/** An owner who has used up all places is counted anew this often at most: counting takes as long as there are rows. */
const COUNT_AGAIN_MS = 60_000;

export interface PlacesOptions {
  /** How many rows an owner may have. */
  max: number;
  /** Counts the rows that an owner has. */
  count: (ownerId: string, nowMs: number) => number;
  now: () => number;
}

export type Places = ReturnType<typeof createPlaces>;

/**
 * Bounds the rows of each owner. They are counted once; from then on only new ones are, so that a create costs the same
 * however many there are. What is left is never more than there really is: a write that failed has used a place too, until
 * the next count.
 */
export function createPlaces({ max, count, now }: PlacesOptions) {
  const placesByOwner = new Map<string, { left: number; countedAtMs: number }>();

  /** Takes a place for one more row; false if none is left. Runs inside the write that makes the row. */
  function take(ownerId: string): boolean {
    const nowMs = now();
    let places = placesByOwner.get(ownerId);
    if (places === undefined || (places.left <= 0 && Math.abs(nowMs - places.countedAtMs) >= COUNT_AGAIN_MS)) {
      if (placesByOwner.size >= OWNERS_HELD_MAX) placesByOwner.clear();
      places = { left: max - count(ownerId, nowMs), countedAtMs: nowMs };
      placesByOwner.set(ownerId, places);
    }
    if (places.left <= 0) return false;
    places.left--;
    return true;
  }

  /** To be called once rows of the owner are gone for good: the next `take` counts. */
  function forget(ownerId: string): void {
    placesByOwner.delete(ownerId);
  }

  return { take, forget };
}
