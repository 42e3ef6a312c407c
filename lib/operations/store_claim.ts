import { randomBytes } from "node:crypto";
import type { StoreRecord } from "../books/stores.ts";
import type { Log } from "../log.ts";
import { type ObjectStore, type StoredMarker, StoreError } from "../store/objects.ts";
import { describePlace, isSamePlace } from "../store/place.ts";
import {
  isUnused,
  type MarkerOwner,
  type MarkerParts,
  type MarkerVerdict,
  mayBeInUse,
  newStoreId,
  writeMarker,
} from "./ledger_marker.ts";

/** A run removes nothing for this long if the previous run may still be at work, which by then would have objected. */
const WAIT_MS = 20_000;

export interface StoreClaimOptions extends MarkerParts {
  objects: Pick<ObjectStore, "readMarker" | "writeMarker" | "stat" | "part" | "prepare">;
  /** Identifies this data directory; null if it is not known. */
  directory: string | null;
  log: Log;
  now: () => number;
  monotonicNow: () => number;
}

/** The store as this run has taken it, and the marker in it. */
export interface HeldStore {
  record: StoreRecord;
  generation: number;
  /** The marker as it was last read; null after it was written. */
  stored: StoredMarker | null;
}

/**
 * This run's claim on the store: the marker with its run id, and its record in the database. A run that takes
 * the store from one that may still be at work, on another copy of the data directory, first waits for its objection.
 */
export function createStoreClaim(options: StoreClaimOptions) {
  const { objects, stores, place, directory, log, now, monotonicNow } = options;
  const runId = randomBytes(16).toString("hex");
  let held: HeldStore | null = null;
  /** When the wait for an objection ends. Infinite while the store is being taken; null if this run does not wait. */
  let waitEndsMs: number | null = null;
  /** Whether this run has ever held the store. */
  let hasTaken = false;
  /** How far the ledger had come when the marker was last written. */
  let markedSeq: number | null = null;
  let formerMarkerAtMs: number | null = null;

  /**
   * Records the store that the first object will go to, before the first upload is created, even if that store does not
   * respond. It may be created later, because no object can be in another store.
   */
  async function recordIntended(): Promise<void> {
    const { record, generation } = await stores.read();
    if (record !== null || !(await isUnused(stores))) return;
    await recorded(stores.recordTaken({ place, storeId: newStoreId(), runId: null, ledgerSeq: 0 }, generation));
  }

  /** Makes the store this run's. The database is written first, so that the marker is never ahead of it after a crash. */
  async function take(verdict: Extract<MarkerVerdict, { kind: "fresh" | "current" }>): Promise<void> {
    const { record: known, generation: before, markerWrittenAtMs } = await stores.read();
    const marker = verdict.kind === "current" ? verdict.marker : null;
    const stored = verdict.kind === "current" ? verdict.stored : null;
    const generation = before + 1;
    const record: StoreRecord = {
      place,
      // The database may name another store, which nothing was ever put into.
      storeId: marker?.storeId ?? (verdict.kind === "fresh" ? null : known?.storeId) ?? newStoreId(),
      runId,
      ledgerSeq: known?.ledgerSeq ?? 0,
    };
    if (marker?.runId !== runId) {
      waitEndsMs = marker !== null && mayBeInUse(marker, directory) ? Number.POSITIVE_INFINITY : null;
    }
    await objects.prepare({ makes: verdict.kind === "fresh", hasPart: marker?.hasPart ?? false });
    await recorded(stores.recordTaken(record, generation));
    await writeOwn({ record, generation, stored });
    if (waitEndsMs === Number.POSITIVE_INFINITY) startWait();
    if (!hasTaken) {
      hasTaken = true;
      formerMarkerAtMs = marker === null ? null : Date.parse(marker.writtenAt) || null;
    }
    if (known !== null && markerWrittenAtMs !== null && !isSamePlace(known.place, place)) {
      log.warn("store_moved", { from: describePlace(known.place), to: describePlace(place) });
    }
  }

  /** From now on the previous run can see that the store was taken. */
  function startWait(): void {
    waitEndsMs = monotonicNow() + WAIT_MS;
    log.info("removals_held_back", {
      why: "the previous run did not end cleanly, or belongs to another copy of this data directory and may still be going",
      for_ms: WAIT_MS,
    });
  }

  /** The store had this run's marker, unchanged, at `seenAtMs`. If the wait was over by then, nobody has objected. */
  async function keep(own: HeldStore, stored: StoredMarker, seenAtMs: number): Promise<void> {
    own.stored = stored;
    if (waitEndsMs === null || seenAtMs < waitEndsMs) return;
    // With this directory in the marker, a later start on it need not wait, not even after a crash.
    await writeOwn(own, { directory });
    waitEndsMs = null;
    log.info("removals_resumed");
  }

  /** Writes the marker with `marks`. While this run waits, it leaves its directory out, so that the next run waits too. */
  async function writeOwn(
    { record, generation, stored }: HeldStore,
    marks: Partial<Pick<MarkerOwner, "directory" | "isReleased">> = {},
  ): Promise<void> {
    const owner: MarkerOwner = {
      ...{ storeId: record.storeId, generation, runId, isReleased: false },
      ...{ directory: waitEndsMs === null ? directory : null, ...marks },
    };
    const ledgerSeq = await writeMarker(options, owner, { replaces: stored, nowMs: now() });
    const marked = { ...record, ledgerSeq };
    await recorded(stores.recordMarked(marked, generation, now()));
    held = { record: marked, generation, stored: null };
    markedSeq = ledgerSeq;
  }

  function drop(): void {
    held = null;
  }

  return {
    ...{ runId, recordIntended, take, keep, writeOwn, drop },
    held: (): HeldStore | null => held,
    hasTaken: (): boolean => hasTaken,
    markedSeq: (): number | null => markedSeq,
    isWaiting: (): boolean => waitEndsMs !== null,
    /** Whether the time for an objection is over, but nobody has checked yet whether there is one. */
    isWaitOver: (): boolean => waitEndsMs !== null && monotonicNow() >= waitEndsMs,
    /** When the marker that an earlier process left was written; null if there was none, or it does not say. */
    formerMarkerAtMs: (): number | null => formerMarkerAtMs,
  };
}

/** Treats a database that cannot be written like a store that does not respond: both may pass. */
async function recorded(write: Promise<void>): Promise<void> {
  await write.catch((error) => {
    throw new StoreError("unavailable", "Cannot record which store is used: the database cannot be written", error);
  });
}
