import { orAfter } from "../deadline.ts";
import type { Log } from "../log.ts";
import { createLogThrottle } from "../log_throttle.ts";
import { StoreError } from "../store/objects.ts";

/** A store that cannot be used at the start is retried without end, after pauses that grow from the first to the second. */
const RETRY_MS_MIN = 1_000;
const RETRY_MS_MAX = 60_000;
/** How often the log repeats why the store cannot be used. */
const COMPLAINT_INTERVAL_MS = 60 * 60_000;
/** A start waits this long for a store that hangs; then it goes on without it. */
const START_MS_MAX = 2_000;

export interface StoreWatch {
  /** Ends the retries. */
  close: () => void;
}

/**
 * Checks an S3 store until it can be used. Resolves after the first check, or after 2 s, whatever the result: a store that
 * does not respond, or refuses us, stops nothing. Deletes go on without it, and somebody may correct a clock or a key.
 */
export async function watchStore({ check, log }: { check: () => Promise<void>; log: Log }): Promise<StoreWatch> {
  const complaints = createLogThrottle({ intervalMs: COMPLAINT_INTERVAL_MS });
  let timer: NodeJS.Timeout | null = null;
  let isClosed = false;
  let retryMs = RETRY_MS_MIN;

  async function attempt(): Promise<void> {
    try {
      await check();
      if (complaints.forget()) log.info("store_ready");
    } catch (error) {
      if (isClosed) return;
      complain(error);
      timer = setTimeout(() => void attempt(), retryMs).unref();
      retryMs = Math.min(RETRY_MS_MAX, retryMs * 2);
    }
  }

  function complain(error: unknown): void {
    if (!complaints.isDue(error instanceof Error ? error.message : String(error))) return;
    const failure = error instanceof StoreError ? error.failure : "unknown";
    const isRefused = error instanceof StoreError && error.isRefusal;
    log[isRefused ? "error" : "warn"](isRefused ? "store_refused" : "store_unavailable", {
      failure,
      ...{ effect: "deletes go on, uploads cannot be confirmed", retries: "until it can be used" },
      error,
    });
  }

  await orAfter(START_MS_MAX, attempt(), () => {});
  return {
    close() {
      isClosed = true;
      if (timer !== null) clearTimeout(timer);
    },
  };
}
