/** What took more than a few steps to count is kept this many times as long as that work took: a hundredth of the process's work. */
const KEPT_FACTOR = 99;
/** No count is kept for longer, whatever it cost. */
const KEPT_MS_MAX = 60_000;
/** Up to this many steps a count is made anew each time. */
const SHORT_STEPS_MAX = 8;
/** Counts that are remembered at once; of more the oldest goes. */
const COUNTS_MAX = 1_000;

/** A count, and what it cost. */
export interface Counted {
  total: number;
  steps: number;
  /** Without the time in which others had their turn. */
  workMs: number;
}

export interface KeptCountsOptions {
  keptFactor?: number | undefined;
  countsMax?: number | undefined;
}

/**
 * Counts that many ask for. Those who ask for the same one while it is made share it. A short one is made anew each time,
 * so it is exact; a long one is kept for a while, so that no number of clients makes counting more than a small part of
 * the process's work.
 */
export function createKeptCounts({ keptFactor = KEPT_FACTOR, countsMax = COUNTS_MAX }: KeptCountsOptions = {}) {
  const counts = new Map<string, { total: Promise<number>; goodUntilMs: number }>();

  /** The count of this name: the one that is being made, or is kept, or a new one by `count`. */
  function get(name: string, count: () => Promise<Counted>): Promise<number> {
    const known = counts.get(name);
    if (known !== undefined && performance.now() < known.goodUntilMs) return known.total;
    counts.delete(name);
    const [oldest] = counts.keys();
    if (oldest !== undefined && counts.size >= countsMax) counts.delete(oldest);

    const pass = count();
    const entry = { total: pass.then(({ total }) => total), goodUntilMs: Number.POSITIVE_INFINITY };
    counts.set(name, entry);
    const forget = (): void => {
      if (counts.get(name) === entry) counts.delete(name);
    };
    pass.then(({ steps, workMs }) => {
      if (steps <= SHORT_STEPS_MAX) forget();
      else entry.goodUntilMs = performance.now() + Math.min(KEPT_MS_MAX, keptFactor * workMs);
    }, forget);
    return entry.total;
  }

  return { get, size: () => counts.size };
}
