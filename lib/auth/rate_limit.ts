const MINUTE_MS = 60_000;
/** Callers whose use is remembered, about 10 MB. Each of two generations holds half. */
const CALLERS_HELD_MAX = 50_000;
/** Sums of fractions of a minute are inexact: less than this does not count as too early. */
const ROUNDING_MS = 0.01;

export interface RateLimitOptions {
  /** Requests a minute of each caller that has no limit of its own; 0: any number. */
  defaultPerMin: number;
  /** Milliseconds of a monotonic clock. */
  monotonicNow: () => number;
  callersHeldMax?: number;
}

export type RateLimit = ReturnType<typeof createRateLimit>;

/**
 * Counts requests by caller, in memory. Each has an allowance of one minute's requests, which may be used at once and is
 * restored evenly: so at most twice the limit in any one minute, and the limit on average. Callers do not share it.
 *
 * One number is kept per caller, the time at which the whole allowance is restored. A refused request uses nothing.
 */
export function createRateLimit({ defaultPerMin, monotonicNow, callersHeldMax = CALLERS_HELD_MAX }: RateLimitOptions) {
  // When the younger generation is full the older one is dropped: callers who were silent while thousands of others were not.
  // A search for the one who has been silent longest would take far longer than a request may.
  let younger = new Map<string, number>();
  let older = new Map<string, number>();

  /** The effective limit of a caller with this limit of its own, null if it has none. 0: unlimited. */
  function limitOf(ownPerMin: number | null): number {
    return ownPerMin ?? defaultPerMin;
  }

  /** Takes one request from the caller's allowance and returns 0; if none is left, returns the seconds until one is restored. */
  function take(callerId: string, ownPerMin: number | null): number {
    const perMin = limitOf(ownPerMin);
    if (perMin === 0) return 0;
    const nowMs = monotonicNow();
    const wholeAtMs = Math.max(younger.get(callerId) ?? older.get(callerId) ?? 0, nowMs);
    const nextMs = wholeAtMs + MINUTE_MS / perMin;
    const tooEarlyMs = nextMs - nowMs - MINUTE_MS;
    const isRefused = tooEarlyMs > ROUNDING_MS;
    // Even if it is refused: a caller who only ever comes too early must not be forgotten and so be admitted.
    keep(callerId, isRefused ? wholeAtMs : nextMs);
    return isRefused ? Math.ceil(tooEarlyMs / 1_000) : 0;
  }

  function keep(callerId: string, wholeAtMs: number): void {
    younger.set(callerId, wholeAtMs);
    if (younger.size < callersHeldMax / 2) return;
    older = younger;
    younger = new Map();
  }

  return { take, limitOf, size: () => younger.size + older.size };
}
