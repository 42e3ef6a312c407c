/** What took more than a few steps to read is kept this many times as long as that took: a hundredth of the process's work. */
const KEPT_FACTOR = 99;
/** Up to this many steps everything is read anew each time. */
const SHORT_STEPS_MAX = 8;

/** What was read, and in how many steps. */
export interface Reading<T> {
  value: T;
  steps: number;
}

/** A long reading that many ask for: those who ask while it is made share it, and one that took long is kept for a while. */
export function createSharedReading<Args extends unknown[], T>(
  readAnew: (...args: Args) => Promise<Reading<T>>,
  { keptFactor = KEPT_FACTOR, shortStepsMax = SHORT_STEPS_MAX }: { keptFactor?: number; shortStepsMax?: number } = {},
) {
  let current: Promise<T> | null = null;

  function read(...args: Args): Promise<T> {
    if (current === null) {
      const startedAtMs = performance.now();
      const pass = readAnew(...args);
      const forget = (): void => {
        current = null;
      };
      current = pass.then(({ value }) => value);
      pass.then(({ steps }) => {
        if (steps <= shortStepsMax) forget();
        else setTimeout(forget, keptFactor * (performance.now() - startedAtMs)).unref();
      }, forget);
    }
    return current;
  }

  return { read };
}
