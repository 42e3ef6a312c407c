import { newId } from "../../ids.ts";
import type { RepeatableRequest } from "../idempotency.ts";
import { newObjectKey } from "../object_keys.ts";
import { PERMISSIONS } from "../permissions.ts";
import type { Principal } from "../principals.ts";
import {
  type CreatedUpload,
  createdUploadIsGone,
  type NewUpload,
  noUpload,
  type Upload,
  type Uploads,
} from "../uploads.ts";
import { noWorkspace } from "../workspaces.ts";
import type { Db } from "./db/db.ts";
import { createEmptying } from "./emptying.ts";
import type { MembershipRows } from "./membership_rows.ts";
import { isRefusal } from "./refusals.ts";
import { type ConfirmParts, createUploadConfirms } from "./upload_confirms.ts";
import { createUploadLists } from "./upload_lists.ts";
import type { WorkspaceRows } from "./workspace_rows.ts";

/** Expired rows that go in one transaction. */
const EXPIRY_BATCH = 500;

export interface UploadsOptions {
  uploadUrlTtlMs: number;
  pendingTtlMs: number;
}

export interface UploadsParts extends ConfirmParts {
  /** For the verbs of the cleaner. */
  background: Db;
  memberships: MembershipRows;
  workspaces: WorkspaceRows;
  options: UploadsOptions;
}

export function createUploads(db: Db, parts: UploadsParts): Uploads {
  const { background, rows, views, unconfirmed, rights, memory } = parts;
  const insertPending = createPendingUploads(db, parts);

  /** Deletes one upload. Runs inside a write; what it returns is to be called once that is durable. */
  function removeOne(principal: Principal, uploadId: string): () => void {
    const gone = rows.remove(principal, uploadId);
    if (gone === undefined) throw noUpload();
    return unconfirmed.remove(gone);
  }

  return {
    create: insertPending,

    async remove(principal, uploadId, request = null) {
      if (request === null) {
        const uncount = await db.writeStatement(() => {
          rights.checkIfStale(principal, PERMISSIONS.deleteUpload);
          return removeOne(principal, uploadId);
        });
        return uncount();
      }
      const uncount = await db.write(() => {
        rights.checkIfStale(principal, PERMISSIONS.deleteUpload);
        if (memory.find(request) !== undefined) return null;
        const uncountOne = removeOne(principal, uploadId);
        memory.remember(request, uploadId);
        return uncountOne;
      });
      uncount?.();
    },

    async expire(nowMs) {
      const uncounts = await background.writeStatement(() =>
        rows.removeExpired(nowMs, EXPIRY_BATCH).map(unconfirmed.remove),
      );
      for (const uncount of uncounts) uncount();
      return uncounts.length;
    },

    async find(principal, uploadId) {
      const upload = views.find(principal, uploadId);
      if (upload === undefined) throw noUpload();
      return upload;
    },

    ...createUploadLists(db),
    ...createUploadConfirms(db, parts),
    ...createEmptying(background, parts),
  };
}

/** `Uploads.create`. */
function createPendingUploads(db: Db, parts: UploadsParts): Uploads["create"] {
  const { rows, views, unconfirmed, rights, memory, workspaces, installationId, now, options } = parts;

  /** Inside a write: counts one more upload and makes its row. `counted` says so even if the write then fails. */
  function insert(principal: Principal, newUpload: NewUpload, counted: { isCounted: boolean }): CreatedUpload {
    const upload = pendingUpload(principal, newUpload);
    unconfirmed.add(principal, upload.statedSizeBytes);
    counted.isCounted = true;
    rows.insert(upload);
    return { upload, stagingKey: upload.objectKey };
  }

  function checkRoom({ workspaceId }: Principal, { statedSizeBytes }: NewUpload): void {
    db.checkFreeSpace();
    // A personal upload is charged to nobody yet: the quota is checked when it is bound to a workspace.
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

  /** The upload that this request has made before; null if it has made none. */
  function findCreated(principal: Principal, request: RepeatableRequest): CreatedUpload | null {
    const done = memory.find(request);
    if (done === undefined) return null;
    const upload = views.find(principal, done.uploadId);
    if (upload === undefined || done.stagingKey === null) throw createdUploadIsGone();
    return { upload, stagingKey: done.stagingKey };
  }

  return async function create(principal, newUpload, request = null) {
    const counted = { isCounted: false };
    try {
      if (request === null) {
        checkRoom(principal, newUpload);
        return await db.writeStatement(() => {
          rights.checkIfStale(principal, PERMISSIONS.createUpload);
          return insert(principal, newUpload, counted);
        });
      }
      return await db.write(() => {
        rights.checkIfStale(principal, PERMISSIONS.createUpload);
        const before = findCreated(principal, request);
        if (before !== null) return before;
        // Checked inside: a repetition must not be refused what the first request was given.
        checkRoom(principal, newUpload);
        const created = insert(principal, newUpload, counted);
        memory.remember(request, created.upload.uploadId, created.stagingKey);
        return created;
      });
    } catch (error) {
      if (counted.isCounted) unconfirmed.forget(principal);
      // It was deleted after the request was let in.
      if (isRefusal(error, "workspace_deleted")) throw noWorkspace();
      throw error;
    }
  };
}
