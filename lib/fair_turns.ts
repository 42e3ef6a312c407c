/** A workspace or person with work that waits. */
interface Owner {
  /** The time that their work has taken, on a clock that starts at that of whoever was served when they came. */
  virtualMs: number;
  /** What waits, the first to be next. */
  readonly waiting: (() => void)[];
}

/** Work that takes turns at the event loop, bit by bit. */
export interface FairTurns {
  /** Resolves when the next bit of the owner's work may be done. What it takes until it waits again is counted. */
  wait: (ownerId: string) => Promise<void>;
  /** Whether anything waits. */
  isWaited: () => boolean;
}

/**
 * Shares the event loop among owners: next is the one whose work has taken the least time, so that one who asks for little
 * does not wait for those who ask for much. `creditAfter` tells how many milliseconds of work may be begun in a turn of
 * the loop, from the length of the turn before and from what is left of the last credit (less than 0: it took longer).
 */
export function createFairTurns(creditAfter: (turnMs: number, leftMs: number) => number): FairTurns {
  const owners = new Map<string, Owner>();
  let waitingCount = 0;
  let isScheduled = false;
  /** The virtual time of the owner who was served last. */
  let virtualNowMs = 0;
  let creditMs = 0;
  let turnEndedAtMs = 0;

  function wait(ownerId: string): Promise<void> {
    return new Promise((resolve) => {
      let owner = owners.get(ownerId);
      if (owner === undefined) {
        owner = { virtualMs: virtualNowMs, waiting: [] };
        owners.set(ownerId, owner);
      }
      owner.waiting.push(resolve);
      waitingCount++;
      if (isScheduled) return;
      isScheduled = true;
      turnEndedAtMs = performance.now();
      creditMs = 0;
      setImmediate(onTurn);
    });
  }

  function onTurn(): void {
    creditMs = creditAfter(performance.now() - turnEndedAtMs, creditMs);
    wakeNext();
  }

  function wakeNext(): void {
    const owner = creditMs > 0 ? leastServed() : null;
    if (owner === null) return endTurn();
    virtualNowMs = owner.virtualMs;
    const startedMs = performance.now();
    waitingCount--;
    owner.waiting.shift()?.();
    // A tick that is asked for by a microtask comes after all microtasks: by then what was woken has done its bit and waits
    // again, or its response is made.
    queueMicrotask(() => process.nextTick(charge, owner, startedMs));
  }

  function charge(owner: Owner, startedMs: number): void {
    const tookMs = performance.now() - startedMs;
    owner.virtualMs += tookMs;
    creditMs -= tookMs;
    wakeNext();
  }

  function endTurn(): void {
    if (waitingCount === 0) {
      isScheduled = false;
      owners.clear();
      virtualNowMs = 0;
      return;
    }
    turnEndedAtMs = performance.now();
    setImmediate(onTurn);
  }

  function leastServed(): Owner | null {
    let least: Owner | null = null;
    for (const [ownerId, owner] of owners) {
      if (owner.waiting.length > 0) {
        if (least === null || owner.virtualMs < least.virtualMs) least = owner;
      } else if (owner.virtualMs < virtualNowMs) {
        // Coming back later they are no better off for having been away.
        owners.delete(ownerId);
      }
    }
    return least;
  }

  return { wait, isWaited: () => waitingCount > 0 };
}
