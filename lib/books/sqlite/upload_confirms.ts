import { newObjectKey } from "../../ids.ts";
import { PERMISSIONS } from "../permissions.ts";
import type { Principal } from "../principals.ts";
import { type ConfirmRequest, confirmTookTooLong, noUpload, type Upload, type Uploads } from "../uploads.ts";
import type { Db } from "./db/db.ts";
import type { IdempotencyMemory } from "./idempotency.ts";
import { isRefusal } from "./refusals.ts";
import type { RemovalEntries } from "./removals.ts";
import type { Rights } from "./rights.ts";
import type { Unconfirmed } from "./unconfirmed.ts";
import type { UploadRows } from "./upload_rows.ts";
import type { UploadViews } from "./upload_views.ts";
import type { Contexts } from "./workflows.ts";
import { noWorkspace, storageLimitExceeded, type Workspaces } from "./workspaces.ts";

export interface ConfirmParts {
  rows: UploadRows;
  views: UploadViews;
  entries: RemovalEntries;
  memory: IdempotencyMemory;
  unconfirmed: Unconfirmed;
  rights: Rights;
  contexts: Pick<Contexts, "workspaceToBind">;
  workspaces: Pick<Workspaces, "find" | "checkRoom">;
  installationId: string;
  now: () => number;
}

/** The verbs of a confirm. */
export function createUploadConfirms(
  db: Db,
  parts: ConfirmParts,
): Pick<Uploads, "findToConfirm" | "reserveFinalKey" | "settleConfirm"> {
  const { rows, views, entries, memory, unconfirmed, rights, contexts, workspaces, installationId, now } = parts;

  function findToChange(principal: Principal, { uploadId }: ConfirmRequest): Upload {
    rights.check(principal, PERMISSIONS.confirmUpload);
    const upload = views.findToChange(principal, uploadId);
    if (upload === undefined) throw noUpload();
    return upload;
  }

  function workspaceToCharge(
    principal: Principal,
    { contextType, contextId }: ConfirmRequest,
    { workspaceId }: Upload,
  ): string {
    return contexts.workspaceToBind(principal, { contextType, contextId, uploadWorkspaceId: workspaceId });
  }

  return {
    async findToConfirm(principal, request) {
      const { repeatable } = request;
      if (repeatable !== null) memory.find(repeatable);
      const upload = findToChange(principal, request);
      if (upload.status === "pending") {
        return { isConfirmed: false, upload, workspaceId: workspaceToCharge(principal, request, upload) };
      }
      if (repeatable !== null) await db.writeStatement(() => memory.remember(repeatable, upload.uploadId));
      return { isConfirmed: true, upload };
    },

    async reserveFinalKey(uploadId, { workspaceId, sizeBytes, leaseMs }) {
      // Before the write: a caller that is over the quota costs no transaction. The schema checks the charge itself.
      workspaces.checkRoom(workspaceId, sizeBytes);
      const finalKey = newObjectKey("final", installationId, uploadId);
      return await db.write(() => {
        const nowMs = now();
        if (!rows.postponeExpiry(uploadId, nowMs + 2 * leaseMs)) throw noUpload();
        entries.lease(finalKey, { uploadId, sizeBytes, nowMs, leaseMs });
        return finalKey;
      });
    },

    async settleConfirm(principal, request, copy) {
      const { uploadId, contextType, contextId, repeatable } = request;
      let chargedId: string | null = null;
      try {
        const { upload, uncount } = await db.write(() => {
          const workspaceId = workspaceToCharge(principal, request, findToChange(principal, request));
          chargedId = workspaceId;
          if (!entries.takeBackLease(copy.finalKey)) throw confirmTookTooLong();
          const uncount = unconfirmed.removeById(uploadId);
          const upload = rows.confirm({ ...copy, uploadId, workspaceId, contextType, contextId, nowMs: now() });
          if (upload === undefined) throw noUpload();
          if (repeatable !== null) memory.remember(repeatable, uploadId);
          return { upload, uncount };
        });
        uncount();
        return upload;
      } catch (error) {
        if (chargedId === null || !isRefusal(error, "storageLimitExceeded")) throw error;
        const workspace = workspaces.find(chargedId);
        // A deleted workspace takes nothing, whatever its quota.
        throw workspace === undefined ? noWorkspace() : storageLimitExceeded(copy.sizeBytes, workspace);
      }
    },
  };
}
