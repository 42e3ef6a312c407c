import { createTurns } from "../../turns.ts";

/** Runs a piece of work when it is the owner's turn and one of the places is free. */
export type FairGate = <T>(ownerId: string, work: () => Promise<T>) => Promise<T>;

/**
 * Lets so many pieces of work run at once. The owners who wait take turns, one piece each: an owner with a hundred pieces
 * does not keep another's single one waiting behind all of them.
 */
export function createFairGate(places: number): FairGate {
  const waiting = createTurns<() => void>();
  let free = places;

  function waitForTurn(ownerId: string): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    waiting.add(ownerId, resolve);
    return promise;
  }

  /** Hands a place that has become free to the next in turn. */
  function passOn(): void {
    const next = waiting.next();
    if (next === undefined) free++;
    else next();
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
