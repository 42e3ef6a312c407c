import * as z from "zod";
import type { SampledUpload, StoreRecord, Stores } from "../stores.ts";
import type { Db } from "./db/db.ts";
import { type InstallationRow, theRow } from "./installation_row.ts";

/** How many of the oldest, and how many of the newest uploads a sample has. */
const SAMPLE_EACH = 5;

const recordText = z.object({
  place: z.discriminatedUnion("kind", [
    z.object({ kind: z.literal("disk"), folder: z.string() }),
    z.object({ kind: z.literal("s3"), endpoint: z.string(), bucket: z.string() }),
  ]),
  store_id: z.string(),
  run_id: z.string().nullable(),
  ledger_seq: z.int().min(0),
});

export function createStores(db: Db, { installation }: { installation: InstallationRow }): Stores {
  const select = db.prepare<[], { text: string | null; markerWrittenAtMs: number | null; generation: number }>(`
    SELECT store_json AS text, marker_written_at_ms AS markerWrittenAtMs, generation FROM installation`);
  const selectHasLedger = db.prepare<[], { isAny: number }>("SELECT EXISTS (SELECT 1 FROM storage_events) AS isAny");
  const selectHasUploads = db.prepare<[], { isAny: number }>(`
    SELECT EXISTS (SELECT 1 FROM uploads) OR EXISTS (SELECT 1 FROM object_removals) AS isAny`);
  const selectOldest = db.prepare<[number], SampledUpload>(`
    SELECT object_key AS objectKey, size_bytes AS sizeBytes FROM uploads WHERE status = 'uploaded' ORDER BY id LIMIT ?`);
  const selectNewest = db.prepare<[number], SampledUpload>(`
    SELECT object_key AS objectKey, size_bytes AS sizeBytes FROM uploads
     WHERE status = 'uploaded' ORDER BY id DESC LIMIT ?`);

  return {
    async read() {
      const { text, ...state } = theRow(select.get());
      return { ...state, record: text === null ? null : parseRecord(text) };
    },
    recordTaken: (record, generation) =>
      db.writeStatement(() => installation.setStore({ text: textOf(record), generation })),
    recordMarked: (record, generation, nowMs) =>
      db.writeStatement(() => installation.setMarked({ text: textOf(record), generation, nowMs })),
    hasLedger: async () => selectHasLedger.get()?.isAny === 1,
    hasUploads: async () => selectHasUploads.get()?.isAny === 1,
    async sampleUploads() {
      const uploads = [...selectOldest.all(SAMPLE_EACH), ...selectNewest.all(SAMPLE_EACH)];
      // If there are few, the oldest are among the newest.
      return [...new Map(uploads.map((upload) => [upload.objectKey, upload])).values()];
    },
  };
}

function textOf({ place, storeId, runId, ledgerSeq }: StoreRecord): string {
  const text: z.infer<typeof recordText> = { place, store_id: storeId, run_id: runId, ledger_seq: ledgerSeq };
  return JSON.stringify(text);
}

function parseRecord(text: string): StoreRecord {
  const { place, store_id: storeId, run_id: runId, ledger_seq: ledgerSeq } = recordText.parse(JSON.parse(text));
  return { place, storeId, runId, ledgerSeq };
}
