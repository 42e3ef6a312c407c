import { giveWay } from "../pacer.ts";

/** The part of the process that one owner's requests may use before they wait for the others'. */
const SHARE = 0.1;
/** What an owner may use at once: a page that opens a dozen requests is not slowed down. */
const BURST_MS = 5;
/** An owner is alone if nobody else has asked for anything for this long. */
const ALONE_AFTER_MS = 100;
/** Owners whose use is remembered. */
const OWNERS_HELD_MAX = 10_000;

interface Use {
  usedMs: number;
  atMs: number;
}

/**
 * Shares the event loop among the owners of requests. An owner that has used more than its share waits until the others'
 * requests of this turn are begun, and takes turns with other such owners. Nothing is lost by it: an owner that is alone
 * uses all of the process.
 */
export function createFairTurns() {
  const uses = new Map<string, Use>();
  let latestOwnerId = "";
  let latestAtMs = Number.NEGATIVE_INFINITY;
  /** When somebody else than the latest owner last asked. */
  let otherAtMs = Number.NEGATIVE_INFINITY;

  function useOf(ownerId: string, nowMs: number): Use {
    let use = uses.get(ownerId);
    if (use === undefined) {
      if (uses.size >= OWNERS_HELD_MAX) uses.clear();
      use = { usedMs: 0, atMs: nowMs };
      uses.set(ownerId, use);
    }
    use.usedMs = Math.max(0, use.usedMs - (nowMs - use.atMs) * SHARE);
    use.atMs = nowMs;
    return use;
  }

  /** Null if the owner's next request may be begun at once; otherwise resolves when it is its turn. */
  function turnOf(ownerId: string): Promise<void> | null {
    const nowMs = performance.now();
    if (ownerId !== latestOwnerId) otherAtMs = latestAtMs;
    latestOwnerId = ownerId;
    latestAtMs = nowMs;
    const isAlone = nowMs - otherAtMs > ALONE_AFTER_MS;
    return !isAlone && useOf(ownerId, nowMs).usedMs > BURST_MS ? giveWay(ownerId) : null;
  }

  /** Does a piece of an owner's work that keeps the event loop, and counts its time. */
  function inTurn<T>(ownerId: string, work: () => T): T {
    const sinceMs = performance.now();
    try {
      return work();
    } finally {
      const nowMs = performance.now();
      useOf(ownerId, nowMs).usedMs += nowMs - sinceMs;
    }
  }

  return { turnOf, inTurn };
}
