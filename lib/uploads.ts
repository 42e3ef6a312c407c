import type { ContextType } from "./contexts.ts";
import { type Db, isSqliteError } from "./db.ts";
import { AppError } from "./errors.ts";
import type { Category, FileType } from "./file_types.ts";
import { newId, newObjectKey } from "./ids.ts";
import type { ObjectStat } from "./objects.ts";
import type { Principal } from "./principals.ts";
import type { Removals } from "./removals.ts";
import type { TextCounts } from "./text_counts.ts";
import { storageLimitExceeded, type Workspaces } from "./workspaces.ts";

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

export interface UploadFilter {
  status?: "pending" | "uploaded" | undefined;
  category?: Category | undefined;
  contextId?: string | undefined;
  offset: number;
  limit: number;
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

/** The rows of uploads: made, confirmed, found, listed, deleted, expired. The schema's triggers keep the books. */
export function createUploads(
  db: Db,
  parts: { workspaces: Workspaces; removals: Removals; now: () => number; options: UploadsOptions },
) {
  const { workspaces, removals, now, options } = parts;
  const columns = `
    id AS uploadId, user_id AS userId, workspace_id AS workspaceId, filename, category, content_type AS contentType, format, status,
    stated_size_bytes AS statedSizeBytes, size_bytes AS sizeBytes, etag, char_count AS charCount, line_count AS lineCount,
    context_type AS contextType, context_id AS contextId, object_key AS objectKey, url_expires_at_ms AS urlExpiresAtMs,
    expires_at_ms AS expiresAtMs, created_at_ms AS createdAtMs, updated_at_ms AS updatedAtMs`;
  const insertPending = db.prepare<Upload>(`
    INSERT INTO uploads (id, user_id, workspace_id, filename, category, content_type, format, status, stated_size_bytes, object_key,
                         url_expires_at_ms, expires_at_ms, created_at_ms, updated_at_ms)
    VALUES (:uploadId, :userId, :workspaceId, :filename, :category, :contentType, :format, 'pending', :statedSizeBytes, :objectKey,
            :urlExpiresAtMs, :expiresAtMs, :createdAtMs, :updatedAtMs)`);
  const countPending = db.prepare<[string], { pending: number }>(`
    SELECT count(*) AS pending FROM uploads WHERE workspace_id = ? AND status = 'pending'`);
  const selectVisible = db.prepare<{ uploadId: string; workspaceId: string }, Upload>(`
    SELECT ${columns} FROM uploads WHERE id = :uploadId AND workspace_id = :workspaceId`);
  const selectPendingKey = db.prepare<{ uploadId: string; objectKey: string }, { found: number }>(`
    SELECT 1 AS found FROM uploads WHERE id = :uploadId AND object_key = :objectKey AND status = 'pending'`);
  // One statement deletes a row, gives its bytes back and enters its object for removal: the triggers do the rest.
  const deleteVisible = db.prepare<{ uploadId: string; workspaceId: string }, { uploadId: string }>(`
    DELETE FROM uploads WHERE id = :uploadId AND workspace_id = :workspaceId RETURNING id AS uploadId`);
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
    RETURNING ${columns}`);
  const filterSql = `
     WHERE workspace_id = :workspaceId
       AND (:status IS NULL OR status = :status)
       AND (:category IS NULL OR category = :category)
       AND (:contextId IS NULL OR context_id = :contextId)`;
  const selectPage = db.prepare<FilterParams & { offset: number; limit: number }, Upload>(`
    SELECT ${columns} FROM uploads ${filterSql} ORDER BY id DESC LIMIT :limit OFFSET :offset`);
  const countFiltered = db.prepare<FilterParams, { total: number }>(
    `SELECT count(*) AS total FROM uploads ${filterSql}`,
  );
  // Besides those that are bound to the workflow: those that its definition names by id, bound to another context.
  const workflowSql = `
      FROM uploads
     WHERE workspace_id = :workspaceId AND status = 'uploaded'
       AND id IN (SELECT id FROM uploads WHERE context_id = :workflowId
                  UNION
                  SELECT value FROM json_tree((SELECT definition_json FROM contexts WHERE id = :workflowId))
                   WHERE type = 'text' AND length(value) = 36)`;
  const selectOfWorkflow = db.prepare<
    { workspaceId: string; workflowId: string; offset: number; limit: number },
    Upload
  >(`
    SELECT ${columns} ${workflowSql} ORDER BY created_at_ms DESC, id DESC LIMIT :limit OFFSET :offset`);
  const countOfWorkflow = db.prepare<{ workspaceId: string; workflowId: string }, { total: number }>(
    `SELECT count(*) AS total ${workflowSql}`,
  );

  const installationId = workspaces.installationId();
  /** How many more pending uploads an owner may have, as far as this process knows: never more than there really are. */
  const pendingLeft = new Map<string, number>();

  /** Makes a pending upload. Throws `rate_limited` where the workspace has too many, `storage_limit_exceeded` where a stated size can never fit. */
  async function create(principal: Principal, { type, category, statedSizeBytes }: NewUpload): Promise<Upload> {
    const { userId, workspaceId } = principal;
    if (statedSizeBytes !== null) workspaces.checkRoom(workspaceId, statedSizeBytes);
    const nowMs = now();
    const uploadId = newId();
    const upload: Upload = {
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
    return db.writeStatement(() => {
      takePendingPlace(workspaceId);
      insertPending.run(upload);
      return upload;
    });
  }

  /**
   * Unconfirmed bytes are not charged, so their number is bounded. Counting them for each create would cost as much as
   * there are: so they are counted once, then only creates are, and only when those reach the limit is it counted again.
   */
  function takePendingPlace(workspaceId: string): void {
    let left = pendingLeft.get(workspaceId) ?? 0;
    if (left <= 0) left = options.pendingUploadsMax - (countPending.get(workspaceId)?.pending ?? 0);
    if (pendingLeft.size >= OWNERS_HELD_MAX) pendingLeft.clear();
    pendingLeft.set(workspaceId, left - 1);
    if (left <= 0) {
      throw new AppError(
        "rate_limited",
        `The workspace has ${options.pendingUploadsMax} uploads that were never confirmed, which is the most allowed: confirm or delete some`,
        { retryAfterSeconds: 60 },
      );
    }
  }

  /** The upload, as far as the caller can see it. Throws `not_found`, alike for unknown, foreign and deleted ids. */
  function find({ workspaceId }: Principal, uploadId: string): Upload {
    const upload = selectVisible.get({ uploadId, workspaceId });
    if (upload === undefined) throw noUpload();
    return upload;
  }

  /** Whether a pending upload names this staging key; the embedded store asks before it keeps a PUT. */
  function isPendingKey(objectKey: string): boolean {
    const uploadId = objectKey.split("/")[2] ?? "";
    return selectPendingKey.get({ uploadId, objectKey }) !== undefined;
  }

  function list({ workspaceId }: Principal, filter: UploadFilter): { uploads: Upload[]; total: number } {
    const params: FilterParams = {
      workspaceId,
      status: filter.status ?? null,
      category: filter.category ?? null,
      contextId: filter.contextId ?? null,
    };
    return {
      uploads: selectPage.all({ ...params, offset: filter.offset, limit: filter.limit }),
      total: countFiltered.get(params)?.total ?? 0,
    };
  }

  /** The confirmed uploads of a workflow, newest first. */
  function listOfWorkflow(
    { workspaceId }: Principal,
    workflowId: string,
    page: { offset: number; limit: number },
  ): { uploads: Upload[]; total: number } {
    return {
      uploads: selectOfWorkflow.all({ workspaceId, workflowId, ...page }),
      total: countOfWorkflow.get({ workspaceId, workflowId })?.total ?? 0,
    };
  }

  /** Deletes an upload in either state and gives its bytes back. Throws `not_found`. */
  function remove({ workspaceId }: Principal, uploadId: string): Promise<void> {
    return db.writeStatement(() => {
      if (deleteVisible.get({ uploadId, workspaceId }) === undefined) throw noUpload();
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
  async function settleConfirm({ object, counts, ...confirmation }: Confirmation): Promise<Upload> {
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
        return upload;
      });
    } catch (error) {
      if (isSqliteError(error, "SQLITE_CONSTRAINT_TRIGGER") && error.message === "storage_limit_exceeded") {
        throw storageLimitExceeded(object.sizeBytes, workspaces.find(confirmation.workspaceId));
      }
      throw error;
    }
  }

  return { create, find, isPendingKey, list, listOfWorkflow, remove, expire, reserveFinalKey, settleConfirm };
}

interface FilterParams {
  workspaceId: string;
  status: string | null;
  category: string | null;
  contextId: string | null;
}

interface TextCountsOrNull {
  charCount: number | null;
  lineCount: number | null;
}

function noUpload(): AppError {
  return new AppError("not_found", "There is no such upload");
}
