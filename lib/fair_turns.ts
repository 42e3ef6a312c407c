/** A workspace or person with work that waits, or waited a moment ago. */
interface Owner {
  /** The time that their work has taken, on a clock that starts at that of whoever was served when they came. */
  virtualMs: number;
  /** The waiting bits of work, the next one first. Those before `first` have been taken. */
  waiting: (() => void)[];
  first: number;
  /** Whether they are in the heap, or their work is being done. */
  isQueued: boolean;
}

/** Work that takes turns at the event loop, bit by bit. */
export interface FairTurns {
  /** Resolves when the next bit of the owner's work may be done. The time until it waits again is counted. */
  wait: (ownerId: string) => Promise<void>;
  /** Whether anything waits. */
  isWaited: () => boolean;
}

/** Owners that wait for nothing are forgotten when there are so many more of them than of those that do. */
const IDLE_OWNERS_MAX = 1_000;

/**
 * Shares the event loop among owners: next is the one whose work has taken the least time, so that one who asks for little
 * does not wait for those who ask for much. `creditAfter` tells how many milliseconds of work may be begun in a turn of
 * the loop, from the length of the turn before and from what is left of the last credit (less than 0: it took longer).
 */
export function createFairTurns(creditAfter: (turnMs: number, leftMs: number) => number): FairTurns {
  const owners = new Map<string, Owner>();
  /** The owners with waiting work, the one whose work has taken the least time on top. */
  const heap = createHeap<Owner>((a, b) => a.virtualMs < b.virtualMs);
  let waitingCount = 0;
  let isScheduled = false;
  /** The virtual time of the owner who was served last. */
  let virtualNowMs = 0;
  let creditMs = 0;
  let turnEndedAtMs = 0;

  function wait(ownerId: string): Promise<void> {
    return new Promise((resolve) => {
      const owner = ownerOf(ownerId);
      owner.waiting.push(resolve);
      waitingCount++;
      enqueue(owner);
      if (isScheduled) return;
      isScheduled = true;
      turnEndedAtMs = performance.now();
      creditMs = 0;
      setImmediate(onTurn);
    });
  }

  function ownerOf(ownerId: string): Owner {
    let owner = owners.get(ownerId);
    if (owner === undefined) {
      owner = { virtualMs: virtualNowMs, waiting: [], first: 0, isQueued: false };
      owners.set(ownerId, owner);
      if (owners.size > heap.size() + IDLE_OWNERS_MAX) forgetIdle();
    }
    return owner;
  }

  function enqueue(owner: Owner): void {
    if (owner.isQueued) return;
    owner.isQueued = true;
    // An owner who was away has saved nothing up.
    owner.virtualMs = Math.max(owner.virtualMs, virtualNowMs);
    heap.push(owner);
  }

  function onTurn(): void {
    const startedMs = performance.now();
    creditMs = creditAfter(startedMs - turnEndedAtMs, creditMs);
    wakeNext(startedMs);
  }

  function wakeNext(startedMs: number): void {
    const owner = creditMs > 0 ? heap.pop() : undefined;
    if (owner === undefined) return endTurn();
    virtualNowMs = owner.virtualMs;
    waitingCount--;
    takeFirst(owner)?.();
    // A tick requested by a microtask comes after all microtasks. By then the work that was woken has done its bit and waits
    // again, or its response is made.
    queueMicrotask(() => process.nextTick(charge, owner, startedMs));
  }

  function charge(owner: Owner, startedMs: number): void {
    const nowMs = performance.now();
    const tookMs = nowMs - startedMs;
    owner.virtualMs += tookMs;
    creditMs -= tookMs;
    owner.isQueued = false;
    if (owner.waiting.length > 0) enqueue(owner);
    wakeNext(nowMs);
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

  function forgetIdle(): void {
    for (const [ownerId, owner] of owners) {
      if (!owner.isQueued && owner.virtualMs <= virtualNowMs) owners.delete(ownerId);
    }
  }

  return { wait, isWaited: () => waitingCount > 0 };
}

/** The first that waits. An array's own `shift` would move all others each time. */
function takeFirst(owner: Owner): (() => void) | undefined {
  const item = owner.waiting[owner.first++];
  if (owner.first * 2 >= owner.waiting.length) {
    owner.waiting = owner.waiting.slice(owner.first);
    owner.first = 0;
  }
  return item;
}

/** A binary heap: the least is taken in a time that grows with the logarithm of how many there are. */
function createHeap<T>(isLess: (a: T, b: T) => boolean) {
  const items: T[] = [];

  function push(item: T): void {
    let at = items.push(item) - 1;
    while (at > 0) {
      const above = (at - 1) >> 1;
      const parent = items[above];
      if (parent === undefined || !isLess(item, parent)) break;
      items[at] = parent;
      at = above;
    }
    items[at] = item;
  }

  function pop(): T | undefined {
    const top = items[0];
    const last = items.pop();
    if (last === undefined || items.length === 0) return top;
    let at = 0;
    for (;;) {
      const [left, right] = [items[2 * at + 1], items[2 * at + 2]];
      if (left === undefined) break;
      const isRight = right !== undefined && isLess(right, left);
      const child = isRight ? right : left;
      if (!isLess(child, last)) break;
      items[at] = child;
      at = 2 * at + (isRight ? 2 : 1);
    }
    items[at] = last;
    return top;
  }

  return { push, pop, size: () => items.length };
}
