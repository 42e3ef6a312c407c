import { createFairTurns } from "../fair_turns.ts";

/**
 * For so long in each turn of the event loop handlers begin at once. Requests that come later in that turn wait: a tenant with
 * a thousand requests under way then delays another's single one by a turn, and not by all of them. With 3 ms a
 * client's 64 connections no longer shared one commit, which cost it 6 % of its creates.
 */
const SLICE_MS = 8;

export interface RequestTurns {
  /** A promise to await before a request's handler begins; null if it may begin at once. `ownerId`: the tenant. */
  enter: (ownerId: string) => Promise<void> | null;
}

/** Lets tenants take turns when more requests come in than can be served at once. */
export function createRequestTurns(): RequestTurns {
  const turns = createFairTurns(() => SLICE_MS);
  let isTurnKnown = false;
  let sliceEndsAtMs = 0;

  function onTurnOver(): void {
    isTurnKnown = false;
  }

  function enter(ownerId: string): Promise<void> | null {
    if (!turns.isWaited()) {
      const nowMs = performance.now();
      if (!isTurnKnown) {
        isTurnKnown = true;
        sliceEndsAtMs = nowMs + SLICE_MS;
        setImmediate(onTurnOver);
      }
      if (nowMs < sliceEndsAtMs) return null;
    }
    return turns.wait(ownerId);
  }

  return { enter };
}
