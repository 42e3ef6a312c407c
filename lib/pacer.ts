import { createFairTurns } from "./fair_turns.ts";

/** While the event loop has other work, long reads together may take this share of its time. */
const SHARE = 0.2;
/** A turn of the loop that took no longer had nothing else to do. */
const IDLE_TURN_MS = 0.1;
/** How much unused time may be saved up: about two steps. */
const CREDIT_MS_MAX = 2;

const turns = createFairTurns((turnMs, leftMs) =>
  turnMs <= IDLE_TURN_MS ? Math.max(leftMs, 0) + IDLE_TURN_MS : Math.min(CREDIT_MS_MAX, leftMs + turnMs * SHARE),
);

/**
 * To be awaited between the steps of a long read, each of 1 ms or so. All long reads of the process share one part of the
 * event loop's time, and the whole of it if there is nothing else to do: a hundred at once delay a request by no more than
 * one does. Owners take turns at it. `ownerId`: a workspace or a person; empty for the service itself.
 */
export function giveWay(ownerId: string): Promise<void> {
  return turns.wait(ownerId);
}
