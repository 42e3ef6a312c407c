import { randomBytes } from "node:crypto";
import * as z from "zod";
import type { Ledger, StorageEvent } from "../core/ledger.ts";
import type { StorePlace, StoreRecord, StoreRecords, StoreState } from "../core/store_record.ts";
import { sha256Hex } from "../ids.ts";
import { type ObjectStore, type StoredMarker, StoreError } from "../store/objects.ts";
import { describePlace, isSamePlace } from "../store/place.ts";
import { timestamp } from "../timestamp.ts";

/** What versions before schema 3 wrote lacks the store, the run, and all that follows. */
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
});

/** How far the ledger had come when the marker was written, and who wrote it. */
export interface Marker {
  installationId: string;
  seq: number;
  /** Names the event with that number. */
  eventSha256: string;
  writtenAt: string;
  storeId: string | null;
  generation: number;
  runId: string | null;
  /** A run from which this one took the store, and that was still running then. */
  contestedBy: string | null;
  /** Names the data directory of that run on that machine: see `directory_id.ts`. Null where it cannot be told, or not yet. */
  directory: string | null;
  /** The run has ended in good order: it will never remove anything again. */
  isReleased: boolean;
}

/** What the marker in the store says of the database. */
export type MarkerVerdict =
  /** There is no marker and nothing is stored: the store may be made. */
  | { kind: "fresh" }
  /** The database holds all that the marker names. Both are null where no marker had to be written yet. */
  | { kind: "current"; marker: Marker; stored: StoredMarker }
  | { kind: "current"; marker: null; stored: null }
  /** The database's ledger ends before the marker, or holds another event at its place: it was restored. */
  | { kind: "older"; marker: Marker; stored: StoredMarker; reason: string }
  /** Another copy of the data directory has taken the store. */
  | { kind: "copied"; marker: Marker; stored: StoredMarker; reason: string }
  /** The objects are in another store, or in this one no longer. */
  | { kind: "other"; reason: string };

export interface MarkerParts {
  objects: Pick<ObjectStore, "readMarker" | "writeMarker" | "stat">;
  ledger: Pick<Ledger, "last" | "at">;
  stores: StoreRecords;
  installationId: string;
  /** The store that the settings name. */
  place: StorePlace;
}

/** The key of the marker where it is an object among others. It cannot be an upload's. */
export function markerKeyOf(installationId: string): string {
  return `final/${installationId}/ledger-marker`;
}

/**
 * Compares the marker in the store with the database. Absence never counts as agreement: a store without a marker is this
 * installation's only if none was ever written. Rejects with the `StoreError` where the store cannot be asked.
 */
export async function compareMarker(parts: MarkerParts): Promise<MarkerVerdict> {
  const { objects, stores, installationId, place } = parts;
  const state = stores.read();
  let stored: StoredMarker | null;
  try {
    stored = await objects.readMarker(markerKeyOf(installationId));
  } catch (error) {
    if (!(error instanceof StoreError && error.failure === "bucket_missing")) throw error;
    return mayMake(state) ? { kind: "fresh" } : other(state, place, `${describePlace(place)} does not exist`);
  }
  if (stored === null) return await judgeMissing(parts, state);
  const marker = markerIn(stored);
  if (marker === null) return other(state, place, `the marker in ${describePlace(place)} cannot be read`);
  if (marker.installationId !== installationId) {
    return other(state, place, `${describePlace(place)} belongs to the installation "${marker.installationId}"`);
  }
  const isOther = state.markerWrittenAtMs !== null && marker.storeId !== (state.record?.storeId ?? null);
  if (isOther && !isUnused(state)) {
    return other(state, place, `${describePlace(place)} is another one, by its marker`);
  }
  const older = judgeLedger(parts, marker);
  if (older !== null) return { kind: "older", marker, stored, reason: older };
  if (state.record !== null && state.markerWrittenAtMs !== null && marker.seq < state.record.ledgerSeq) {
    const behind = await judgeBehind(parts, state.record, marker);
    if (behind !== null) return other(state, place, behind);
  }
  const copied = judgeRun(state, marker);
  if (copied !== null) return { kind: "copied", marker, stored, reason: copied };
  return { kind: "current", marker, stored };
}

/** Why a person has to decide between two copies of a data directory; null where the marker names no other that runs. */
export function contestedReason(marker: Marker | null): string | null {
  if (marker === null || marker.contestedBy === null) return null;
  return `another copy of this data directory was still running when this one took the store (generation ${marker.generation})`;
}

/** What a marker says; null where there is none, or none that can be read. */
export function markerIn(stored: StoredMarker | null): Marker | null {
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
  };
}

/**
 * Whether the run that wrote the marker may still be at work, on another copy of the data directory. One on this very
 * directory has ended: whoever asks holds its lock.
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

/** Whether there is nothing that could be in another store: then the bucket or folder may be made. */
function mayMake(state: StoreState): boolean {
  const { record, markerWrittenAtMs, hasLedger, hasUploads } = state;
  // A store is recorded when it is first tried. Uploads without one are from a version that recorded none.
  return isUnused(state) || (markerWrittenAtMs === null && !hasLedger() && hasUploads() && record !== null);
}

/** Whether nothing was ever stored, or only what was given up and removed again without being confirmed. */
function isUnused({ hasLedger, hasUploads }: StoreState): boolean {
  return !hasLedger() && !hasUploads();
}

async function judgeMissing(parts: MarkerParts, state: StoreState): Promise<MarkerVerdict> {
  const where = describePlace(parts.place);
  if (mayMake(state)) return { kind: "fresh" };
  if (state.markerWrittenAtMs !== null) {
    return other(state, parts.place, `${where} has no marker of this installation`);
  }
  // Of a version that wrote the marker only before it first removed something.
  const missing = await missingOf(parts);
  if (missing === null) return { kind: "current", marker: null, stored: null };
  return other(state, parts.place, `${missing} in ${where}, which has no marker of this installation`);
}

/** Why the database is older than the store; null where it is not. */
function judgeLedger({ ledger }: MarkerParts, { seq, eventSha256 }: Marker): string | null {
  const databaseSeq = ledger.last()?.seq ?? 0;
  if (databaseSeq < seq) return `the ledger ends at ${databaseSeq}, the store has seen it at ${seq}`;
  // A ledger that was restored and then written on may be as long as the lost one, and is not the same.
  if (fingerprint(ledger.at(seq)) === eventSha256) return null;
  return `the ledger's number ${seq} is not the one that the store has seen`;
}

/** Why a store whose marker is older than the one that was written last is not that store; null where it may be. */
async function judgeBehind(parts: MarkerParts, record: StoreRecord, marker: Marker): Promise<string | null> {
  const where = describePlace(parts.place);
  const behind = `its marker is of ${marker.writtenAt}, and a later one was written`;
  if (!isSamePlace(parts.place, record.place)) return `${where} is an older copy: ${behind}`;
  // The store's machine may have lost its last writes, or the store was restored.
  const missing = await missingOf(parts);
  return missing === null ? null : `${missing} in ${where}, which was set back: ${behind}`;
}

/** How many of a few confirmed uploads are not in the store, for a sentence; null where all are. */
async function missingOf({ objects, stores }: MarkerParts): Promise<string | null> {
  const sample = stores.sample();
  let missing = 0;
  for (const { objectKey, sizeBytes } of sample) {
    if ((await objects.stat(objectKey))?.sizeBytes !== sizeBytes) missing++;
  }
  return missing === 0 ? null : `${missing} of ${sample.length} confirmed uploads that were looked for are not`;
}

/** Why the store is no longer this data directory's; null where it is. */
function judgeRun({ record, generation }: StoreState, marker: Marker): string | null {
  // Below: this run, or one before it, is about to take the store.
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
 * Writes down how far the ledger has come, in place of the marker that was read, and resolves with the ledger's number.
 * What it names must be committed. Rejects with `changed` where someone else has written meanwhile.
 */
export async function writeMarker(
  { objects, ledger, installationId }: Pick<MarkerParts, "objects" | "ledger" | "installationId">,
  { storeId, generation, runId, directory, isReleased }: MarkerOwner,
  { replaces, nowMs }: { replaces: StoredMarker | null; nowMs: number },
): Promise<number> {
  const last = ledger.last();
  const seq = last?.seq ?? 0;
  const before = markerIn(replaces);
  const marker: z.infer<typeof markerText> = {
    installation: installationId,
    ledger_seq: seq,
    event_sha256: fingerprint(last),
    // When the ledger was seen to have come so far: a mere start, with a clock that may be wrong, is no news of that.
    written_at: before !== null && before.seq === seq ? before.writtenAt : timestamp(nowMs),
    store: storeId,
    generation,
    run: runId,
    contested_by: null,
    directory,
    released: isReleased,
  };
  const text = `${JSON.stringify(marker)}\n`;
  await objects.writeMarker(markerKeyOf(installationId), text, { replaces: replaces?.etag ?? null });
  return marker.ledger_seq;
}

/** Tells the run that has taken the store that the one from which it did still runs. Nothing else in the marker changes. */
export async function contestMarker(
  { objects, installationId }: Pick<MarkerParts, "objects" | "installationId">,
  stored: StoredMarker,
  runId: string,
): Promise<void> {
  const marker = markerText.parse(parseJson(stored.text));
  const text = `${JSON.stringify({ ...marker, contested_by: runId })}\n`;
  await objects.writeMarker(markerKeyOf(installationId), text, { replaces: stored.etag });
}

/** Names an event beyond its number. None at all has a fingerprint too: a ledger without events is the start of every other. */
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
