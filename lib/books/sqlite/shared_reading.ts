/** A result that took many steps is kept this many times as long as it took, so that reading is a hundredth of the work. */
const KEPT_FACTOR = 99;
/** A result of up to this many steps is not kept: it is read anew each time, so it is exact. */
const SHORT_STEPS_MAX = 8;
/** The most results that are remembered; beyond it the oldest is forgotten. */
const READINGS_MAX = 1_000;

/** A result, and its cost. */
export interface Reading<T> {
  value: T;
  steps: number;
  /** Without the time in which others had their turn; by default all the time that it took. */
  workMs?: number;
}

export interface SharedReadingOptions {
  keptFactor?: number | undefined;
  /** No result is kept for longer, whatever it cost. */
  keptMsMax?: number | undefined;
  shortStepsMax?: number | undefined;
  readingsMax?: number | undefined;
}

/**
 * Readings that many callers want. Callers that ask for the same name while it is read share one reading. A short one is made
 * anew each time; a long one is kept for a while, so that no number of clients makes reading more than a small part of the
 * process's work.
 */
export function createSharedReadings<T>(options: SharedReadingOptions = {}) {
  const { keptFactor = KEPT_FACTOR, keptMsMax = Number.POSITIVE_INFINITY } = options;
  const { shortStepsMax = SHORT_STEPS_MAX, readingsMax = READINGS_MAX } = options;
  const known = new Map<string, { value: Promise<T>; goodUntilMs: number }>();

  /** The result of this name: the one that is being read, or is kept, or a new one by `read`. */
  function get(name: string, read: () => Promise<Reading<T>>): Promise<T> {
    const startedAtMs = performance.now();
    const present = known.get(name);
    if (present !== undefined && startedAtMs < present.goodUntilMs) return present.value;
    known.delete(name);
    const [oldest] = known.keys();
    if (oldest !== undefined && known.size >= readingsMax) known.delete(oldest);

    const pass = read();
    const entry = { value: pass.then(({ value }) => value), goodUntilMs: Number.POSITIVE_INFINITY };
    known.set(name, entry);
    const forget = (): void => {
      if (known.get(name) === entry) known.delete(name);
    };
    pass.then(({ steps, workMs = performance.now() - startedAtMs }) => {
      if (steps <= shortStepsMax) forget();
      else entry.goodUntilMs = performance.now() + Math.min(keptMsMax, keptFactor * workMs);
    }, forget);
    return entry.value;
  }

  return { get, size: () => known.size };
}
