import { newObjectKey, sealedKeyOf } from "../object_keys.ts";
import { PERMISSIONS } from "../permissions.ts";
import type { Principal } from "../principals.ts";
import {
  type ChargedObject,
  type ConfirmRequest,
  confirmTookTooLong,
  noUpload,
  type Upload,
  type Uploads,
} from "../uploads.ts";
import { noWorkspace, storageLimitExceeded } from "../workspaces.ts";
import type { Contexts } from "./contexts.ts";
import type { Db } from "./db/db.ts";
import type { IdempotencyMemory } from "./idempotency.ts";
import { isRefusal } from "./refusals.ts";
import type { RemovalEntries } from "./removals.ts";
import type { Rights } from "./rights.ts";
import type { Unconfirmed } from "./unconfirmed.ts";
import type { UploadRows } from "./upload_rows.ts";
import type { UploadViews } from "./upload_views.ts";
import type { WorkspaceRows } from "./workspace_rows.ts";

export interface ConfirmParts {
  rows: UploadRows;
  views: UploadViews;
  entries: RemovalEntries;
  memory: IdempotencyMemory;
  unconfirmed: Unconfirmed;
  rights: Rights;
  contexts: Pick<Contexts, "workspaceToBind">;
  workspaces: Pick<WorkspaceRows, "find" | "checkRoom">;
  installationId: string;
  now: () => number;
}

/** The verbs of a confirm. */
export function createUploadConfirms(
  db: Db,
  parts: ConfirmParts,
): Pick<
  Uploads,
  "checkMayConfirm" | "findToConfirm" | "checkRoom" | "reserveFinalKey" | "settleConfirm" | "settleSealed"
> {
  const { rows, views, entries, memory, unconfirmed, rights, contexts, workspaces, installationId, now } = parts;

  /** The upload, if the caller may confirm it, and if its Idempotency-Key came with no other request. */
  function findFor(principal: Principal, request: ConfirmRequest): Upload {
    if (request.repeatable !== null) memory.find(request.repeatable);
    return findToChange(principal, request);
  }

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

  /**
   * Charges an object. `claim` runs inside the transaction, before anything is charged: it returns the key that the object
   * has from now on, or throws. `db.write` is needed if it writes, or if the request is to be remembered.
   */
  async function settle(
    principal: Principal,
    request: ConfirmRequest,
    object: ChargedObject,
    { write, claim }: { write: Db["write"]; claim: (upload: Upload) => string },
  ): Promise<Upload> {
    const { uploadId, contextType, contextId, repeatable } = request;
    const { sizeBytes, etag, checksumSha256, counts } = object;
    let chargedId: string | null = null;
    try {
      const { upload, uncount } = await write(() => {
        const pending = findToChange(principal, request);
        const workspaceId = workspaceToCharge(principal, request, pending);
        chargedId = workspaceId;
        const finalKey = claim(pending);
        const uncount = unconfirmed.removeById(uploadId);
        const charged = { finalKey, sizeBytes, etag, checksumSha256, counts };
        const upload = rows.confirm({ ...charged, uploadId, workspaceId, contextType, contextId, nowMs: now() });
        if (upload === undefined) throw noUpload();
        if (repeatable !== null) memory.remember(repeatable, uploadId);
        return { upload, uncount };
      });
      uncount();
      return upload;
    } catch (error) {
      if (chargedId === null || !isRefusal(error, "over_quota")) throw error;
      const workspace = workspaces.find(chargedId);
      // A deleted workspace takes nothing, whatever its quota.
      throw workspace === undefined ? noWorkspace() : storageLimitExceeded(sizeBytes, workspace);
    }
  }

  return {
    async checkMayConfirm(principal, request) {
      findFor(principal, request);
    },

    async findToConfirm(principal, request) {
      const { repeatable } = request;
      const upload = findFor(principal, request);
      if (upload.status === "pending") {
        return { isConfirmed: false, upload, workspaceId: workspaceToCharge(principal, request, upload) };
      }
      if (repeatable !== null) await db.writeStatement(() => memory.remember(repeatable, upload.uploadId));
      return { isConfirmed: true, upload };
    },

    async checkRoom(workspaceId, sizeBytes) {
      workspaces.checkRoom(workspaceId, sizeBytes);
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

    settleConfirm: (principal, request, copy) =>
      settle(principal, request, copy, {
        write: db.write,
        claim() {
          if (!entries.takeBackLease(copy.finalKey)) throw confirmTookTooLong();
          return copy.finalKey;
        },
      }),

    settleSealed: (principal, request, object) =>
      settle(principal, request, object, {
        write: request.repeatable === null ? db.writeStatement : db.write,
        claim(pending) {
          // Confirmed meanwhile: its key is no staging key any more.
          if (pending.status !== "pending") throw noUpload();
          object.seal();
          return sealedKeyOf(pending.objectKey);
        },
      }),
  };
}
