import { orAfter } from "../deadline.ts";
import type { Log } from "../log.ts";
import { StoreError } from "../store/objects.ts";

/** A store that cannot be used at start is asked again, for ever, after pauses that grow from the first to the second. */
const RETRY_MS_MIN = 1_000;
const RETRY_MS_MAX = 60_000;
/** How often the log repeats why the store cannot be used. */
const COMPLAINT_INTERVAL_MS = 60 * 60_000;
/** A start waits this long for a store that hangs; then it goes on without it. */
const START_MS_MAX = 2_000;

export interface StoreWatch {
  /** Asks no more. */
  close: () => void;
}

/**
 * Asks an S3 store until it can be used, and resolves after the first time, whatever came of it: one that does not answer,
 * or refuses us, stops nothing. Deletes go on without it, and somebody may set a clock or a key right.
 */
export async function watchStore({ check, log }: { check: () => Promise<void>; log: Log }): Promise<StoreWatch> {
  let timer: NodeJS.Timeout | null = null;
  let isClosed = false;
  let retryMs = RETRY_MS_MIN;
  let complaint: { text: string; atMs: number } | null = null;

  async function ask(): Promise<void> {
    try {
      await check();
      if (complaint !== null) log.info("store_ready");
    } catch (error) {
      if (isClosed) return;
      complain(error);
      timer = setTimeout(() => void ask(), retryMs).unref();
      retryMs = Math.min(RETRY_MS_MAX, retryMs * 2);
    }
  }

  /** Once for each reason, and then from time to time. */
  function complain(error: unknown): void {
    const text = error instanceof Error ? error.message : String(error);
    const nowMs = performance.now();
    if (complaint?.text === text && nowMs - complaint.atMs < COMPLAINT_INTERVAL_MS) return;
    complaint = { text, atMs: nowMs };
    const failure = error instanceof StoreError ? error.failure : "unknown";
    const isRefused = error instanceof StoreError && error.isRefusal;
    log[isRefused ? "error" : "warn"](isRefused ? "store_refused" : "store_unavailable", {
      failure,
      ...{ effect: "deletes go on, uploads cannot be confirmed", asked_again: "for as long as it takes" },
      error,
    });
  }

  await orAfter(START_MS_MAX, ask(), () => {});
  return {
    close() {
      isClosed = true;
      if (timer !== null) clearTimeout(timer);
    },
  };
}
