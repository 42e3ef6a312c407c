/** What long reads together may take of one turn of the event loop, however many are under way. */
const TURN_MS_MAX = 2;

const waiting: (() => void)[] = [];
let isWaking = false;

/**
 * To be awaited between the steps of a long read, each of 1 ms or so. All long reads of the process take turns, first come
 * first served: a hundred at once delay a request by no more than one does.
 */
export function giveWay(): Promise<void> {
  return new Promise((resolve) => {
    waiting.push(resolve);
    if (isWaking) return;
    isWaking = true;
    setImmediate(wakeSome);
  });
}

function wakeSome(): void {
  const startedMs = performance.now();
  wakeNext();

  function wakeNext(): void {
    waiting.shift()?.();
    // A tick that is asked for by a microtask comes after all microtasks: by then the read that was woken has made its
    // step and waits again, or its answer is made.
    queueMicrotask(() => process.nextTick(goOn));
  }

  function goOn(): void {
    if (waiting.length === 0) isWaking = false;
    else if (performance.now() - startedMs < TURN_MS_MAX) wakeNext();
    else setImmediate(wakeSome);
  }
}
