import type { Db } from "../db/db.ts";
import { giveWay } from "../pacer.ts";

export const STORAGE_EVENT_KINDS = ["charge", "release", "adjust"] as const;
export type StorageEventKind = (typeof STORAGE_EVENT_KINDS)[number];

/** Index entries that are looked through in one turn of the event loop, in search of one kind: 0.5 ms or so. */
const STEP_ROWS_MAX = 2_000;

export interface StorageEvent {
  /** The place in the ledger: events are ordered by it, never by time. */
  seq: number;
  workspaceId: string;
  /** Null for an `adjust`. */
  uploadId: string | null;
  kind: StorageEventKind;
  /** Signed: a release is negative. */
  bytes: number;
  /** What the workspace used after this event. */
  balanceBytes: number;
  atMs: number;
}

export interface StorageEventFilter {
  uploadId?: string | undefined;
  kind?: StorageEventKind | undefined;
  /** Only events before this one. */
  beforeSeq?: number | undefined;
  limit: number;
}

export type Ledger = ReturnType<typeof createLedger>;

/** Reads the ledger of storage. It is written by the schema's triggers alone. */
export function createLedger(db: Db, { stepRows = STEP_ROWS_MAX }: { stepRows?: number } = {}) {
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

  /** The newest event of all, or null where nothing was booked yet. */
  function last(): StorageEvent | null {
    return selectLast.get() ?? null;
  }

  /** The event with this number, of whatever workspace. */
  function at(seq: number): StorageEvent | null {
    return selectAt.get(seq) ?? null;
  }

  /** The events of a workspace, newest first. An upload of another workspace has none. */
  async function list(workspaceId: string, filter: StorageEventFilter): Promise<StorageEvent[]> {
    const { uploadId, kind, beforeSeq = Number.MAX_SAFE_INTEGER, limit } = filter;
    const page = { workspaceId, beforeSeq, limit };
    if (uploadId !== undefined) return selectOfUpload.all({ ...page, uploadId, kind: kind ?? null });
    if (kind === undefined) return selectNewest.all(page);
    return listKind({ ...page, kind });
  }

  /** Adjustments are rare, and a million charges may lie before the first: so the search is made in steps. */
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

  return { list, last, at };
}

interface Page {
  workspaceId: string;
  beforeSeq: number;
  limit: number;
}
