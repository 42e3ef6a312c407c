import type { Db } from "../db/db.ts";

/** A workspace's counter beside what it must equal (BOOKS). */
export interface WorkspaceSums {
  workspaceId: string;
  counterBytes: number;
  ledgerBytes: number;
  uploadsBytes: number;
  /** The balance after the newest event. */
  balanceBytes: number;
}

export interface ConfirmedRow {
  uploadId: string;
  objectKey: string;
  sizeBytes: number;
  etag: string;
  confirmedAtMs: number;
}

export interface FailingEntry {
  objectKey: string;
  attempts: number;
  lastError: string | null;
}

export interface Trial {
  uploadId: string;
  objectKey: string;
  expiresAtMs: number;
  nowMs: number;
}

export type DoctorQueries = ReturnType<typeof createDoctorQueries>;

/**
 * What doctor asks the database, and the little that it writes. Each question is a statement of its own and bounded, so
 * that no reader holds back the log of a server that runs beside it.
 */
export function createDoctorQueries(db: Db) {
  const selectWorkspaces = db.prepare<{ after: string; limit: number }, { workspaceId: string }>(`
    SELECT id AS workspaceId FROM workspaces WHERE id > :after ORDER BY id LIMIT :limit`);
  // One statement, so one moment: between two of them a confirm could make a sound workspace look wrong.
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
  const selectConfirmed = db.prepare<{ after: string; through: string; limit: number }, ConfirmedRow>(`
    SELECT id AS uploadId, object_key AS objectKey, size_bytes AS sizeBytes, coalesce(etag, '') AS etag,
           updated_at_ms AS confirmedAtMs
      FROM uploads
     WHERE id > :after AND id <= :through AND status = 'uploaded'
     ORDER BY id LIMIT :limit`);
  const selectKey = db.prepare<[string], { objectKey: string }>(
    "SELECT object_key AS objectKey FROM uploads WHERE id = ?",
  );
  const selectEntry = db.prepare<[string], { seq: number }>("SELECT seq FROM object_removals WHERE object_key = ?");
  const selectFailing = db.prepare<{ limit: number }, FailingEntry>(`
    SELECT object_key AS objectKey, attempts, last_error AS lastError FROM object_removals
     WHERE attempts > 0 ORDER BY seq LIMIT :limit`);
  const countExpiring = db.prepare<[number], { uploads: number }>(`
    SELECT count(*) AS uploads FROM uploads WHERE status = 'pending' AND expires_at_ms <= ?`);
  // Of a user and of no workspace: it is in no one's list and counts against no quota.
  const insertTrial = db.prepare<Trial>(`
    INSERT INTO uploads (id, user_id, filename, category, content_type, status, object_key, url_expires_at_ms, expires_at_ms,
                         created_at_ms, updated_at_ms)
    SELECT :uploadId, id, 'stowage doctor.txt', 'file', 'text/plain', 'pending', :objectKey, :expiresAtMs, :expiresAtMs,
           :nowMs, :nowMs
      FROM users LIMIT 1`);
  const deleteTrial = db.prepare<[string]>("DELETE FROM uploads WHERE id = ? AND status = 'pending'");
  const selectForeignKeys = db.prepare<[], { table: string; parent: string }>("PRAGMA foreign_key_check");
  const selectIntegrity = db.prepare<[], { integrity_check: string }>("PRAGMA integrity_check(100)");
  const selectPages = db.prepare<[], { page_count: number }>("PRAGMA page_count");
  const selectPageSize = db.prepare<[], { page_size: number }>("PRAGMA page_size");

  /** Ids of workspaces, deleted ones included, in order and a page at a time. */
  function workspaceIds(after: string, limit: number): string[] {
    return selectWorkspaces.all({ after, limit }).map(({ workspaceId }) => workspaceId);
  }

  function sumsOf(workspaceId: string): WorkspaceSums | undefined {
    return selectSums.get(workspaceId);
  }

  /**
   * Books an `adjust` that brings counter and ledger to the sum of the uploads. Resolves with whether there was anything
   * to adjust; false too where counter and ledger differ, which no event can mend.
   */
  function adjust(workspaceId: string, nowMs: number): Promise<boolean> {
    return db.write(() => {
      const sums = selectSums.get(workspaceId);
      if (sums === undefined || sums.counterBytes === sums.uploadsBytes || !isLedgerSound(sums)) return false;
      const { counterBytes, uploadsBytes } = sums;
      insertAdjust.run({ workspaceId, bytes: uploadsBytes - counterBytes, balanceBytes: uploadsBytes, nowMs });
      return true;
    });
  }

  /** Confirmed uploads whose id lies after the first id and not beyond the second, in order and a page at a time. */
  function confirmedBetween(after: string, through: string, limit: number): ConfirmedRow[] {
    return selectConfirmed.all({ after, through, limit });
  }

  /** Whether the upload, in whatever state, names this object. */
  function names(uploadId: string, objectKey: string): boolean {
    return selectKey.get(uploadId)?.objectKey === objectKey;
  }

  /** Whether the object is entered for removal. */
  function isEntered(objectKey: string): boolean {
    return selectEntry.get(objectKey) !== undefined;
  }

  function failing(limit: number): FailingEntry[] {
    return selectFailing.all({ limit });
  }

  /** Pending uploads whose time is over. */
  function expiring(nowMs: number): number {
    return countExpiring.get(nowMs)?.uploads ?? 0;
  }

  /** Makes a pending upload to try the embedded store with. Resolves with false where there is no user to make it for. */
  function makeTrial(trial: Trial): Promise<boolean> {
    return db.writeStatement(() => insertTrial.run(trial).changes === 1);
  }

  /** Deletes it, as any upload is deleted: its object is entered for removal. */
  function endTrial(uploadId: string): Promise<void> {
    return db.writeStatement(() => void deleteTrial.run(uploadId));
  }

  /** What SQLite finds wrong with the file; nothing where it is sound. */
  function integrityErrors(): string[] {
    const damaged = selectIntegrity.all().map((row) => row.integrity_check);
    const orphaned = selectForeignKeys.all().map(({ table, parent }) => `a row of ${table} has no row in ${parent}`);
    return [...damaged.filter((text) => text !== "ok"), ...new Set(orphaned)];
  }

  function fileBytes(): number {
    return (selectPages.get()?.page_count ?? 0) * (selectPageSize.get()?.page_size ?? 0);
  }

  return {
    ...{ workspaceIds, sumsOf, adjust, confirmedBetween, names, isEntered, failing },
    ...{ expiring, integrityErrors, fileBytes, makeTrial, endTrial },
  };
}

/** Whether counter, ledger and its last balance agree. If they do not, no event can mend it. */
export function isLedgerSound({ counterBytes, ledgerBytes, balanceBytes }: WorkspaceSums): boolean {
  return counterBytes === ledgerBytes && counterBytes === balanceBytes;
}
