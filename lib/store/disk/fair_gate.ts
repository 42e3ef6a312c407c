/** Runs a piece of work when it is the owner's turn and one of the places is free. */
export type FairGate = <T>(ownerId: string, work: () => Promise<T>) => Promise<T>;

/**
 * Lets so many pieces of work run at once. The owners who wait take turns, one piece each: an owner with a hundred pieces
 * does not keep another's single one waiting behind all of them.
 */
export function createFairGate(places: number): FairGate {
  /** In the order of their turns: a Map keeps the order in which its keys were set. */
  const waiting = new Map<string, (() => void)[]>();
  let free = places;

  function waitForTurn(ownerId: string): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const own = waiting.get(ownerId);
    if (own === undefined) waiting.set(ownerId, [resolve]);
    else own.push(resolve);
    return promise;
  }

  /** Hands a place that has become free to the next in turn. */
  function passOn(): void {
    for (const [ownerId, own] of waiting) {
      const next = own.shift();
      // To the end of the line.
      waiting.delete(ownerId);
      if (own.length > 0) waiting.set(ownerId, own);
      return next?.();
    }
    free++;
  }

  return async (ownerId, work) => {
    if (free > 0) free--;
    else await waitForTurn(ownerId);
    try {
      return await work();
    } finally {
      passOn();
    }
  };
}
