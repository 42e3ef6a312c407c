import { AppError } from "../errors.ts";
import { StoreError } from "../store/objects.ts";
import { compareMarker, contestedReason, contestMarker, type MarkerVerdict } from "./ledger_marker.ts";
import { createStoreClaim, type StoreClaimOptions } from "./store_claim.ts";
import { createStoreComplaints, type PausedVerdict } from "./store_complaints.ts";

/** How often the marker is brought up to date: a restored database may lack the events of this last minute unnoticed. */
const REWRITE_INTERVAL_MS = 60_000;
/**
 * A marker that was compared this recently is not read again, because passes of the cleaner may follow each other 20 times a
 * second. The cleaner may go on for this long after another copy has taken the store, or after the store was swapped.
 */
const COMPARE_INTERVAL_MS = 1_000;
/** How often an idle run checks whether another has taken the store. */
const WATCH_INTERVAL_MS = 10_000;
/** Another process may write the marker between the read and the write of this one, but not this often in a row. */
const TAKE_ATTEMPTS_MAX = 3;

export type StoreGuard = ReturnType<typeof createStoreGuard>;

/**
 * Knows whether the store is the one that holds this installation's objects, and whether this process may change it.
 *
 * - A restored old database does harm: today's charged objects look to it like orphans and abandoned copies.
 * - In another store everything seems to be removed already, and every upload seems to be lost.
 * - Another copy of the data directory removes what this one still names.
 *
 * Until the store's marker is known to agree, nothing may be removed, expired or entered; in another store nothing may be
 * created or confirmed either. Taking the store writes the marker, so no object is confirmed before it is there.
 */
export function createStoreGuard(options: StoreClaimOptions) {
  const { ledger, place, log, monotonicNow } = options;
  const claim = createStoreClaim(options);
  const complaints = createStoreComplaints({ log, monotonicNow });
  /** The verdict that stops something; null while there is none. */
  let paused: PausedVerdict | null = null;
  let comparison: Promise<boolean> | null = null;
  let comparedAtMs = Number.NEGATIVE_INFINITY;
  let rewrittenAtMs = Number.NEGATIVE_INFINITY;

  /** Whether everything may go on, as far as was known a moment ago. */
  function isFresh(): boolean {
    return !claim.isWaiting() && isCompared();
  }

  /** Whether the store was this run's a moment ago. After a wait it has to be compared once more. */
  function isCompared(): boolean {
    return claim.held() !== null && monotonicNow() - comparedAtMs < COMPARE_INTERVAL_MS && !claim.isWaitOver();
  }

  /** Whether everything may go on. Compares the marker, unless that was done just now; throws if the store does not respond. */
  async function isCurrent(): Promise<boolean> {
    if (!isCompared()) {
      comparison ??= compare().finally(() => {
        comparison = null;
      });
      if (!(await comparison)) return false;
    }
    return !claim.isWaiting();
  }

  function mustCompare(): void {
    comparedAtMs = Number.NEGATIVE_INFINITY;
  }

  /** Compares the marker, and takes the store if it may. Resolves with whether the store is this run's. */
  async function compare(): Promise<boolean> {
    await claim.recordIntended();
    for (let attempt = 1; ; attempt++) {
      try {
        return await compareOnce();
      } catch (error) {
        if (!isChanged(error)) {
          // A store that is back but cannot be used is no longer paused for the old reason.
          const isLasting = error instanceof AppError || (error instanceof StoreError && error.isRefusal);
          if (paused !== null && isLasting) paused = { ...paused, reason: error.message };
          throw error;
        }
        if (attempt === TAKE_ATTEMPTS_MAX) throw contended(error);
      }
    }
  }

  async function compareOnce(): Promise<boolean> {
    const startedAtMs = monotonicNow();
    const own = claim.held();
    const verdict = judge(await compareMarker(options));
    if (verdict.kind !== "fresh" && verdict.kind !== "current") {
      await pause(verdict);
      return false;
    }
    // A marker that was set back, by a store that lost its last writes, or overwritten, by one without conditional writes, is
    // no longer this run's: the store is taken again.
    if (
      own !== null &&
      verdict.kind === "current" &&
      verdict.marker !== null &&
      verdict.marker.runId === claim.runId &&
      verdict.marker.seq >= own.record.ledgerSeq
    ) {
      await claim.keep(own, verdict.stored, startedAtMs);
    } else await take(verdict);
    comparedAtMs = startedAtMs;
    return true;
  }

  /** The verdict on the marker, in view of what this run has done itself. */
  function judge(verdict: MarkerVerdict): MarkerVerdict {
    const isOwn = "marker" in verdict && verdict.marker?.runId === claim.runId;
    // This run has used the database, so it is not a restored one: another copy has booked what it lacks.
    if (verdict.kind === "older" && claim.hasTaken() && !isOwn) {
      const reason = `another copy of this data directory has used the store since: ${verdict.reason}`;
      return { ...verdict, kind: "copied", reason };
    }
    // An objection to an earlier run is no concern of this one.
    if (verdict.kind === "current" && verdict.marker !== null && isOwn) {
      const reason = contestedReason(verdict.marker);
      if (reason !== null) return { ...verdict, kind: "copied", reason };
    }
    return verdict;
  }

  async function take(verdict: Extract<MarkerVerdict, { kind: "fresh" | "current" }>): Promise<void> {
    await claim.take(verdict);
    // The marker says how far the ledger is; the first removal brings it up to date all the same.
    rewrittenAtMs = Number.NEGATIVE_INFINITY;
    if (paused !== null) log.warn("cleaner_resumed", { accepted: paused.reason });
    paused = null;
    complaints.forget();
  }

  async function pause(verdict: PausedVerdict): Promise<void> {
    claim.drop();
    paused = verdict;
    complaints.complain(verdict);
    // Only a run that has used the store itself objects: a stale copy that never came that far must not stop anyone.
    if (verdict.kind !== "copied" || !claim.hasTaken() || verdict.marker.contestedBy !== null) return;
    if (verdict.marker.runId === null) return;
    await contestMarker(options, verdict.stored, claim.runId).catch((error) =>
      log.warn("contest_not_written", { error }),
    );
  }

  /**
   * Compares the marker and brings it up to date, at most once a minute. To be called before anything is removed: resolves
   * with whether that is allowed.
   */
  async function keepUp(): Promise<boolean> {
    if (claim.held() === null || !(await isStillThere())) return false;
    if (((await ledger.findLast())?.seq ?? 0) === claim.markedSeq()) return true;
    const startedAtMs = monotonicNow();
    if (startedAtMs - rewrittenAtMs < REWRITE_INTERVAL_MS) return true;
    // A store without conditional writes overwrites whatever is there, so it is read just before.
    mustCompare();
    if (!(await isCurrent())) return false;
    const own = claim.held();
    if (own === null) return false;
    try {
      await claim.writeOwn(own);
    } catch (error) {
      if (!isChanged(error)) throw error;
      // The marker is ours, if only the response was lost, or another's: the next comparison tells.
      mustCompare();
      return await isCurrent();
    }
    rewrittenAtMs = startedAtMs;
    return true;
  }

  /**
   * Whether the store is there and may be changed. To be called before and after something is removed from the embedded
   * store: in a folder that was unmounted a moment ago every file seems to be removed already. A comparison there costs next
   * to nothing.
   */
  async function isStillThere(): Promise<boolean> {
    if (place.kind === "disk") mustCompare();
    return await isCurrent();
  }

  /** Writes how far the ledger has come, and that this run removes nothing any more: the next need not wait for it. */
  async function release(): Promise<void> {
    if (claim.held() === null) return;
    mustCompare();
    if (!(await isCurrent())) return;
    const own = claim.held();
    if (own !== null) await claim.writeOwn(own, { isReleased: true });
  }

  /** Compares the marker from time to time, so that an idle run also notices that another has taken the store. */
  function watch(): { close: () => void } {
    const timer = setInterval(() => {
      // If something is paused, or the store does not respond, the cleaner checks it itself.
      if (claim.held() !== null) void isCurrent().catch(() => {});
    }, WATCH_INTERVAL_MS).unref();
    return { close: () => clearInterval(timer) };
  }

  /**
   * Resolves if an upload may be confirmed now: in a store that was swapped a second ago it would be charged for an object
   * that is lost when the right store is back. Throws `storage_unavailable` in another store, and a `StoreError` if the store
   * does not respond.
   */
  async function admitConfirm(): Promise<void> {
    // Once something is paused the cleaner compares again, at its own pace.
    if (paused === null) await isCurrent();
    checkTakesUploads();
  }

  /** Throws `storage_unavailable` if this is not the store that holds the objects. */
  function checkTakesUploads(): void {
    if (isElsewhere()) throw elsewhere("take uploads");
  }

  /** Throws as `checkTakesUploads`. */
  function checkServesDownloads(): void {
    if (isElsewhere()) throw elsewhere("read the file");
  }

  /** Whether this is not the store that holds the objects. */
  function isElsewhere(): boolean {
    return paused?.kind === "other";
  }

  return {
    ...{ isFresh, isCurrent, isStillThere, keepUp, release, watch },
    ...{ admitConfirm, checkTakesUploads, checkServesDownloads, isElsewhere },
    recordIntended: claim.recordIntended,
    /** Why the cleaner is paused; null if it is not. */
    pauseReason: (): string | null => paused?.reason ?? null,
    /** When the marker that an earlier process left was written; null if there was none, or it does not say. */
    markerAtMs: claim.formerMarkerAtMs,
  };
}

/** For users: `/ready` and the log name the stores. */
function elsewhere(doing: string): AppError {
  return new AppError(
    "storage_unavailable",
    `Cannot ${doing} at the moment: this service does not have the store that holds its files. Its administrator finds the reason at /ready and in the log`,
    { retryAfterSeconds: 60 },
  );
}

function contended(cause: unknown): StoreError {
  const message =
    "Cannot take the store: another process writes its marker again and again. See whether copies of this data directory run";
  return new StoreError("unavailable", message, cause);
}

function isChanged(error: unknown): boolean {
  return error instanceof StoreError && error.failure === "changed";
}
