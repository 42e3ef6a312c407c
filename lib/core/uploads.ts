import type { Db } from "../db/db.ts";
import { isSqliteError } from "../db/sqlite_errors.ts";
import { AppError } from "../errors.ts";
import { newId, newObjectKey } from "../ids.ts";
import type { ObjectStat } from "../store/objects.ts";
import type { ContextType } from "./contexts.ts";
import { createEmptying } from "./emptying.ts";
import type { Category, FileType } from "./file_types.ts";
import type { Idempotency, RepeatableRequest } from "./idempotency.ts";
import { CHANGES_UPLOAD_SQL, PERMISSIONS, type SessionParams, sessionParams } from "./permissions.ts";
import type { Principal } from "./principals.ts";
import type { Removals } from "./removals.ts";
import type { Rights } from "./rights.ts";
import type { TextCounts } from "./text_counts.ts";
import { GONE_COLUMNS, type GoneRow, type Unconfirmed } from "./unconfirmed.ts";
import { createUploadLists } from "./upload_lists.ts";
import { createUploadViews, noUpload, UPLOAD_COLUMNS } from "./upload_views.ts";
import { noWorkspace, storageLimitExceeded, type Workspaces } from "./workspaces.ts";

export interface Upload {
  uploadId: string;
  userId: string;
  workspaceId: string | null;
  filename: string;
  category: Category;
  contentType: string;
  format: string | null;
  status: "pending" | "uploaded";
  statedSizeBytes: number | null;
  /** As it was stated, in lower-case hex. */
  checksumSha256: string | null;
  sizeBytes: number | null;
  etag: string | null;
  charCount: number | null;
  lineCount: number | null;
  contextType: string | null;
  contextId: string | null;
  objectKey: string;
  urlExpiresAtMs: number;
  expiresAtMs: number;
  createdAtMs: number;
  updatedAtMs: number;
}

export interface NewUpload {
  type: FileType;
  category: Category;
  statedSizeBytes: number | null;
  checksumSha256: string | null;
}

/** A new upload, or the one that the same request made before. */
export interface CreatedUpload {
  upload: Upload;
  /** Where its bytes are to be PUT; a repeated request may find the upload confirmed, under another key. */
  stagingKey: string;
}

/** What a confirm settles: the object that was made final, and what the upload is bound to. */
export interface Confirmation {
  uploadId: string;
  workspaceId: string;
  contextType: ContextType;
  contextId: string;
  finalKey: string;
  object: ObjectStat;
  counts: TextCounts | null;
}

export interface UploadsOptions {
  uploadUrlTtlMs: number;
  pendingTtlMs: number;
}

/** Expired rows that go in one transaction. */
const EXPIRY_BATCH = 500;

export type Uploads = ReturnType<typeof createUploads>;

/** The rows of uploads: made, confirmed, deleted, expired, and what is seen of them. The schema's triggers keep the books. */
export function createUploads(
  db: Db,
  parts: {
    /** For what the cleaner asks for. */
    background: Db;
    workspaces: Workspaces;
    rights: Rights;
    removals: Removals;
    idempotency: Idempotency;
    unconfirmed: Unconfirmed;
    now: () => number;
    options: UploadsOptions;
  },
) {
  const { background, workspaces, rights, removals, idempotency, unconfirmed, now, options } = parts;
  const insertPending = db.prepare<Upload>(`
    INSERT INTO uploads (id, user_id, workspace_id, filename, category, content_type, format, status, stated_size_bytes, checksum_sha256,
                         object_key, url_expires_at_ms, expires_at_ms, created_at_ms, updated_at_ms)
    VALUES (:uploadId, :userId, :workspaceId, :filename, :category, :contentType, :format, 'pending', :statedSizeBytes, :checksumSha256,
            :objectKey, :urlExpiresAtMs, :expiresAtMs, :createdAtMs, :updatedAtMs)`);
  // One statement deletes a row, gives its bytes back and enters its object for removal: the triggers do the rest.
  const deleteOfWorkspace = db.prepare<{ uploadId: string; workspaceId: string }, GoneRow>(`
    DELETE FROM uploads WHERE id = :uploadId AND workspace_id = :workspaceId RETURNING ${GONE_COLUMNS}`);
  const deleteBySession = db.prepare<SessionParams & { uploadId: string }, GoneRow>(`
    DELETE FROM uploads WHERE id = :uploadId AND ${CHANGES_UPLOAD_SQL} RETURNING ${GONE_COLUMNS}`);
  const deleteExpired = db.prepare<{ nowMs: number; limit: number }, GoneRow>(`
    DELETE FROM uploads
     WHERE id IN (SELECT id FROM uploads WHERE status = 'pending' AND expires_at_ms <= :nowMs ORDER BY expires_at_ms LIMIT :limit)
    RETURNING ${GONE_COLUMNS}`);
  const postponeExpiry = db.prepare<{ uploadId: string; expiresAtMs: number }, { uploadId: string }>(`
    UPDATE uploads
       SET expires_at_ms = max(expires_at_ms, :expiresAtMs)
     WHERE id = :uploadId AND status = 'pending'
    RETURNING id AS uploadId`);
  const confirmPending = db.prepare<
    Omit<Confirmation, "object" | "counts"> & TextCountsOrNull & { sizeBytes: number; etag: string; nowMs: number },
    Upload
  >(`
    UPDATE uploads
       SET status = 'uploaded', workspace_id = :workspaceId, object_key = :finalKey, size_bytes = :sizeBytes, etag = :etag,
           char_count = :charCount, line_count = :lineCount, context_type = :contextType, context_id = :contextId,
           updated_at_ms = :nowMs
     WHERE id = :uploadId AND status = 'pending'
    RETURNING ${UPLOAD_COLUMNS}`);
  const views = createUploadViews(db);
  const emptying = createEmptying(background, { unconfirmed, now });
  const installationId = workspaces.installationId();

  /**
   * Makes a pending upload; of a session that selects no workspace it is a personal one. Throws `rate_limited` where there
   * are too many, `storage_limit_exceeded` where a stated size can never fit, or (one of the two) where too much is staged;
   * `insufficient_storage`; `not_found` where the request is repeated and the upload that it made is gone.
   */
  async function create(
    principal: Principal,
    newUpload: NewUpload,
    request: RepeatableRequest | null = null,
  ): Promise<CreatedUpload> {
    let isCounted = false;
    /** Counts the upload and makes its row. */
    const insert = (upload: Upload): void => {
      unconfirmed.add(principal, upload.statedSizeBytes);
      isCounted = true;
      insertPending.run(upload);
    };
    try {
      if (request !== null) return await createOnce(principal, newUpload, { request, insert });
      db.checkFreeSpace();
      checkRoom(principal, newUpload);
      const upload = pendingUpload(principal, newUpload);
      return await db.writeStatement(() => {
        rights.checkIfStale(principal, PERMISSIONS.createUpload);
        insert(upload);
        return { upload, stagingKey: upload.objectKey };
      });
    } catch (error) {
      if (isCounted) unconfirmed.forget(principal);
      // It was deleted after the caller's credential was looked at.
      if (isRefusal(error, "a deleted workspace takes no uploads")) throw noWorkspace();
      throw error;
    }
  }

  function createOnce(
    principal: Principal,
    newUpload: NewUpload,
    { request, insert }: { request: RepeatableRequest; insert: (upload: Upload) => void },
  ): Promise<CreatedUpload> {
    return db.write(() => {
      rights.checkIfStale(principal, PERMISSIONS.createUpload);
      const done = idempotency.find(request);
      if (done !== undefined) {
        const { uploadId, stagingKey } = done;
        const upload = views.findOrNull(principal, uploadId);
        // Another one would be a second upload, for a request that may only be a late echo of the first.
        if (upload === null || stagingKey === null) throw goneSince();
        return { upload, stagingKey };
      }
      // Inside, because what the first request was given must not be refused to its repetition.
      db.checkFreeSpace();
      checkRoom(principal, newUpload);
      const upload = pendingUpload(principal, newUpload);
      const { uploadId, objectKey: stagingKey } = upload;
      insert(upload);
      idempotency.remember(request, uploadId, stagingKey);
      return { upload, stagingKey };
    });
  }

  /** What is nobody's yet is charged to nobody: the quota is asked when it is bound to a workspace. */
  function checkRoom({ workspaceId }: Principal, { statedSizeBytes }: NewUpload): void {
    if (statedSizeBytes !== null && workspaceId !== null) workspaces.checkRoom(workspaceId, statedSizeBytes);
  }

  function pendingUpload({ userId, workspaceId }: Principal, { type, category, ...stated }: NewUpload): Upload {
    const nowMs = now();
    const uploadId = newId();
    return {
      uploadId,
      userId,
      workspaceId,
      ...type,
      category,
      status: "pending",
      ...stated,
      sizeBytes: null,
      etag: null,
      charCount: null,
      lineCount: null,
      contextType: null,
      contextId: null,
      objectKey: newObjectKey("staging", installationId, uploadId),
      urlExpiresAtMs: nowMs + options.uploadUrlTtlMs,
      expiresAtMs: nowMs + Math.max(options.pendingTtlMs, options.uploadUrlTtlMs),
      createdAtMs: nowMs,
      updatedAtMs: nowMs,
    };
  }

  /** Deletes an upload in either state and gives its bytes back. Throws `not_found`, alike for all who may not delete it. */
  async function remove(
    principal: Principal,
    uploadId: string,
    request: RepeatableRequest | null = null,
  ): Promise<void> {
    if (request === null) {
      const uncount = await db.writeStatement(() => {
        rights.checkIfStale(principal, PERMISSIONS.deleteUpload);
        return deleteOne(principal, uploadId);
      });
      return uncount();
    }
    const uncount = await db.write(() => {
      rights.checkIfStale(principal, PERMISSIONS.deleteUpload);
      if (idempotency.find(request) !== undefined) return null;
      const uncountOne = deleteOne(principal, uploadId);
      idempotency.remember(request, uploadId);
      return uncountOne;
    });
    uncount?.();
  }

  function deleteOne(principal: Principal, uploadId: string): () => void {
    const deleted =
      principal.authKind === "api_key"
        ? deleteOfWorkspace.get({ uploadId, workspaceId: principal.workspaceId })
        : deleteBySession.get({ uploadId, ...sessionParams(principal) });
    if (deleted === undefined) throw noUpload();
    return unconfirmed.remove(deleted);
  }

  /** Deletes pending uploads whose time is over, up to a batch of them, and resolves with their number. */
  async function expire(nowMs: number): Promise<number> {
    const uncounts = await background.writeStatement(() =>
      deleteExpired.all({ nowMs, limit: EXPIRY_BATCH }).map(unconfirmed.remove),
    );
    for (const uncount of uncounts) uncount();
    return uncounts.length;
  }

  /**
   * Reserves a final key for a confirm: enters it in the outbox with a lease, so that the object has an end whatever
   * happens, and keeps the row from expiring meanwhile. Throws `not_found` where the row is no longer pending.
   */
  function reserveFinalKey(
    uploadId: string,
    { sizeBytes, leaseMs }: { sizeBytes: number; leaseMs: number },
  ): Promise<string> {
    const finalKey = newObjectKey("final", installationId, uploadId);
    return db.write(() => {
      const nowMs = now();
      if (postponeExpiry.get({ uploadId, expiresAtMs: nowMs + 2 * leaseMs }) === undefined) throw noUpload();
      removals.lease(finalKey, { uploadId, sizeBytes, nowMs, leaseMs });
      return finalKey;
    });
  }

  /**
   * Charges an upload and makes it confirmed, in one transaction. Not refused while the disk is short of space: it needs a
   * few hundred bytes, and without it the staged file would only lie there until it expires. `checkRights` runs inside the
   * transaction, and what it throws refuses the confirm. Throws `storage_unavailable` where its lease is gone,
   * `not_found` where the row is, `storage_limit_exceeded` where the quota has no room.
   */
  async function settleConfirm(
    { object, counts, ...confirmation }: Confirmation,
    { request, checkRights }: { request: RepeatableRequest | null; checkRights: () => void },
  ): Promise<Upload> {
    try {
      const { upload, uncount } = await db.write(() => {
        checkRights();
        if (!removals.takeBackLease(confirmation.finalKey)) {
          throw new AppError("storage_unavailable", "The confirm took too long and was given up: ask again", {
            retryAfterSeconds: 1,
          });
        }
        const uncount = unconfirmed.removeById(confirmation.uploadId);
        const upload = confirmPending.get({
          ...confirmation,
          sizeBytes: object.sizeBytes,
          etag: object.etag,
          charCount: counts?.charCount ?? null,
          lineCount: counts?.lineCount ?? null,
          nowMs: now(),
        });
        if (upload === undefined) throw noUpload();
        if (request !== null) idempotency.remember(request, upload.uploadId);
        return { upload, uncount };
      });
      uncount();
      return upload;
    } catch (error) {
      if (!isRefusal(error, "storage_limit_exceeded")) throw error;
      const workspace = workspaces.find(confirmation.workspaceId);
      // A deleted workspace takes nothing, whatever its quota.
      throw workspace === undefined ? noWorkspace() : storageLimitExceeded(object.sizeBytes, workspace);
    }
  }

  return {
    ...{ ...views, ...createUploadLists(db), ...emptying },
    ...{ create, remove, expire, reserveFinalKey, settleConfirm },
  };
}

interface TextCountsOrNull {
  charCount: number | null;
  lineCount: number | null;
}

function goneSince(): AppError {
  return new AppError(
    "not_found",
    "The upload that this Idempotency-Key created is gone: send a new key to create another",
  );
}

/** Whether a trigger of the schema has refused a statement with this message. */
function isRefusal(error: unknown, message: string): boolean {
  return isSqliteError(error, "SQLITE_CONSTRAINT_TRIGGER") && error.message === message;
}
