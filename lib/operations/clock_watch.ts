import type { KeptTimes, TimesAtStart } from "../core/kept_times.ts";
import type { Log } from "../log.ts";
import type { ObjectStore } from "../store/objects.ts";
import { timestamp } from "../timestamp.ts";

/** A difference between wall time and monotonic time beyond this means that the clock was set. */
const CLOCK_JUMP_MS = 5 * 60_000;
/** While the clock is not trusted, decisions by its time rest for this long: somebody may set it right. */
const DISTRUST_MS = 60 * 60_000;
/**
 * At a start, a clock that differs by more than this from the time at which it was last trusted is doubted. The wrong clocks
 * that do harm are wrong by days or years (no battery, no network yet, a restored snapshot), and an upload waits for a day
 * by default; a service that was off for a shorter time, as for an upgrade, is not held up.
 */
const DOUBT_MS = 24 * 60 * 60_000;
/**
 * A clock that was doubted by an earlier process, and that has gone on since, has rested for as long as that is ago: else a
 * service that is restarted within the hour would never expire anything. Longer ago than this says nothing.
 */
const DOUBT_KEPT_MS = 2 * DISTRUST_MS;
/** A clock that differs from the store's by more than this is not trusted with what is old. */
const STORE_SKEW_MS_MAX = 5 * 60_000;
/** How often it is written down that the clock is trusted; far below `DOUBT_MS`. */
const NOTE_INTERVAL_MS = 60 * 60_000;

const WHAT_RESTS = "no upload and no Idempotency-Key expires, and staging is not looked through";

export interface ClockWatchOptions {
  times: Pick<KeptTimes, "noteTrusted" | "noteDoubted">;
  /** Read before this process has written anything: rows that this clock has dated say nothing of it. */
  atStart: TimesAtStart;
  objects: Pick<ObjectStore, "clockSkewMs">;
  log: Log;
  now: () => number;
  monotonicNow: () => number;
}

export interface ClockWatch {
  /**
   * Compares the clock, as it was when the process started, with what is known of the time from before. To be called once,
   * before anything is decided by the clock. `markerAtMs`: when the marker in the store was written, if there is one.
   */
  judgeStart: (markerAtMs: number | null) => Promise<void>;
  /** Whether what the clock calls old is old: it agrees with the past and the store, and nobody has set it lately. */
  isTrusted: () => boolean;
  /** Writes down, now and then, that the clock is trusted. To be called only while it is. */
  noteTrust: () => Promise<void>;
}

/** Keeps a wrong clock from expiring everything: one that is wrong from the start, that is set, or that differs from the store's. */
export function watchClock({ times, atStart, objects, log, now, monotonicNow }: ClockWatchOptions): ClockWatch {
  const startedAtMs = now();
  const startedMonotonicMs = monotonicNow();
  let offsetMs = startedAtMs - startedMonotonicMs;
  let distrustedUntilMs = Number.NEGATIVE_INFINITY;
  let notedMonotonicMs = Number.NEGATIVE_INFINITY;
  let storeVerdict: "agrees" | "differs" | "unheard" = "agrees";

  async function judgeStart(markerAtMs: number | null): Promise<void> {
    const { trustedAtMs, doubtedAtMs, newestRowAtMs } = atStart;
    // Rows and marker may have been dated by a clock that was doubted: they count until one was trusted.
    const knownAtMs = trustedAtMs ?? Math.max(newestRowAtMs, markerAtMs ?? 0);
    const aheadMs = startedAtMs - knownAtMs;
    if (Math.abs(aheadMs) <= DOUBT_MS) return;
    const restedMs = startedAtMs - (doubtedAtMs ?? Number.POSITIVE_INFINITY);
    const goesOn = restedMs >= 0 && restedMs <= DOUBT_KEPT_MS;
    const restMs = goesOn ? Math.max(0, DISTRUST_MS - restedMs) : DISTRUST_MS;
    if (restMs === 0) return;
    distrustedUntilMs = Math.max(distrustedUntilMs, startedMonotonicMs + restMs);
    log.warn("clock_doubted", {
      clock: timestamp(startedAtMs),
      [aheadMs > 0 ? "newest_known" : "newest_known_is_later"]: timestamp(knownAtMs),
      effect: `${WHAT_RESTS}; deletes go on`,
      rests_ms: restMs,
      hint: "if the service was off for so long, nothing is to be done; if not, set this machine's clock and start again",
    });
    if (!goesOn) await times.noteDoubted(startedAtMs);
  }

  function isTrusted(): boolean {
    const nowMonotonicMs = monotonicNow();
    const jumpMs = now() - nowMonotonicMs - offsetMs;
    if (Math.abs(jumpMs) > CLOCK_JUMP_MS) {
      offsetMs += jumpMs;
      distrustedUntilMs = nowMonotonicMs + DISTRUST_MS;
      log.warn("clock_jumped", { jump_ms: Math.round(jumpMs), expiry_paused_ms: DISTRUST_MS });
    }
    return agreesWithStore() && nowMonotonicMs >= distrustedUntilMs;
  }

  function agreesWithStore(): boolean {
    const skewMs = objects.clockSkewMs();
    const wasVerdict = storeVerdict;
    storeVerdict = skewMs === null ? "unheard" : Math.abs(skewMs) > STORE_SKEW_MS_MAX ? "differs" : "agrees";
    if (storeVerdict !== wasVerdict && storeVerdict === "differs") {
      log.warn("clock_differs_from_store", {
        store_ahead_ms: Math.round(skewMs ?? 0),
        effect: WHAT_RESTS,
        hint: "set this machine's clock or the store's",
      });
    } else if (storeVerdict !== wasVerdict && storeVerdict === "unheard") {
      log.warn("store_clock_unknown", {
        effect: WHAT_RESTS,
        hint: "the store's responses have no Date header; see whether a proxy in front of it takes it away",
      });
    }
    return storeVerdict === "agrees";
  }

  async function noteTrust(): Promise<void> {
    if (monotonicNow() - notedMonotonicMs < NOTE_INTERVAL_MS) return;
    notedMonotonicMs = monotonicNow();
    await times.noteTrusted(now());
  }

  return { judgeStart, isTrusted, noteTrust };
}
