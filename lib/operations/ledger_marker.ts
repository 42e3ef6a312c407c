import { randomBytes } from "node:crypto";
import * as z from "zod";
import type { Ledger, StorageEvent } from "../books/ledger.ts";
import { markerKey } from "../books/object_keys.ts";
import type { StorePlace, StoreRecord, StoreState, Stores } from "../books/stores.ts";
import { SMALL_OBJECTS_FILE } from "../data_dir/layout.ts";
import { sha256Hex } from "../ids.ts";
import { type ObjectStore, type StoredMarker, StoreError } from "../store/objects.ts";
import { describePlace, isSamePlace } from "../store/place.ts";
import { timestamp } from "../timestamp.ts";

/** Markers written before schema 3 lack the store, the run, and all that follows. */
const markerText = z.object({
  installation: z.string(),
  ledger_seq: z.int().min(0),
  event_sha256: z.string(),
  written_at: z.string(),
  store: z.string().nullable().default(null),
  generation: z.int().min(0).default(0),
  run: z.string().nullable().default(null),
  contested_by: z.string().nullable().default(null),
  directory: z.string().nullable().default(null),
  released: z.boolean().default(false),
  /** Markers from before the embedded store had a file of small objects lack it. */
  has_part: z.boolean().default(false),
});

/** The state of the ledger when the marker was written, and the run that wrote it. */
export interface Marker {
  installationId: string;
  seq: number;
  /** Identifies the event with that number. */
  eventSha256: string;
  writtenAt: string;
  storeId: string | null;
  generation: number;
  runId: string | null;
  /** The run that this one took the store from, if that run objected because it was still running. */
  contestedBy: string | null;
  /** Identifies that run's data directory on its machine: see `directory_id.ts`. Null if unknown, or not written yet. */
  directory: string | null;
  /** Whether the run has ended cleanly, so that it never removes anything again. */
  isReleased: boolean;
  /** Whether the store has a part that carries a mark of its own: see `StorePart`. */
  hasPart: boolean;
}

/** The result of comparing the marker in the store with the database. */
export type MarkerVerdict =
  /** There is no marker and nothing is stored, so the store may be created. */
  | { kind: "fresh" }
  /** The database has everything that the marker names. Both are null if no marker was needed so far. */
  | { kind: "current"; marker: Marker; stored: StoredMarker }
  | { kind: "current"; marker: null; stored: null }
  /** The database's ledger ends before the marker, or has another event in its place: it was restored. */
  | { kind: "older"; marker: Marker; stored: StoredMarker; reason: string }
  /** Another copy of the data directory has taken the store. */
  | { kind: "copied"; marker: Marker; stored: StoredMarker; reason: string }
  /** The objects are in another store, or no longer in this one. */
  | { kind: "other"; reason: string };

export interface MarkerParts {
  objects: Pick<ObjectStore, "readMarker" | "writeMarker" | "stat" | "part">;
  ledger: Pick<Ledger, "findLast" | "find">;
  stores: Stores;
  installationId: string;
  /** The store that the settings name. */
  place: StorePlace;
}

/**
 * Compares the marker in the store with the database. Absence never counts as agreement: a store without a marker is this
 * installation's only if none was ever written. Throws the `StoreError` if the store does not respond.
 */
export async function compareMarker(parts: MarkerParts): Promise<MarkerVerdict> {
  const { objects, stores, installationId, place } = parts;
  const state = await stores.read();
  let stored: StoredMarker | null;
  try {
    stored = await objects.readMarker(markerKey(installationId));
  } catch (error) {
    if (!(error instanceof StoreError && error.failure === "bucket_missing")) throw error;
    return (await mayCreate(parts, state))
      ? { kind: "fresh" }
      : other(state, place, `${describePlace(place)} does not exist`);
  }
  if (stored === null) return await judgeMissing(parts, state);
  const marker = parseMarker(stored);
  if (marker === null) return other(state, place, `the marker in ${describePlace(place)} cannot be read`);
  if (marker.installationId !== installationId) {
    return other(state, place, `${describePlace(place)} belongs to the installation "${marker.installationId}"`);
  }
  const isOther = state.markerWrittenAtMs !== null && marker.storeId !== (state.record?.storeId ?? null);
  if (isOther && !(await isUnused(stores))) {
    return other(state, place, `${describePlace(place)} is another one, by its marker`);
  }
  const partLost = await judgePart(parts, marker);
  if (partLost !== null) return other(state, place, partLost);
  const older = await judgeLedger(parts, marker);
  if (older !== null) return { kind: "older", marker, stored, reason: older };
  if (state.record !== null && state.markerWrittenAtMs !== null && marker.seq < state.record.ledgerSeq) {
    const behind = await judgeBehind(parts, state.record, marker);
    if (behind !== null) return other(state, place, behind);
  }
  const copied = judgeRun(state, marker);
  if (copied !== null) return { kind: "copied", marker, stored, reason: copied };
  return { kind: "current", marker, stored };
}

/** Why a person has to decide between two copies of a data directory; null if the marker names no other that runs. */
export function contestedReason(marker: Marker | null): string | null {
  if (marker === null || marker.contestedBy === null) return null;
  return `another copy of this data directory was still running when this one took the store (generation ${marker.generation})`;
}

/** The marker's content; null if there is no marker, or none that can be read. */
export function parseMarker(stored: StoredMarker | null): Marker | null {
  const parsed = markerText.safeParse(parseJson(stored?.text ?? ""));
  if (!parsed.success) return null;
  const text = parsed.data;
  return {
    installationId: text.installation,
    seq: text.ledger_seq,
    eventSha256: text.event_sha256,
    writtenAt: text.written_at,
    storeId: text.store,
    generation: text.generation,
    runId: text.run,
    contestedBy: text.contested_by,
    directory: text.directory,
    isReleased: text.released,
    hasPart: text.has_part,
  };
}

/**
 * Whether the run that wrote the marker may still be at work, on another copy of the data directory. A run on this very
 * directory has ended, because the caller holds its lock.
 */
export function mayBeInUse(
  { runId, contestedBy, isReleased, directory }: Marker,
  ownDirectory: string | null,
): boolean {
  if (runId === null) return false;
  if (contestedBy !== null) return true;
  return !isReleased && (ownDirectory === null || directory !== ownDirectory);
}

export function newStoreId(): string {
  return randomBytes(16).toString("hex");
}

/** Whether no object can be in another store, so that the bucket or folder may be created. */
async function mayCreate({ stores }: MarkerParts, { record, markerWrittenAtMs }: StoreState): Promise<boolean> {
  if (await isUnused(stores)) return true;
  // A store is recorded when it is first tried. Uploads without a record are from a version that recorded none.
  return markerWrittenAtMs === null && record !== null && !(await stores.hasLedger());
}

/** Whether nothing was ever stored, or only objects that were removed again without being confirmed. */
export async function isUnused(stores: Stores): Promise<boolean> {
  return !(await stores.hasLedger()) && !(await stores.hasUploads());
}

async function judgeMissing(parts: MarkerParts, state: StoreState): Promise<MarkerVerdict> {
  const place = describePlace(parts.place);
  if (await mayCreate(parts, state)) return { kind: "fresh" };
  if (state.markerWrittenAtMs !== null) {
    return other(state, parts.place, `${place} has no marker of this installation`);
  }
  // The database is from a version that wrote the marker only before it first removed something.
  const missing = await missingOf(parts);
  if (missing === null) return { kind: "current", marker: null, stored: null };
  return other(state, parts.place, `${missing} in ${place}, which has no marker of this installation`);
}

/** Why the database is older than the store; null if it is not. */
async function judgeLedger({ ledger }: MarkerParts, { seq, eventSha256 }: Marker): Promise<string | null> {
  const databaseSeq = (await ledger.findLast())?.seq ?? 0;
  if (databaseSeq < seq) return `the ledger ends at ${databaseSeq}, the store has seen it at ${seq}`;
  // A ledger that was restored and then continued may be as long as the lost one without being the same.
  if (fingerprint(await ledger.find(seq)) === eventSha256) return null;
  return `the ledger's number ${seq} is not the one that the store has seen`;
}

/** Why a store whose marker is older than the last one written is not that store; null if it may be. */
async function judgeBehind(parts: MarkerParts, record: StoreRecord, marker: Marker): Promise<string | null> {
  const place = describePlace(parts.place);
  const behind = `its marker is of ${marker.writtenAt}, and a later one was written`;
  if (!isSamePlace(parts.place, record.place)) return `${place} is an older copy: ${behind}`;
  // The store's machine may have lost its last writes, or the store was restored.
  const missing = await missingOf(parts);
  return missing === null ? null : `${missing} in ${place}, which was set back: ${behind}`;
}

/** Why the part of the store that carries a mark of its own is not the one that the marker goes with; null if it may be. */
async function judgePart(parts: MarkerParts, { hasPart, storeId, generation, seq }: Marker): Promise<string | null> {
  if (!hasPart) return null;
  const where = describePlace(parts.place);
  const mark = (await parts.objects.part?.readMark()) ?? null;
  if (mark === null)
    return `${where} lacks its file of small objects (${SMALL_OBJECTS_FILE}), or has another file there`;
  if (mark.storeId !== storeId)
    return `the file of small objects (${SMALL_OBJECTS_FILE}) in ${where} is of another store`;
  if (mark.generation > generation || (mark.generation === generation && mark.ledgerSeq >= seq)) return null;
  // As with the marker itself: what counts is whether objects are missing.
  const missing = await missingOf(parts);
  if (missing === null) return null;
  return `${missing} in ${where}, whose file of small objects (${SMALL_OBJECTS_FILE}) is an older copy`;
}

/** How many of a few confirmed uploads are not in the store, as part of a sentence; null if all are there. */
async function missingOf({ objects, stores }: MarkerParts): Promise<string | null> {
  const sample = await stores.sampleUploads();
  let missing = 0;
  for (const { objectKey, sizeBytes } of sample) {
    if ((await objects.stat(objectKey))?.sizeBytes !== sizeBytes) missing++;
  }
  return missing === 0 ? null : `${missing} of ${sample.length} confirmed uploads that were checked are not`;
}

/** Why the store is no longer this data directory's; null if it is. */
function judgeRun({ record, generation }: StoreState, marker: Marker): string | null {
  // With a lower generation, this run or one before it is about to take the store.
  if (marker.runId === (record?.runId ?? null) || marker.generation < generation) return null;
  return `another run has used the store since (generation ${marker.generation}, here ${generation}): another copy of this data directory is in use, or this one is an older state of it`;
}

function other({ record }: StoreState, place: StorePlace, reason: string): MarkerVerdict {
  const known = record === null ? "" : `the objects are in ${describePlace(record.place)}, but `;
  const given = record !== null && isSamePlace(record.place, place) ? "that is lost: " : "another store was given: ";
  return { kind: "other", reason: record === null ? reason : `${known}${given}${reason}` };
}

export interface MarkerOwner {
  storeId: string;
  generation: number;
  runId: string | null;
  directory: string | null;
  isReleased: boolean;
}

/**
 * Replaces the marker that was read with one that has the ledger's present number, and resolves with that number. Only committed
 * events may be named. Throws a `StoreError` with `changed` if someone else has written the marker meanwhile.
 */
export async function writeMarker(
  { objects, ledger, installationId }: Pick<MarkerParts, "objects" | "ledger" | "installationId">,
  { storeId, generation, runId, directory, isReleased }: MarkerOwner,
  { replaces, nowMs }: { replaces: StoredMarker | null; nowMs: number },
): Promise<number> {
  const last = await ledger.findLast();
  const seq = last?.seq ?? 0;
  const before = parseMarker(replaces);
  // First: a part that is ahead of the marker is not an older copy.
  const hasPart = (await objects.part?.writeMark({ storeId, generation, ledgerSeq: seq })) === true;
  const marker: z.infer<typeof markerText> = {
    installation: installationId,
    ledger_seq: seq,
    event_sha256: fingerprint(last),
    // The time at which the ledger came this far. A mere start, whose clock may be wrong, does not renew it.
    written_at: before !== null && before.seq === seq ? before.writtenAt : timestamp(nowMs),
    store: storeId,
    generation,
    run: runId,
    contested_by: null,
    directory,
    released: isReleased,
    has_part: hasPart,
  };
  const text = `${JSON.stringify(marker)}\n`;
  await objects.writeMarker(markerKey(installationId), text, { replaces: replaces?.etag ?? null });
  return marker.ledger_seq;
}

/** Objects to the run that took the store, because this run is still going. The rest of the marker stays. */
export async function contestMarker(
  { objects, installationId }: Pick<MarkerParts, "objects" | "installationId">,
  stored: StoredMarker,
  runId: string,
): Promise<void> {
  const marker = markerText.parse(parseJson(stored.text));
  const text = `${JSON.stringify({ ...marker, contested_by: runId })}\n`;
  await objects.writeMarker(markerKey(installationId), text, { replaces: stored.etag });
}

/** Identifies an event beyond its number. The empty ledger has a fingerprint too, because every ledger begins with it. */
function fingerprint(event: StorageEvent | null): string {
  if (event === null) return "";
  const { seq, workspaceId, uploadId, kind, bytes, balanceBytes, atMs } = event;
  return sha256Hex(JSON.stringify([seq, workspaceId, uploadId, kind, bytes, balanceBytes, atMs]));
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
