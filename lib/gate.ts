import { AppError } from "./errors.ts";

export interface GateOptions {
  /** Pieces of work that run at once. */
  places: number;
  /** How long one waits for a place. */
  waitMsMax: number;
  /** The message for callers that got no place in time. */
  refusal: string;
}

/** Runs `work` once a place is free. Throws `storage_unavailable` if none was in time; nothing was begun then. */
export type Gate = <T>(owner: string, work: () => Promise<T>) => Promise<T>;

/**
 * Lets only so much work run at once, and keeps one owner from taking all places: an owner gets another place only while
 * it holds fewer than are free. Alone it gets half of them, and a newcomer finds one unless many owners are at work.
 * Among those who wait, the owner with the fewest places comes first.
 */
export function createGate({ places, waitMsMax, refusal }: GateOptions): Gate {
  let free = places;
  const heldByOwner = new Map<string, number>();
  /** By owner; each owner's in the order in which they came. */
  const waitingByOwner = new Map<string, Set<() => void>>();

  const heldBy = (owner: string): number => heldByOwner.get(owner) ?? 0;
  const mayEnter = (owner: string): boolean => heldBy(owner) < free;

  function take(owner: string): void {
    free--;
    heldByOwner.set(owner, heldBy(owner) + 1);
  }

  function leave(owner: string): void {
    free++;
    const held = heldBy(owner) - 1;
    if (held === 0) heldByOwner.delete(owner);
    else heldByOwner.set(owner, held);
    // Only a place that becomes free can let anyone in, so those who still wait after this may not enter yet.
    for (let next = nextOwner(); next !== null; next = nextOwner()) {
      const [first] = waitingByOwner.get(next) ?? [];
      if (first === undefined) return;
      take(next);
      stopWaiting(next, first);
      first();
    }
  }

  function nextOwner(): string | null {
    let next: string | null = null;
    for (const owner of waitingByOwner.keys()) {
      if (mayEnter(owner) && (next === null || heldBy(owner) < heldBy(next))) next = owner;
    }
    return next;
  }

  function stopWaiting(owner: string, enter: () => void): void {
    const waiting = waitingByOwner.get(owner);
    waiting?.delete(enter);
    // To the end of the line: of two owners with equally many places, each gets its turn.
    waitingByOwner.delete(owner);
    if (waiting !== undefined && waiting.size > 0) waitingByOwner.set(owner, waiting);
  }

  function wait(owner: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const enter = (): void => {
        clearTimeout(timer);
        resolve();
      };
      const timer = setTimeout(() => {
        stopWaiting(owner, enter);
        reject(new AppError("storage_unavailable", refusal, { retryAfterSeconds: Math.ceil(waitMsMax / 1000) }));
      }, waitMsMax);
      const waiting = waitingByOwner.get(owner) ?? new Set();
      waitingByOwner.set(owner, waiting.add(enter));
    });
  }

  return async (owner, work) => {
    if (mayEnter(owner)) take(owner);
    else await wait(owner);
    try {
      return await work();
    } finally {
      leave(owner);
    }
  };
}
