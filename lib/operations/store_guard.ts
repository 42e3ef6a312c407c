import { randomBytes } from "node:crypto";
import type { StoreRecord } from "../core/store_record.ts";
import { AppError } from "../errors.ts";
import type { Log } from "../log.ts";
import { type ObjectStore, type StoredMarker, StoreError } from "../store/objects.ts";
import { describePlace, isSamePlace } from "../store/place.ts";
import {
  compareMarker,
  contestedReason,
  contestMarker,
  type MarkerOwner,
  type MarkerParts,
  type MarkerVerdict,
  mayBeInUse,
  newStoreId,
  writeMarker,
} from "./ledger_marker.ts";
import { createComplaints, type PausedVerdict } from "./store_complaints.ts";

/** Between two rewrites: what a restored database lacks of the last minute may go unnoticed, no more. */
const REWRITE_INTERVAL_MS = 60_000;
/**
 * A marker that was compared this lately is not read again. Passes of the cleaner may follow each other 20 times a second,
 * so for this long it may go on after another copy has taken the store, or after the store was swapped.
 */
const COMPARE_INTERVAL_MS = 1_000;
/** How often an idle run looks whether another has taken the store. */
const LOOK_INTERVAL_MS = 10_000;
/** For so long a run removes nothing if the one before may still be at work: it has looked by then, and objected. */
const HOLD_MS = 20_000;
/** Someone else may write the marker between our look and our write; not this often in a row. */
const TAKE_ATTEMPTS_MAX = 3;

export interface StoreGuardOptions extends MarkerParts {
  objects: Pick<ObjectStore, "readMarker" | "writeMarker" | "stat" | "prepare">;
  /** Names this data directory; null where that cannot be told. */
  directory: string | null;
  log: Log;
  now: () => number;
  monotonicNow: () => number;
}

export type StoreGuard = ReturnType<typeof createStoreGuard>;

/**
 * Knows whether the store is the one that holds this installation's objects, and whether this process may change it.
 *
 * - A restored old database does harm: to it, today's charged objects look like orphans and abandoned copies.
 * - In another store everything seems to be removed already, and every upload seems to be lost.
 * - Another copy of the data directory removes what this one still names.
 *
 * Until the store's marker is known to agree, nothing may be removed, expired or entered; in another store nothing may
 * be created or confirmed either. Taking the store writes the marker, so that no object is confirmed before it is there.
 */
export function createStoreGuard(options: StoreGuardOptions) {
  const { objects, ledger, stores, place, log, now, monotonicNow } = options;
  const { directory } = options;
  const complaints = createComplaints({ log, monotonicNow });
  const runId = randomBytes(16).toString("hex");
  /** The verdict that stops something; null while there is none. */
  let paused: PausedVerdict | null = null;
  /** The store as this run has taken it, and the marker in it. */
  let held: { record: StoreRecord; generation: number; stored: StoredMarker | null } | null = null;
  let check: Promise<boolean> | null = null;
  let comparedAtMs = Number.NEGATIVE_INFINITY;
  let writtenSeq: number | null = null;
  let foundAtMs: number | null = null;
  /** Whether this run has ever had the store. */
  let hasTaken = false;
  let writtenAtMs = Number.NEGATIVE_INFINITY;
  /** Until then nothing is removed, because the run before may still be at work. Infinite while the store is being taken. */
  let holdUntilMs: number | null = null;

  /** Whether everything may go on, as far as was known a moment ago. */
  function isFresh(): boolean {
    return holdUntilMs === null && isCompared();
  }

  /** Whether the store is this run's, as far as was known a moment ago. Whoever was held back has to look once more. */
  function isCompared(): boolean {
    const nowMs = monotonicNow();
    return (
      held !== null && nowMs - comparedAtMs < COMPARE_INTERVAL_MS && !(holdUntilMs !== null && nowMs >= holdUntilMs)
    );
  }

  /** Whether everything may go on. Asked of the store, if not just now; rejects where it cannot be asked. */
  async function isCurrent(): Promise<boolean> {
    if (!isCompared()) {
      check ??= compare().finally(() => {
        check = null;
      });
      if (!(await check)) return false;
    }
    return holdUntilMs === null;
  }

  /** Whether the store is this run's. */
  async function compare(): Promise<boolean> {
    await noteIntended();
    for (let attempt = 1; ; attempt++) {
      try {
        return await compareOnce();
      } catch (error) {
        if (!isChanged(error)) {
          noteFailure(error);
          throw error;
        }
        if (attempt === TAKE_ATTEMPTS_MAX) throw contended(error);
      }
    }
  }

  async function compareOnce(): Promise<boolean> {
    const startedAtMs = monotonicNow();
    const own = held;
    const verdict = judgedByRun(await compareMarker(options));
    if (verdict.kind === "older" || verdict.kind === "copied" || verdict.kind === "other") {
      await pause(verdict);
      return false;
    }
    const marker = verdict.kind === "current" ? verdict.marker : null;
    // What an earlier run was told is no concern of this one.
    const contested = marker?.runId === runId ? contestedReason(marker) : null;
    if (contested !== null && verdict.kind === "current" && verdict.marker !== null) {
      await pause({ ...verdict, kind: "copied", reason: contested });
      return false;
    }
    // What was set back, by a store that lost its last writes, or written over, by one that knows no conditions, is taken anew.
    const isOwn = marker?.runId === runId && marker.seq >= (own?.record.ledgerSeq ?? 0);
    if (verdict.kind === "current" && own !== null && isOwn) {
      own.stored = verdict.stored;
      if (holdUntilMs !== null && startedAtMs >= holdUntilMs) await endHold(own);
    } else await take(verdict);
    comparedAtMs = startedAtMs;
    return true;
  }

  /** A store that is back and cannot be used is no longer paused for what it was. */
  function noteFailure(error: unknown): void {
    if (paused === null) return;
    const isLasting = error instanceof AppError || (error instanceof StoreError && error.isRefusal);
    if (isLasting) paused = { ...paused, reason: error.message };
  }

  /** Nobody has objected. From now on a start on this directory, also after a crash, has no one to wait for. */
  async function endHold(own: NonNullable<typeof held>): Promise<void> {
    await write(own, { directory });
    holdUntilMs = null;
    log.info("removals_go_on");
  }

  /**
   * Before the first upload is made it is written down where its object is to go, whether or not that store answers yet:
   * it may be made later, because nothing can be in another.
   */
  async function noteIntended(): Promise<void> {
    const { record, hasLedger, hasUploads, generation } = stores.read();
    if (record !== null || hasLedger() || hasUploads()) return;
    await noted(stores.note({ place, storeId: newStoreId(), runId: null, ledgerSeq: 0 }, generation));
  }

  /** A database that this run has used is no restored one: what the marker has beyond it another copy has booked. */
  function judgedByRun(verdict: MarkerVerdict): MarkerVerdict {
    if (verdict.kind !== "older" || !hasTaken || verdict.marker.runId === runId) return verdict;
    const reason = `another copy of this data directory has used the store since: ${verdict.reason}`;
    return { ...verdict, kind: "copied", reason };
  }

  /** Makes the store this run's. The database knows of it first: after a crash the marker is never ahead of it. */
  async function take(verdict: Extract<MarkerVerdict, { kind: "fresh" | "current" }>): Promise<void> {
    const { record: known, generation: before, markerWrittenAtMs } = stores.read();
    const marker = verdict.kind === "current" ? verdict.marker : null;
    const stored = verdict.kind === "current" ? verdict.stored : null;
    const generation = before + 1;
    const record: StoreRecord = {
      place,
      // The database may remember another, which nothing was put in.
      storeId: marker?.storeId ?? (verdict.kind === "fresh" ? null : known?.storeId) ?? newStoreId(),
      runId,
      ledgerSeq: known?.ledgerSeq ?? 0,
    };
    if (marker?.runId !== runId) {
      holdUntilMs = marker !== null && mayBeInUse(marker, directory) ? Number.POSITIVE_INFINITY : null;
    }
    await objects.prepare({ makes: verdict.kind === "fresh" });
    await noted(stores.note(record, generation));
    await write({ record, generation, stored });
    if (holdUntilMs === Number.POSITIVE_INFINITY) {
      // From here on the other can see that the store was taken.
      holdUntilMs = monotonicNow() + HOLD_MS;
      log.info("removals_held_back", {
        why: "the run before did not end in good order, or was one of another copy of this data directory, which may still run",
        for_ms: HOLD_MS,
      });
    }
    if (!hasTaken) {
      hasTaken = true;
      foundAtMs = marker === null ? null : Date.parse(marker.writtenAt) || null;
    }
    // What was written just now says how far the ledger is; the first removal brings it up to date all the same.
    writtenAtMs = Number.NEGATIVE_INFINITY;
    if (known !== null && markerWrittenAtMs !== null && !isSamePlace(known.place, place)) {
      log.warn("store_moved", { from: describePlace(known.place), to: describePlace(place) });
    }
    if (paused !== null) log.warn("cleaner_goes_on", { accepted: paused.reason });
    paused = null;
    complaints.forget();
  }

  /** Whoever starts after a run that was held back has to wait as well: so that one names no directory. */
  async function write(
    own: NonNullable<typeof held>,
    marks: Partial<Pick<MarkerOwner, "directory" | "isReleased">> = {},
  ): Promise<void> {
    const { record, generation, stored } = own;
    const isHeldBack = holdUntilMs !== null;
    const owner: MarkerOwner = {
      ...{ storeId: record.storeId, generation, runId, isReleased: false },
      ...{ directory: isHeldBack ? null : directory, ...marks },
    };
    const ledgerSeq = await writeMarker(options, owner, { replaces: stored, nowMs: now() });
    const marked = { ...record, ledgerSeq };
    await noted(stores.noteMarked(marked, generation, now()));
    held = { record: marked, generation, stored: null };
    writtenSeq = ledgerSeq;
  }

  async function pause(verdict: PausedVerdict): Promise<void> {
    held = null;
    paused = verdict;
    complaints.tell(verdict);
    // Only who has used the store itself says so: a stale copy that never came that far must not stop anyone.
    if (verdict.kind !== "copied" || !hasTaken || verdict.marker.contestedBy !== null) return;
    if (verdict.marker.runId === null) return;
    await contestMarker(options, verdict.stored, runId).catch((error) => log.warn("contest_not_written", { error }));
  }

  /**
   * Compares the marker and brings it up to date, at most once a minute. To be called before anything is removed: resolves
   * with whether that is allowed.
   */
  async function keepUp(): Promise<boolean> {
    if (held === null || !(await isStillThere())) return false;
    if ((ledger.last()?.seq ?? 0) === writtenSeq) return true;
    const startedAtMs = monotonicNow();
    if (startedAtMs - writtenAtMs < REWRITE_INTERVAL_MS) return true;
    // A store that knows no conditions overwrites whatever is there: so what is there is read just before.
    comparedAtMs = Number.NEGATIVE_INFINITY;
    if (!(await isCurrent()) || held === null) return false;
    try {
      await write(held);
    } catch (error) {
      if (!isChanged(error)) throw error;
      // Ours, whose answer was lost, or another's: the next look tells.
      comparedAtMs = Number.NEGATIVE_INFINITY;
      return await isCurrent();
    }
    writtenAtMs = startedAtMs;
    return true;
  }

  /**
   * Whether the store is there and may be changed. To be asked before and after something is removed from the embedded store: in
   * a folder that was unmounted a moment ago every file seems to be removed already. There asking costs next to nothing.
   */
  async function isStillThere(): Promise<boolean> {
    if (place.kind === "disk") comparedAtMs = Number.NEGATIVE_INFINITY;
    return await isCurrent();
  }

  /** Writes down how far the ledger has come, and that this run removes nothing any more. The next need not wait for it. */
  async function release(): Promise<void> {
    if (held === null) return;
    comparedAtMs = Number.NEGATIVE_INFINITY;
    if (!(await isCurrent()) || held === null) return;
    await write(held, { isReleased: true });
  }

  /** Looks at the marker from time to time, so that an idle run notices too that another has taken the store. */
  function watch(): { close: () => void } {
    const timer = setInterval(() => {
      // What is paused, and a store that does not answer, the cleaner looks at itself.
      if (held !== null) void isCurrent().catch(() => {});
    }, LOOK_INTERVAL_MS).unref();
    return { close: () => clearInterval(timer) };
  }

  /**
   * Resolves where an upload may be confirmed: in a store that was swapped a second ago it would be charged for what is
   * lost when the right one is back. Throws `storage_unavailable` in another store; rejects where it cannot be asked.
   */
  async function admitConfirm(): Promise<void> {
    // Once something is paused the cleaner asks again, at its own pace.
    if (paused === null) await isCurrent();
    checkTakesUploads();
  }

  /** Throws `storage_unavailable` where this is not the store that holds the objects. */
  function checkTakesUploads(): void {
    if (paused?.kind === "other") throw elsewhere("take uploads");
  }

  function checkServesDownloads(): void {
    if (paused?.kind === "other") throw elsewhere("read the file");
  }

  return {
    ...{
      noteIntended,
      isFresh,
      isCurrent,
      isStillThere,
      keepUp,
      release,
      watch,
      admitConfirm,
      checkTakesUploads,
      checkServesDownloads,
    },
    /** Why the cleaner is paused, or null where it is not. */
    pauseReason: (): string | null => paused?.reason ?? null,
    /** Whether this is not the store that holds the objects. */
    isElsewhere: (): boolean => paused?.kind === "other",
    /** When the marker that an earlier process has left was written; null if there was none, or it does not say. */
    markerAtMs: (): number | null => foundAtMs,
  };
}

/** For users. `/ready` has the rest, for whoever looks after the service; it names both stores, and is open to all. */
function elsewhere(doing: string): AppError {
  return new AppError(
    "storage_unavailable",
    `Cannot ${doing} at the moment: this service does not have the store that holds its files. Its administrator finds the reason at /ready and in the log`,
    { retryAfterSeconds: 60 },
  );
}

/** A database that cannot be written is a state that ends, as one of the store is. */
async function noted(write: Promise<void>): Promise<void> {
  await write.catch((error) => {
    throw new StoreError("unavailable", "Cannot write down which store is used: the database cannot be written", error);
  });
}

function contended(cause: unknown): StoreError {
  const message =
    "Cannot take the store: another process writes its marker again and again. See whether copies of this data directory run";
  return new StoreError("unavailable", message, cause);
}

function isChanged(error: unknown): boolean {
  return error instanceof StoreError && error.failure === "changed";
}
