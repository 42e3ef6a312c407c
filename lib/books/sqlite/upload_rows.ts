import type { TrialUpload } from "../audit.ts";
import type { Principal } from "../principals.ts";
import type { FinalObject, Upload } from "../uploads.ts";
import type { Db } from "./db/db.ts";
import { CHANGES_UPLOAD_SQL, type SessionParams, sessionParams } from "./rights_sql.ts";

/** The columns of an upload, by the names that they have in the program. */
export const UPLOAD_COLUMNS = `
    id AS uploadId, user_id AS userId, workspace_id AS workspaceId, filename, category, content_type AS contentType, format, status,
    stated_size_bytes AS statedSizeBytes, checksum_sha256 AS checksumSha256, size_bytes AS sizeBytes, etag, char_count AS charCount, line_count AS lineCount,
    context_type AS contextType, context_id AS contextId, object_key AS objectKey, url_expires_at_ms AS urlExpiresAtMs,
    expires_at_ms AS expiresAtMs, created_at_ms AS createdAtMs, updated_at_ms AS updatedAtMs`;

/** A row as it was when it ceased to be pending. */
export interface GoneRow {
  uploadId: string;
  /** The workspace, or the person if it was in none; null if the row was not pending. */
  pendingOwnerId: string | null;
  statedSizeBytes: number | null;
  stagedSizeBytes: number | null;
}

/** The columns of a `GoneRow`. */
export const GONE_COLUMNS = `
    id AS uploadId, CASE status WHEN 'pending' THEN coalesce(workspace_id, user_id) END AS pendingOwnerId,
    stated_size_bytes AS statedSizeBytes, staged_size_bytes AS stagedSizeBytes`;

interface ConfirmedRow extends FinalObject {
  uploadId: string;
  workspaceId: string;
  contextType: string;
  contextId: string;
  nowMs: number;
}

export type UploadRows = ReturnType<typeof createUploadRows>;

/**
 * Everything that writes the table `uploads`. Each function runs inside a write. The schema's triggers do the rest: a
 * confirm books its charge, and a deleted row gives its bytes back and enters its object for removal.
 */
export function createUploadRows(db: Db) {
  const insertPending = db.prepare<Upload>(`
    INSERT INTO uploads (id, user_id, workspace_id, filename, category, content_type, format, status, stated_size_bytes, checksum_sha256,
                         object_key, url_expires_at_ms, expires_at_ms, created_at_ms, updated_at_ms)
    VALUES (:uploadId, :userId, :workspaceId, :filename, :category, :contentType, :format, 'pending', :statedSizeBytes, :checksumSha256,
            :objectKey, :urlExpiresAtMs, :expiresAtMs, :createdAtMs, :updatedAtMs)`);
  const deleteOfKey = db.prepare<{ uploadId: string; workspaceId: string }, GoneRow>(`
    DELETE FROM uploads WHERE id = :uploadId AND workspace_id = :workspaceId RETURNING ${GONE_COLUMNS}`);
  const deleteOfSession = db.prepare<SessionParams & { uploadId: string }, GoneRow>(`
    DELETE FROM uploads WHERE id = :uploadId AND ${CHANGES_UPLOAD_SQL} RETURNING ${GONE_COLUMNS}`);
  const deleteExpired = db.prepare<{ nowMs: number; limit: number }, GoneRow>(`
    DELETE FROM uploads
     WHERE id IN (SELECT id FROM uploads WHERE status = 'pending' AND expires_at_ms <= :nowMs ORDER BY expires_at_ms LIMIT :limit)
    RETURNING ${GONE_COLUMNS}`);
  const deleteOfWorkspace = db.prepare<{ workspaceId: string; limit: number }, GoneRow>(`
    DELETE FROM uploads
     WHERE id IN (SELECT id FROM uploads WHERE workspace_id = :workspaceId ORDER BY id LIMIT :limit)
    RETURNING ${GONE_COLUMNS}`);
  const postponeExpiry = db.prepare<{ uploadId: string; expiresAtMs: number }, { uploadId: string }>(`
    UPDATE uploads
       SET expires_at_ms = max(expires_at_ms, :expiresAtMs)
     WHERE id = :uploadId AND status = 'pending'
    RETURNING id AS uploadId`);
  const updateStagedSize = db.prepare<{ uploadId: string; sizeBytes: number }>(`
    UPDATE uploads SET staged_size_bytes = :sizeBytes WHERE id = :uploadId AND status = 'pending'`);
  const confirmPending = db.prepare<
    Omit<ConfirmedRow, "counts"> & { charCount: number | null; lineCount: number | null },
    Upload
  >(`
    UPDATE uploads
       SET status = 'uploaded', workspace_id = :workspaceId, object_key = :finalKey, size_bytes = :sizeBytes, etag = :etag,
           checksum_sha256 = coalesce(checksum_sha256, :checksumSha256), char_count = :charCount, line_count = :lineCount,
           context_type = :contextType, context_id = :contextId,
           updated_at_ms = :nowMs
     WHERE id = :uploadId AND status = 'pending'
    RETURNING ${UPLOAD_COLUMNS}`);
  // It belongs to a user and to no workspace, so that it counts against no quota.
  const insertTrial = db.prepare<TrialUpload>(`
    INSERT INTO uploads (id, user_id, filename, category, content_type, status, object_key, url_expires_at_ms, expires_at_ms,
                         created_at_ms, updated_at_ms)
    SELECT :uploadId, id, 'stowage doctor.txt', 'file', 'text/plain', 'pending', :objectKey, :expiresAtMs, :expiresAtMs,
           :nowMs, :nowMs
      FROM users LIMIT 1`);
  const deleteTrial = db.prepare<[string]>("DELETE FROM uploads WHERE id = ? AND status = 'pending'");

  return {
    insert: (upload: Upload): void => void insertPending.run(upload),
    /** Deletes an upload that the caller may delete; undefined if there is none. */
    remove: (principal: Principal, uploadId: string): GoneRow | undefined =>
      principal.authKind === "api_key"
        ? deleteOfKey.get({ uploadId, workspaceId: principal.workspaceId })
        : deleteOfSession.get({ uploadId, ...sessionParams(principal) }),
    removeExpired: (nowMs: number, limit: number): GoneRow[] => deleteExpired.all({ nowMs, limit }),
    removeOfWorkspace: (workspaceId: string, limit: number): GoneRow[] => deleteOfWorkspace.all({ workspaceId, limit }),
    /** Keeps a pending row from expiring before this time; false if there is no such row. */
    postponeExpiry: (uploadId: string, expiresAtMs: number): boolean =>
      postponeExpiry.get({ uploadId, expiresAtMs }) !== undefined,
    /** Undefined if the row is no longer pending. */
    confirm: ({ counts, ...row }: ConfirmedRow): Upload | undefined =>
      confirmPending.get({ ...row, charCount: counts?.charCount ?? null, lineCount: counts?.lineCount ?? null }),
    /** Inserts doctor's trial upload; false if there is no user to make it for. */
    insertTrial: (trial: TrialUpload): boolean => insertTrial.run(trial).changes === 1,
    removeTrial: (uploadId: string): void => void deleteTrial.run(uploadId),
    setStagedSize: (uploadId: string, sizeBytes: number): void => void updateStagedSize.run({ uploadId, sizeBytes }),
  };
}
