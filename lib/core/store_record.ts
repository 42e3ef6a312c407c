import * as z from "zod";
import type { Db } from "../db/db.ts";

/** Where a store is, as the settings name it. Secrets are no part of it. */
const storePlace = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("disk"), folder: z.string() }),
  z.object({ kind: z.literal("s3"), endpoint: z.string(), bucket: z.string() }),
]);
export type StorePlace = z.infer<typeof storePlace>;

const recordText = z.object({
  place: storePlace,
  store_id: z.string(),
  run_id: z.string().nullable(),
  ledger_seq: z.int().min(0),
});

/** The store that holds the objects, as the database knows it. */
export interface StoreRecord {
  place: StorePlace;
  /** Stands in the marker too: by it a store is recognised, whatever its address. */
  storeId: string;
  /** The run of `serve` that took the store last; null after a person has decided, before a run took it. */
  runId: string | null;
  /** How far the ledger had come when the marker was last known to be written. */
  ledgerSeq: number;
}

export interface StoreState {
  record: StoreRecord | null;
  /** Null: no marker was ever written. */
  markerWrittenAtMs: number | null;
  /** Raised by each run of `serve` that took the store. */
  generation: number;
  /** Whether anything was ever booked. Asked only where it matters: a table with a damaged page stops nothing else. */
  hasLedger: () => boolean;
  /** Whether there is an upload, or an object that is to be removed. */
  hasUploads: () => boolean;
}

export interface SampledUpload {
  objectKey: string;
  sizeBytes: number;
}

/** The oldest and as many of the newest: what was moved or restored in part lacks the one or the other. */
const SAMPLE_EACH = 5;

export type StoreRecords = ReturnType<typeof createStoreRecords>;

/** What the database remembers of the store that its objects are in. */
export function createStoreRecords(db: Db) {
  const select = db.prepare<[], { text: string | null; markerWrittenAtMs: number | null; generation: number }>(`
    SELECT store_json AS text, marker_written_at_ms AS markerWrittenAtMs, generation FROM installation`);
  const selectHasLedger = db.prepare<[], { found: number }>("SELECT EXISTS (SELECT 1 FROM storage_events) AS found");
  const selectHasUploads = db.prepare<[], { found: number }>(`
    SELECT EXISTS (SELECT 1 FROM uploads) OR EXISTS (SELECT 1 FROM object_removals) AS found`);
  const updateRecord = db.prepare<{ text: string; generation: number }>(
    "UPDATE installation SET store_json = :text, generation = :generation",
  );
  const updateMarked = db.prepare<{ text: string; generation: number; nowMs: number }>(`
    UPDATE installation
       SET store_json = :text, generation = :generation, marker_written_at_ms = coalesce(marker_written_at_ms, :nowMs)`);
  const selectOldest = db.prepare<[number], SampledUpload>(`
    SELECT object_key AS objectKey, size_bytes AS sizeBytes FROM uploads WHERE status = 'uploaded' ORDER BY id LIMIT ?`);
  const selectNewest = db.prepare<[number], SampledUpload>(`
    SELECT object_key AS objectKey, size_bytes AS sizeBytes FROM uploads
     WHERE status = 'uploaded' ORDER BY id DESC LIMIT ?`);

  function read(): StoreState {
    const row = select.get();
    if (row === undefined) throw new Error("The database has no installation");
    const { text, ...state } = row;
    return {
      ...state,
      record: parseRecord(text),
      hasLedger: () => selectHasLedger.get()?.found === 1,
      hasUploads: () => selectHasUploads.get()?.found === 1,
    };
  }

  /** Writes down which store is about to be used, before its marker is written. */
  function note(record: StoreRecord, generation: number): Promise<void> {
    return db.writeStatement(() => void updateRecord.run({ text: textOf(record), generation }));
  }

  /** Writes down that the store has its marker. */
  function noteMarked(record: StoreRecord, generation: number, nowMs: number): Promise<void> {
    return db.writeStatement(() => void updateMarked.run({ text: textOf(record), generation, nowMs }));
  }

  /** A few confirmed uploads: the oldest and the newest. */
  function sample(): SampledUpload[] {
    const found = [...selectOldest.all(SAMPLE_EACH), ...selectNewest.all(SAMPLE_EACH)];
    return [...new Map(found.map((upload) => [upload.objectKey, upload])).values()];
  }

  return { read, note, noteMarked, sample };
}

function textOf({ place, storeId, runId, ledgerSeq }: StoreRecord): string {
  const text: z.infer<typeof recordText> = { place, store_id: storeId, run_id: runId, ledger_seq: ledgerSeq };
  return JSON.stringify(text);
}

function parseRecord(text: string | null): StoreRecord | null {
  if (text === null) return null;
  const { place, store_id: storeId, run_id: runId, ledger_seq: ledgerSeq } = recordText.parse(JSON.parse(text));
  return { place, storeId, runId, ledgerSeq };
}
