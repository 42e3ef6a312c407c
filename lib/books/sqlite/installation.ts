import * as z from "zod";
import { AppError } from "../../errors.ts";
import { whyUnusable } from "../../sqlite/sqlite_errors.ts";
import type { ClockRecords, TimesAtStart } from "../clock.ts";
import type { SampledUpload, StoreRecord, Stores } from "../stores.ts";
import type { Db } from "./db/db.ts";

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

/** The only writer of the row of `installation`, but for the log's beginning, which `db/log_start.ts` keeps there. */
export function createInstallation(db: Db, now: () => number) {
  const select = db.prepare<[], { id: string }>("SELECT id FROM installation");
  const probe = db.prepare<[number]>("UPDATE installation SET probed_at_ms = ?");

  async function checkWritable(): Promise<void> {
    try {
      await db.writeStatement(() => void probe.run(now()));
    } catch (error) {
      const message = `The database cannot be written at the moment${describeCause(error)}`;
      throw new AppError("storage_unavailable", message, { cause: error });
    }
  }

  return { id: theRow(select.get()).id, checkWritable, clock: createClockRecords(db), stores: createStores(db) };
}

function createClockRecords(db: Db): ClockRecords {
  const select = db.prepare<[], TimesAtStart>(`
    SELECT clock_trusted_at_ms AS trustedAtMs, clock_doubted_at_ms AS doubtedAtMs, looked_at_ms AS scannedAtMs,
           created_at_ms AS createdAtMs,
           max(created_at_ms,
               coalesce((SELECT created_at_ms FROM uploads ORDER BY id DESC LIMIT 1), 0),
               coalesce((SELECT at_ms FROM storage_events ORDER BY seq DESC LIMIT 1), 0)) AS newestRowAtMs
      FROM installation`);
  const updateTrusted = db.prepare<[number]>(
    "UPDATE installation SET clock_trusted_at_ms = ?, clock_doubted_at_ms = NULL",
  );
  const updateDoubted = db.prepare<[number]>("UPDATE installation SET clock_doubted_at_ms = ?");
  const updateScanned = db.prepare<[number]>("UPDATE installation SET looked_at_ms = ?");

  return {
    read: async () => theRow(select.get()),
    recordTrusted: (nowMs) => db.writeStatement(() => void updateTrusted.run(nowMs)),
    recordDoubted: (nowMs) => db.writeStatement(() => void updateDoubted.run(nowMs)),
    recordScanned: (nowMs) => db.writeStatement(() => void updateScanned.run(nowMs)),
  };
}

function createStores(db: Db): Stores {
  const select = db.prepare<[], { text: string | null; markerWrittenAtMs: number | null; generation: number }>(`
    SELECT store_json AS text, marker_written_at_ms AS markerWrittenAtMs, generation FROM installation`);
  const selectHasLedger = db.prepare<[], { isAny: number }>("SELECT EXISTS (SELECT 1 FROM storage_events) AS isAny");
  const selectHasUploads = db.prepare<[], { isAny: number }>(`
    SELECT EXISTS (SELECT 1 FROM uploads) OR EXISTS (SELECT 1 FROM object_removals) AS isAny`);
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

  return {
    async read() {
      const { text, ...state } = theRow(select.get());
      return { ...state, record: text === null ? null : parseRecord(text) };
    },
    recordTaken: (record, generation) =>
      db.writeStatement(() => void updateRecord.run({ text: textOf(record), generation })),
    recordMarked: (record, generation, nowMs) =>
      db.writeStatement(() => void updateMarked.run({ text: textOf(record), generation, nowMs })),
    hasLedger: async () => selectHasLedger.get()?.isAny === 1,
    hasUploads: async () => selectHasUploads.get()?.isAny === 1,
    async sampleUploads() {
      const uploads = [...selectOldest.all(SAMPLE_EACH), ...selectNewest.all(SAMPLE_EACH)];
      // If there are few, the oldest are among the newest.
      return [...new Map(uploads.map((upload) => [upload.objectKey, upload])).values()];
    },
  };
}

/** Why the write failed, as far as SQLite says: its error may be the cause of the one that the write rejected with. */
function describeCause(failure: unknown): string {
  for (let error = failure; error instanceof Error; error = error.cause) {
    const why = whyUnusable(error);
    if (why !== null) return `: ${why}`;
  }
  return "";
}

/** The installation's row, which was made with the file. */
function theRow<Row>(row: Row | undefined): Row {
  if (row === undefined) throw new Error("The database has no installation row");
  return row;
}

function textOf({ place, storeId, runId, ledgerSeq }: StoreRecord): string {
  const text: z.infer<typeof recordText> = { place, store_id: storeId, run_id: runId, ledger_seq: ledgerSeq };
  return JSON.stringify(text);
}

function parseRecord(text: string): StoreRecord {
  const { place, store_id: storeId, run_id: runId, ledger_seq: ledgerSeq } = recordText.parse(JSON.parse(text));
  return { place, storeId, runId, ledgerSeq };
}
