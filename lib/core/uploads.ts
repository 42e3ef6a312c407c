import { type Db, isSqliteError } from "../db/db.ts";
import { AppError } from "../errors.ts";
import { newId, newObjectKey } from "../ids.ts";
import type { ObjectStat } from "../store/objects.ts";
import type { ContextType } from "./contexts.ts";
import type { Category, FileType } from "./file_types.ts";
import type { Idempotency, RepeatableRequest } from "./idempotency.ts";
import { CHANGES_UPLOAD_SQL, type SessionParams, sessionParams } from "./permissions.ts";
import type { Principal } from "./principals.ts";
import type { Removals } from "./removals.ts";
import type { TextCounts } from "./text_counts.ts";
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
  pendingUploadsMax: number;
}

/** Expired rows that go in one transaction. */
const EXPIRY_BATCH = 500;
/** Owners whose number of pending uploads is remembered. */
const OWNERS_HELD_MAX = 10_000;

export type Uploads = ReturnType<typeof createUploads>;

/** The rows of uploads: made, confirmed, deleted, expired, and what is seen of them. The schema's triggers keep the books. */
export function createUploads(
  db: Db,
  parts: {
    workspaces: Workspaces;
    removals: Removals;
    idempotency: Idempotency;
    now: () => number;
    options: UploadsOptions;
  },
) {
  const { workspaces, removals, idempotency, now, options } = parts;
  const insertPending = db.prepare<Upload>(`
    INSERT INTO uploads (id, user_id, workspace_id, filename, category, content_type, format, status, stated_size_bytes, object_key,
                         url_expires_at_ms, expires_at_ms, created_at_ms, updated_at_ms)
    VALUES (:uploadId, :userId, :workspaceId, :filename, :category, :contentType, :format, 'pending', :statedSizeBytes, :objectKey,
            :urlExpiresAtMs, :expiresAtMs, :createdAtMs, :updatedAtMs)`);
  const countPending = db.prepare<[string], { pending: number }>(`
    SELECT count(*) AS pending FROM uploads WHERE workspace_id = ? AND status = 'pending'`);
  const countPersonal = db.prepare<[string], { pending: number }>(`
    SELECT count(*) AS pending FROM uploads WHERE workspace_id IS NULL AND user_id = ? AND status = 'pending'`);
  // One statement deletes a row, gives its bytes back and enters its object for removal: the triggers do the rest.
  const deleteOfWorkspace = db.prepare<{ uploadId: string; workspaceId: string }, { uploadId: string }>(`
    DELETE FROM uploads WHERE id = :uploadId AND workspace_id = :workspaceId RETURNING id AS uploadId`);
  const deleteBySession = db.prepare<SessionParams & { uploadId: string }, { uploadId: string }>(`
    DELETE FROM uploads WHERE id = :uploadId AND ${CHANGES_UPLOAD_SQL} RETURNING id AS uploadId`);
  const selectWorkspaceToEmpty = db.prepare<[], { workspaceId: string }>(`
    SELECT id AS workspaceId FROM workspaces
     WHERE deleted_at_ms IS NOT NULL AND coalesce(emptied_at_ms < deleted_at_ms, 1)
     ORDER BY deleted_at_ms LIMIT 1`);
  const deleteSome = db.prepare<{ workspaceId: string; limit: number }, { uploadId: string }>(`
    DELETE FROM uploads
     WHERE id IN (SELECT id FROM uploads WHERE workspace_id = :workspaceId ORDER BY id LIMIT :limit)
    RETURNING id AS uploadId`);
  const noteEmptied = db.prepare<{ workspaceId: string; nowMs: number }>(`
    UPDATE workspaces SET emptied_at_ms = max(:nowMs, deleted_at_ms) WHERE id = :workspaceId`);
  const deleteExpired = db.prepare<{ nowMs: number; limit: number }, { uploadId: string }>(`
    DELETE FROM uploads
     WHERE id IN (SELECT id FROM uploads WHERE status = 'pending' AND expires_at_ms <= :nowMs ORDER BY expires_at_ms LIMIT :limit)
    RETURNING id AS uploadId`);
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
  const installationId = workspaces.installationId();
  /** How many more pending uploads a workspace or a person may have, as far as this process knows: never more than there really are. */
  const pendingLeft = new Map<string, number>();

  /**
   * Makes a pending upload; of a session that selects no workspace it is a personal one. Throws `rate_limited` where there
   * are too many, `storage_limit_exceeded` where a stated size can never fit; `not_found` where the request is repeated and
   * the upload that it made is gone.
   */
  async function create(
    principal: Principal,
    newUpload: NewUpload,
    request: RepeatableRequest | null = null,
  ): Promise<CreatedUpload> {
    try {
      if (request !== null) return await createOnce(principal, newUpload, request);
      checkRoom(principal, newUpload);
      const upload = pendingUpload(principal, newUpload);
      return await db.writeStatement(() => {
        takePendingPlace(principal);
        insertPending.run(upload);
        return { upload, stagingKey: upload.objectKey };
      });
    } catch (error) {
      // It was deleted after the caller's credential was looked at.
      if (isRefusal(error, "a deleted workspace takes no uploads")) throw noWorkspace();
      throw error;
    }
  }

  function createOnce(principal: Principal, newUpload: NewUpload, request: RepeatableRequest): Promise<CreatedUpload> {
    return db.write(() => {
      const done = idempotency.find(request);
      if (done !== undefined) {
        const { uploadId, stagingKey } = done;
        const upload = views.findOrNull(principal, uploadId);
        // Another one would be a second upload, for a request that may only be a late echo of the first.
        if (upload === null || stagingKey === null) throw goneSince();
        return { upload, stagingKey };
      }
      // Inside, because what the first request was given must not be refused to its repetition.
      checkRoom(principal, newUpload);
      const upload = pendingUpload(principal, newUpload);
      const { uploadId, objectKey: stagingKey } = upload;
      takePendingPlace(principal);
      insertPending.run(upload);
      idempotency.remember(request, uploadId, stagingKey);
      return { upload, stagingKey };
    });
  }

  /** What is nobody's yet is charged to nobody: the quota is asked when it is bound to a workspace. */
  function checkRoom({ workspaceId }: Principal, { statedSizeBytes }: NewUpload): void {
    if (statedSizeBytes !== null && workspaceId !== null) workspaces.checkRoom(workspaceId, statedSizeBytes);
  }

  function pendingUpload({ userId, workspaceId }: Principal, { type, category, statedSizeBytes }: NewUpload): Upload {
    const nowMs = now();
    const uploadId = newId();
    return {
      uploadId,
      userId,
      workspaceId,
      ...type,
      category,
      status: "pending",
      statedSizeBytes,
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

  /**
   * Unconfirmed bytes are not charged, so their number is bounded. Counting them for each create would cost as much as
   * there are: so they are counted once, then only creates are, and only when those reach the limit is it counted again.
   */
  function takePendingPlace({ workspaceId, userId }: Principal): void {
    const owner = workspaceId ?? `user ${userId}`;
    let left = pendingLeft.get(owner) ?? 0;
    if (left <= 0) {
      const counted = workspaceId === null ? countPersonal.get(userId) : countPending.get(workspaceId);
      left = options.pendingUploadsMax - (counted?.pending ?? 0);
    }
    if (pendingLeft.size >= OWNERS_HELD_MAX) pendingLeft.clear();
    pendingLeft.set(owner, left - 1);
    if (left <= 0) {
      const whose = workspaceId === null ? "You have" : "The workspace has";
      throw new AppError(
        "rate_limited",
        `${whose} ${options.pendingUploadsMax} uploads that were never confirmed, which is the most allowed: confirm or delete some`,
        { retryAfterSeconds: 60 },
      );
    }
  }

  /** Deletes an upload in either state and gives its bytes back. Throws `not_found`, alike for all who may not delete it. */
  function remove(principal: Principal, uploadId: string, request: RepeatableRequest | null = null): Promise<void> {
    if (request === null) return db.writeStatement(() => deleteOne(principal, uploadId));
    return db.write(() => {
      if (idempotency.find(request) !== undefined) return;
      deleteOne(principal, uploadId);
      idempotency.remember(request, uploadId);
    });
  }

  function deleteOne(principal: Principal, uploadId: string): void {
    const deleted =
      principal.authKind === "api_key"
        ? deleteOfWorkspace.get({ uploadId, workspaceId: principal.workspaceId })
        : deleteBySession.get({ uploadId, ...sessionParams(principal) });
    if (deleted === undefined) throw noUpload();
  }

  /**
   * Removes up to `limit` uploads of a deleted workspace, through the same triggers as any delete. Resolves with their
   * number; null where no deleted workspace is left that has any. Where to go on is in the database: a kill costs nothing.
   */
  function removeOfDeletedWorkspaces(limit: number): Promise<number | null> {
    const workspaceId = selectWorkspaceToEmpty.get()?.workspaceId;
    if (workspaceId === undefined) return Promise.resolve(null);
    return db.write(() => {
      const removed = deleteSome.all({ workspaceId, limit }).length;
      if (removed < limit) noteEmptied.run({ workspaceId, nowMs: now() });
      return removed;
    });
  }

  /** Deletes pending uploads whose time is over, up to a batch of them, and resolves with their number. */
  function expire(nowMs: number): Promise<number> {
    return db.writeStatement(() => deleteExpired.all({ nowMs, limit: EXPIRY_BATCH }).length);
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
   * Charges an upload and makes it confirmed, in one transaction. Throws `storage_unavailable` where its lease is gone,
   * `not_found` where the row is, `storage_limit_exceeded` where the quota has no room.
   */
  async function settleConfirm(
    { object, counts, ...confirmation }: Confirmation,
    request: RepeatableRequest | null = null,
  ): Promise<Upload> {
    try {
      return await db.write(() => {
        if (!removals.takeBackLease(confirmation.finalKey)) {
          throw new AppError("storage_unavailable", "The confirm took too long and was given up: ask again", {
            retryAfterSeconds: 1,
          });
        }
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
        return upload;
      });
    } catch (error) {
      if (!isRefusal(error, "storage_limit_exceeded")) throw error;
      const workspace = workspaces.find(confirmation.workspaceId);
      // A deleted workspace takes nothing, whatever its quota.
      throw workspace === undefined ? noWorkspace() : storageLimitExceeded(object.sizeBytes, workspace);
    }
  }

  return {
    ...views,
    ...createUploadLists(db),
    create,
    remove,
    removeOfDeletedWorkspaces,
    expire,
    reserveFinalKey,
    settleConfirm,
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
