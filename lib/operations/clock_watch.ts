import type { Log } from "../log.ts";

/** A difference between wall time and monotonic time beyond this means that the clock was set. */
const CLOCK_JUMP_MS = 5 * 60_000;
/** After the clock was set, decisions by its time rest for this long: it may be set back. */
const DISTRUST_MS = 60 * 60_000;

export interface ClockWatch {
  /** Whether wall time has gone on evenly, so that what it calls old is old. */
  isTrusted: () => boolean;
}

/** Notices that the wall clock was set while the process ran. A clock that jumps two days must not expire every upload. */
export function watchClock(now: () => number, monotonicNow: () => number, log: Log): ClockWatch {
  let offsetMs = now() - monotonicNow();
  let distrustedUntilMs = Number.NEGATIVE_INFINITY;

  function isTrusted(): boolean {
    const nowMonotonicMs = monotonicNow();
    const jumpMs = now() - nowMonotonicMs - offsetMs;
    if (Math.abs(jumpMs) > CLOCK_JUMP_MS) {
      offsetMs += jumpMs;
      distrustedUntilMs = nowMonotonicMs + DISTRUST_MS;
      log.warn("clock_jumped", { jump_ms: Math.round(jumpMs), expiry_paused_ms: DISTRUST_MS });
    }
    return nowMonotonicMs >= distrustedUntilMs;
  }

  return { isTrusted };
}
