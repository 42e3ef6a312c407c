import { giveWay } from "../../pacer.ts";
import { isLedgerSound, type Ledger, type StorageEvent, type StorageEventKind, type WorkspaceSums } from "../ledger.ts";
import type { Db } from "./db/db.ts";

/** Index entries that one step of a search for one kind reads, in about 0.5 ms. */
const STEP_ROWS_MAX = 2_000;

/** The only writer of `storage_events` beside the schema's triggers, which book charges and releases. */
export function createLedger(db: Db, { stepRows = STEP_ROWS_MAX }: { stepRows?: number } = {}): Ledger {
  const columns = `
    seq, workspace_id AS workspaceId, upload_id AS uploadId, kind, bytes, balance_bytes AS balanceBytes, at_ms AS atMs`;
  const selectNewest = db.prepare<Page, StorageEvent>(`
    SELECT ${columns} FROM storage_events
     WHERE workspace_id = :workspaceId AND seq < :beforeSeq
     ORDER BY seq DESC LIMIT :limit`);
  // The unary plus keeps SQLite from reading a workspace's whole ledger for the sake of the order: here are two rows.
  const selectOfUpload = db.prepare<Page & { uploadId: string; kind: string | null }, StorageEvent>(`
    SELECT ${columns} FROM storage_events
     WHERE upload_id = :uploadId AND +workspace_id = :workspaceId AND (:kind IS NULL OR kind = :kind) AND seq < :beforeSeq
     ORDER BY seq DESC LIMIT :limit`);
  const selectKind = db.prepare<Page & { kind: string; fromSeq: number }, StorageEvent>(`
    SELECT ${columns} FROM storage_events
     WHERE workspace_id = :workspaceId AND seq >= :fromSeq AND seq < :beforeSeq AND kind = :kind
     ORDER BY seq DESC LIMIT :limit`);
  const selectStepEnd = db.prepare<{ workspaceId: string; beforeSeq: number; rows: number }, { seq: number }>(`
    SELECT seq FROM storage_events
     WHERE workspace_id = :workspaceId AND seq < :beforeSeq
     ORDER BY seq DESC LIMIT 1 OFFSET :rows`);

  const selectLast = db.prepare<[], StorageEvent>(`SELECT ${columns} FROM storage_events ORDER BY seq DESC LIMIT 1`);
  const selectAt = db.prepare<[number], StorageEvent>(`SELECT ${columns} FROM storage_events WHERE seq = ?`);

  // One statement, so one moment: a confirm between two of them could make a sound workspace look wrong.
  const selectSums = db.prepare<[string], WorkspaceSums>(`
    SELECT id AS workspaceId, storage_bytes_used AS counterBytes,
           (SELECT coalesce(sum(bytes), 0) FROM storage_events e WHERE e.workspace_id = w.id) AS ledgerBytes,
           (SELECT coalesce(sum(size_bytes), 0) FROM uploads u
             WHERE u.workspace_id = w.id AND u.status = 'uploaded') AS uploadsBytes,
           coalesce((SELECT balance_bytes FROM storage_events e WHERE e.workspace_id = w.id
                      ORDER BY seq DESC LIMIT 1), 0) AS balanceBytes
      FROM workspaces w
     WHERE id = ?`);
  const insertAdjust = db.prepare<{ workspaceId: string; bytes: number; balanceBytes: number; nowMs: number }>(`
    INSERT INTO storage_events (workspace_id, kind, bytes, balance_bytes, at_ms)
    VALUES (:workspaceId, 'adjust', :bytes, :balanceBytes, :nowMs)`);

  /** Adjustments are rare, and a million charges may lie before the first, so the search is made in steps. */
  async function listKind({ kind, limit, ...from }: Page & { kind: StorageEventKind }): Promise<StorageEvent[]> {
    const { workspaceId } = from;
    const found: StorageEvent[] = [];
    for (let { beforeSeq } = from; ; ) {
      const end = selectStepEnd.get({ workspaceId, beforeSeq, rows: stepRows });
      const fromSeq = end?.seq ?? 0;
      found.push(...selectKind.all({ workspaceId, kind, beforeSeq, fromSeq, limit: limit - found.length }));
      if (end === undefined || found.length === limit) return found;
      beforeSeq = fromSeq;
      await giveWay(workspaceId);
    }
  }

  return {
    async list(workspaceId, { uploadId, kind, beforeSeq = Number.MAX_SAFE_INTEGER, limit }) {
      const page = { workspaceId, beforeSeq, limit };
      if (uploadId !== undefined) return selectOfUpload.all({ ...page, uploadId, kind: kind ?? null });
      if (kind === undefined) return selectNewest.all(page);
      return await listKind({ ...page, kind });
    },
    findLast: async () => selectLast.get() ?? null,
    find: async (seq) => selectAt.get(seq) ?? null,
    sumsOf: async (workspaceId) => selectSums.get(workspaceId),

    adjust: (workspaceId, nowMs) =>
      db.write(() => {
        const sums = selectSums.get(workspaceId);
        if (sums === undefined || sums.counterBytes === sums.uploadsBytes || !isLedgerSound(sums)) return false;
        const { counterBytes, uploadsBytes } = sums;
        insertAdjust.run({ workspaceId, bytes: uploadsBytes - counterBytes, balanceBytes: uploadsBytes, nowMs });
        return true;
      }),
  };
}

interface Page {
  workspaceId: string;
  beforeSeq: number;
  limit: number;
}
