import { setImmediate as nextTurn } from "node:timers/promises";

/** The event loop gets its turn after this much work. */
const WORK_MS_MAX = 5;

/** Waits for the event loop's next turn, but only after enough work since the last one. */
export function pacer(): () => Promise<void> {
  let sinceMs = performance.now();
  return async () => {
    if (performance.now() - sinceMs < WORK_MS_MAX) return;
    await nextTurn();
    sinceMs = performance.now();
  };
}
