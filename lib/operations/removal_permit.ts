import { AppError } from "../errors.ts";
import type { Log } from "../log.ts";
import { StoreError } from "../store/objects.ts";
import type { StoreGuard } from "./store_guard.ts";

/** While the store is down, the pause between two probes grows from the first to the second. */
export const PROBE_PAUSE_MS_MIN = 500;
const PROBE_PAUSE_MS_MAX = 60_000;
/** While nothing may be removed, the time between two checks whether somebody has decided, or nobody has objected. */
const DECISION_PAUSE_MS = 10_000;

export interface RemovalPermitOptions {
  guard: Pick<StoreGuard, "isCurrent" | "isFresh" | "isStillThere" | "keepUp">;
  /** Called once, when database and store are first found to belong together. */
  onFirstGranted: () => Promise<void>;
  log: Log;
}

export type RemovalPermit = ReturnType<typeof createRemovalPermit>;

/** Whether database and store belong together, so that objects may be removed, and whether the store can be used at all. */
export function createRemovalPermit({ guard, onFirstGranted, log }: RemovalPermitOptions) {
  let isGranted = false;
  let wasEverGranted = false;
  /** Above zero while the store does not respond, or nothing may be removed. */
  let pauseMs = 0;

  /**
   * To be asked before a pass, unless the permit is fresh. A person's decision is noticed here too. If the store does not
   * respond, an earlier permit holds for work that needs no store; before a removal it is renewed.
   */
  async function ask(): Promise<boolean> {
    const wasGranted = isGranted;
    try {
      isGranted = await guard.isCurrent();
      if (!isGranted) pauseMs = DECISION_PAUSE_MS;
      else if (!wasGranted) pauseMs = 0;
      if (isGranted && !wasEverGranted) {
        wasEverGranted = true;
        await onFirstGranted();
      }
    } catch (error) {
      // An `AppError` says that the store is there, but cannot be used as it is.
      if (!(error instanceof StoreError || error instanceof AppError)) throw error;
      if (!wasGranted) noteFailure(error);
    }
    return isGranted;
  }

  /** The store has failed as a whole, so the pauses between probes grow. */
  function noteFailure(error: unknown): void {
    pauseMs = Math.min(PROBE_PAUSE_MS_MAX, Math.max(PROBE_PAUSE_MS_MIN, pauseMs * 2));
    log.warn("store_unavailable", {
      retry_in_ms: pauseMs,
      failure: error instanceof StoreError ? error.failure : "unknown",
      ...(error instanceof StoreError && error.hint !== null ? { hint: error.hint } : {}),
      error,
    });
  }

  return {
    ask,
    noteFailure,
    /** The store has removed objects. */
    noteSuccess(): void {
      pauseMs = 0;
    },
    /** To be asked right before a removal. Rejects if the store fails. */
    async renew(): Promise<boolean> {
      isGranted = await guard.keepUp();
      return isGranted;
    },
    /** To be asked right after a removal: whether it was made in the right store. Rejects if the store fails. */
    async stillHolds(): Promise<boolean> {
      isGranted = await guard.isStillThere();
      return isGranted;
    },
    /** Whether it was granted a moment ago, so that nobody needs to ask. */
    isFresh: () => isGranted && guard.isFresh(),
    /** The latest verdict, however old. */
    isGranted: () => isGranted,
    /** How long to wait before the store is tried again, in milliseconds; 0 while all is well. */
    pauseMs: () => pauseMs,
  };
}
