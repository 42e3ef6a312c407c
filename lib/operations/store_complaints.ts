import type { Log } from "../log.ts";
import { createLogThrottle } from "../log_throttle.ts";
import type { MarkerVerdict } from "./ledger_marker.ts";

/** How often the log repeats a problem that a person has to decide. */
const COMPLAINT_INTERVAL_MS = 60 * 60_000;

/** Advice for a person on each verdict that stops something. */
export const WHAT_TO_DO = {
  older:
    "stop and restore the newest database if you can; `stowage doctor --accept-older-database` shows what would be lost and goes on with this one",
  copied:
    "stop the copy that is not to go on, or restore the newest database if this is a backup. If this one is to go on, `stowage doctor --accept-older-database` here shows what would be lost and goes on with it",
  other:
    "set STOWAGE_STORE, STOWAGE_S3_ENDPOINT, STOWAGE_S3_BUCKET and STOWAGE_DATA_DIR to the store that holds the objects, or bring it back (mount it, restore it). If the objects were moved by hand, `stowage doctor --accept-store` shows what would be lost and goes on with the store given",
} as const;

export type PausedVerdict = Extract<MarkerVerdict, { kind: keyof typeof WHAT_TO_DO }>;

/** Logs a problem that a person has to decide at once, and then once in each interval while it lasts. */
export function createStoreComplaints({ log, monotonicNow }: { log: Log; monotonicNow: () => number }) {
  const throttle = createLogThrottle({ intervalMs: COMPLAINT_INTERVAL_MS, monotonicNow });

  function complain({ kind, reason }: PausedVerdict): void {
    // By the kind, because the reasons contain numbers that change.
    if (!throttle.isDue(kind)) return;
    const hint = WHAT_TO_DO[kind];
    if (kind === "other") {
      const effect = "no upload is taken, no object is removed, no upload expires; lists, usage and deletes go on";
      log.error("store_is_another", { why: reason, effect, hint });
      return;
    }
    log.error("cleaner_paused", {
      why: kind === "older" ? `the database is older than the store: ${reason}` : reason,
      effect: "no object is removed, no upload expires",
      hint,
    });
  }

  return { complain, forget: throttle.forget };
}
