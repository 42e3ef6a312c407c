/** A result that took many steps is kept this many times as long as it took, so that reading is a hundredth of the work. */
const KEPT_FACTOR = 99;
/** A result of up to this many steps is not kept: it is read again each time. */
const SHORT_STEPS_MAX = 8;

/** A result, and the number of steps that it took. */
export interface Reading<T> {
  value: T;
  steps: number;
}

/** Shares one long reading among all who ask while it is under way, and keeps its result for a while if it took long. */
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
