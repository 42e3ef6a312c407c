import { createTurns } from "./turns.ts";

/** What long reads together may take of one turn of the event loop, however many are under way. */
const TURN_MS_MIN = 2;
/** Of a long turn they may take this part: with a fixed time they would all but stand still while the process is busy. */
const TURN_SHARE = 0.25;
const TURN_MS_MAX = 10;

const waiting = createTurns<() => void>();
let isWaking = false;
let lastWakeMs = 0;

/**
 * To be awaited between the steps of a long read, each of 1 ms or so. All long reads of the process share a slice of each
 * turn: a hundred at once delay a request by no more than one does. Owners take turns at it, one step each, so that a
 * tenant with a hundred reads under way does not keep another's single one waiting. `ownerId`: a workspace or a person;
 * empty for the service itself.
 */
export function giveWay(ownerId: string): Promise<void> {
  return new Promise((resolve) => {
    waiting.add(ownerId, resolve);
    if (isWaking) return;
    isWaking = true;
    lastWakeMs = performance.now();
    setImmediate(wakeSome);
  });
}

function wakeSome(): void {
  const startedMs = performance.now();
  const sliceMs = Math.min(TURN_MS_MAX, Math.max(TURN_MS_MIN, (startedMs - lastWakeMs) * TURN_SHARE));
  lastWakeMs = startedMs;
  wakeNext();

  function wakeNext(): void {
    waiting.next()?.();
    // A tick that is asked for by a microtask comes after all microtasks: by then the read that was woken has made its
    // step and waits again, or its answer is made.
    queueMicrotask(() => process.nextTick(goOn));
  }

  function goOn(): void {
    if (waiting.isEmpty()) isWaking = false;
    else if (performance.now() - startedMs < sliceMs) wakeNext();
    else setImmediate(wakeSome);
  }
}
