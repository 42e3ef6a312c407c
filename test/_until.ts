import { setTimeout as delay } from "node:timers/promises";

/** Far more than anything here needs, so that a slow machine does not fail a test: only a defect does. */
const PATIENCE_MS = 20_000;

/** Waits until `isTrue` says so; fails, naming what was waited for, where that never comes. */
export async function until(isTrue: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const startedMs = performance.now();
  while (!(await isTrue())) {
    if (performance.now() - startedMs > PATIENCE_MS) throw new Error(`Never came: ${what}`);
    await delay(2);
  }
}
