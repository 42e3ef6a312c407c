import type { ClockRecords, TimesAtStart } from "../books/clock.ts";
import type { Log } from "../log.ts";
import type { ObjectStore } from "../store/objects.ts";
import { timestamp } from "../timestamp.ts";

/** Wall time and monotonic time that differ by more than this mean that somebody set the clock. */
const CLOCK_JUMP_MS = 5 * 60_000;
/** A clock that is not trusted decides nothing for this long, so that somebody can set it right. */
const DISTRUST_MS = 60 * 60_000;
/**
 * At a start, a clock is doubted if it differs by more than this from the time at which it was last trusted. Wrong clocks
 * that do harm are wrong by days or years (no battery, no network yet, a restored snapshot), and by default an upload waits
 * for a day. A service that was off for a shorter time, as for an upgrade, is not held up.
 */
const DOUBT_MS = 24 * 60 * 60_000;
/**
 * If an earlier process doubted the clock, and the clock has gone on since, the time since then counts: otherwise a service that
 * is restarted every hour would never expire anything. A doubt older than this does not count.
 */
const DOUBT_KEPT_MS = 2 * DISTRUST_MS;
/** A clock that differs from the store's by more than this is not trusted. */
const STORE_SKEW_MS_MAX = 5 * 60_000;
/** How often the trust in the clock is recorded; far less than `DOUBT_MS`. */
const RECORD_INTERVAL_MS = 60 * 60_000;

const EFFECT = "no upload and no Idempotency-Key expires, and staging is not scanned";

export interface ClockWatchOptions {
  records: Pick<ClockRecords, "recordTrusted" | "recordDoubted">;
  /** Read before this process has written anything: rows dated by this clock cannot vouch for it. */
  atStart: TimesAtStart;
  objects: Pick<ObjectStore, "clockSkewMs">;
  log: Log;
  now: () => number;
  monotonicNow: () => number;
}

export interface ClockWatch {
  /**
   * Compares the clock, as it was when the process started, with the times that were recorded before. To be called once,
   * before the clock decides anything. `markerAtMs`: when the marker in the store was written; null if there is none.
   */
  judgeStart: (markerAtMs: number | null) => Promise<void>;
  /** Whether the clock can be relied on: it agrees with the past and with the store, and nobody has set it lately. */
  isTrusted: () => boolean;
  /** Records once an hour that the clock is trusted. To be called only while it is. */
  recordTrust: () => Promise<void>;
}

/** Keeps a wrong clock from expiring everything, whether it was wrong at the start, was set, or differs from the store's. */
export function watchClock({ records, atStart, objects, log, now, monotonicNow }: ClockWatchOptions): ClockWatch {
  const startedAtMs = now();
  const startedMonotonicMs = monotonicNow();
  let offsetMs = startedAtMs - startedMonotonicMs;
  let distrustedUntilMs = Number.NEGATIVE_INFINITY;
  let recordedMonotonicMs = Number.NEGATIVE_INFINITY;
  let storeVerdict: "agrees" | "differs" | "unheard" = "agrees";

  async function judgeStart(markerAtMs: number | null): Promise<void> {
    const { trustedAtMs, doubtedAtMs, newestRowAtMs } = atStart;
    // A doubted clock may have dated the rows and the marker, so they count only until a clock is first trusted.
    const knownAtMs = trustedAtMs ?? Math.max(newestRowAtMs, markerAtMs ?? 0);
    const aheadMs = startedAtMs - knownAtMs;
    if (Math.abs(aheadMs) <= DOUBT_MS) return;
    const restedMs = startedAtMs - (doubtedAtMs ?? Number.POSITIVE_INFINITY);
    const continues = restedMs >= 0 && restedMs <= DOUBT_KEPT_MS;
    const restMs = continues ? Math.max(0, DISTRUST_MS - restedMs) : DISTRUST_MS;
    if (restMs === 0) return;
    distrustedUntilMs = Math.max(distrustedUntilMs, startedMonotonicMs + restMs);
    log.warn("clock_doubted", {
      clock: timestamp(startedAtMs),
      [aheadMs > 0 ? "newest_known" : "newest_known_is_later"]: timestamp(knownAtMs),
      effect: `${EFFECT}; deletes go on`,
      rests_ms: restMs,
      hint: "if the service was off for so long, there is nothing to do; if not, set this machine's clock and start again",
    });
    if (!continues) await records.recordDoubted(startedAtMs);
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
        effect: EFFECT,
        hint: "set this machine's clock or the store's",
      });
    } else if (storeVerdict !== wasVerdict && storeVerdict === "unheard") {
      log.warn("store_clock_unknown", {
        effect: EFFECT,
        hint: "the store's responses have no Date header; check whether a proxy in front of it removes the header",
      });
    }
    return storeVerdict === "agrees";
  }

  async function recordTrust(): Promise<void> {
    if (monotonicNow() - recordedMonotonicMs < RECORD_INTERVAL_MS) return;
    recordedMonotonicMs = monotonicNow();
    await records.recordTrusted(now());
  }

  return { judgeStart, isTrusted, recordTrust };
}
