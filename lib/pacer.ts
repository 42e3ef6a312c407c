/** Of the time in which the event loop has other work, long reads together may take this part. */
const SHARE = 0.2;
/** A turn of the loop that took no longer had nothing else to do. */
const IDLE_TURN_MS = 0.1;
/** How much unused time may be saved up, and how much a step may be ahead: about one step. */
const CREDIT_MS_MAX = 2;

/** A workspace or person with long reads under way. */
interface Owner {
  /** The time that their reads have taken, on a clock that starts at that of whoever was served when they came. */
  virtualMs: number;
  /** Reads that wait for their next step, the first to be next. */
  readonly waiting: (() => void)[];
}

const owners = new Map<string, Owner>();
let waitingCount = 0;
let isScheduled = false;
/** The virtual time of the owner who was served last. */
let virtualNowMs = 0;
let creditMs = 0;
let turnEndedAtMs = 0;

/**
 * To be awaited between the steps of a long read, each of 1 ms or so. All long reads of the process share one part of the
 * event loop's time, and the whole of it if there is nothing else to do: a hundred at once delay a request by no more than
 * one does. Next is the owner whose reads have taken the least time: a tenant who reads a little does not wait for those
 * who read a lot. `ownerId`: a workspace or a person; empty for the service itself.
 */
export function giveWay(ownerId: string): Promise<void> {
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
  const turnMs = performance.now() - turnEndedAtMs;
  if (turnMs <= IDLE_TURN_MS) creditMs = Math.max(creditMs, 0) + IDLE_TURN_MS;
  else creditMs = Math.min(CREDIT_MS_MAX, creditMs + turnMs * SHARE);
  if (creditMs > 0) wakeNext();
  else endTurn();
}

function wakeNext(): void {
  const owner = leastServed();
  if (owner === null) return endTurn();
  virtualNowMs = owner.virtualMs;
  const startedMs = performance.now();
  waitingCount--;
  owner.waiting.shift()?.();
  // A tick that is asked for by a microtask comes after all microtasks: by then the read that was woken has made its step
  // and waits again, or its response is made.
  queueMicrotask(() =>
    process.nextTick(() => {
      const stepMs = performance.now() - startedMs;
      owner.virtualMs += stepMs;
      creditMs -= stepMs;
      if (creditMs > 0) wakeNext();
      else endTurn();
    }),
  );
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

/** The owner with a waiting read whose reads have taken the least time; null if nothing waits. */
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
