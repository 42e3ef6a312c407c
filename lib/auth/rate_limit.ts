const MINUTE_MS = 60_000;
/** Callers of whom it is remembered what they have used, about 10 MB. Each of two generations holds half. */
const CALLERS_HELD_MAX = 50_000;
/** Sums of fractions of a minute are not exact: less than this is not too early. */
const ROUNDING_MS = 0.01;

export interface RateLimitOptions {
  /** Requests a minute of each caller that has no limit of its own; 0: any number. */
  defaultPerMin: number;
  /** Milliseconds of a clock that no one can set. */
  monotonicNow: () => number;
  callersHeldMax?: number;
}

export type RateLimit = ReturnType<typeof createRateLimit>;

/**
 * Counts requests by caller, in memory. Each has an allowance of one minute's requests, which may be used at once and comes
 * back evenly: so no more than twice the limit in any minute, and the limit on the whole. Callers do not share it.
 *
 * What is kept of a caller is one number, the moment at which all of the allowance is back. A refused request uses nothing.
 */
export function createRateLimit({ defaultPerMin, monotonicNow, callersHeldMax = CALLERS_HELD_MAX }: RateLimitOptions) {
  // When the younger generation is full the older one is forgotten: those who did not call while thousands of others did.
  // To look for the one who has waited longest would take far longer than a request may.
  let younger = new Map<string, number>();
  let older = new Map<string, number>();

  /** The limit that holds for a caller whose own is this, null where it has none. 0: any number. */
  function limitOf(ownPerMin: number | null): number {
    return ownPerMin ?? defaultPerMin;
  }

  /** Takes one request from the caller's allowance and returns 0; where none is left, the seconds until one is back. */
  function take(callerId: string, ownPerMin: number | null): number {
    const perMin = limitOf(ownPerMin);
    if (perMin === 0) return 0;
    const nowMs = monotonicNow();
    const wholeAtMs = Math.max(younger.get(callerId) ?? older.get(callerId) ?? 0, nowMs);
    const nextMs = wholeAtMs + MINUTE_MS / perMin;
    const tooEarlyMs = nextMs - nowMs - MINUTE_MS;
    const isRefused = tooEarlyMs > ROUNDING_MS;
    // Also where it is refused: who only ever asks too early must not be forgotten, and so be let through.
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
