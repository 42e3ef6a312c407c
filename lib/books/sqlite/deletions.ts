import { type Deletion, type Deletions, notDeleted, type WaitingObject, type WaitReason } from "../deletions.ts";
import { keyBounds } from "../object_keys.ts";
import type { Principal } from "../principals.ts";
import { noUpload } from "../uploads.ts";
import type { Db } from "./db/db.ts";
import { OVERDUE_SINCE_SQL } from "./outbox.ts";
import { CUT_OFF } from "./removals.ts";
import type { RemovedObjectsRecord } from "./removed_objects.ts";
import { CHANGES_UPLOAD_SQL, type SessionParams, sessionParams } from "./rights_sql.ts";
import type { UploadViews } from "./upload_views.ts";

/** Objects of one upload that are shown. Only a confirm that failed again and again leaves more than two. */
const WAITING_MAX = 20;

interface Entry {
  ownerId: string | null;
  userId: string | null;
  enteredAtMs: number;
  sinceMs: number;
  dueAtMs: number;
  againAtMs: number | null;
  takenAtMs: number | null;
  attempts: number;
  lastError: string | null;
}

/** The former owner of a deleted upload. */
interface Owner {
  workspaceId: string | null;
  /** The user who made it, if that is known. */
  userId: string | null;
}

/**
 * Three tables describe a deletion: the ledger has the time at which a charged upload was deleted, the outbox the objects still
 * to be removed, and the record of removed objects those that are gone.
 */
export function createDeletions(
  db: Db,
  parts: { views: Pick<UploadViews, "findToChange">; removed: RemovedObjectsRecord; installationId: string },
): Deletions {
  const { views, removed, installationId } = parts;
  const selectRelease = db.prepare<[string], { workspaceId: string; bytes: number; atMs: number }>(`
    SELECT workspace_id AS workspaceId, bytes, at_ms AS atMs
      FROM storage_events WHERE upload_id = ? AND kind = 'release'`);
  const selectEntries = db.prepare<{ from: string; to: string; limit: number }, Entry>(`
    SELECT owner_id AS ownerId, user_id AS userId, entered_at_ms AS enteredAtMs,
           ${OVERDUE_SINCE_SQL} AS sinceMs, due_at_ms AS dueAtMs, again_at_ms AS againAtMs,
           taken_at_ms AS takenAtMs, attempts, last_error AS lastError
      FROM object_removals WHERE object_key > :from AND object_key < :to ORDER BY object_key LIMIT :limit`);
  // The rule for deleting, applied to an upload whose row is gone. A deleted workspace has no members; its owner, who alone
  // could delete it, may still ask.
  const selectMayAsk = db.prepare<
    SessionParams & { workspaceId: string | null; uploaderId: string | null },
    { may: number }
  >(`
    SELECT 1 AS may
      FROM (SELECT :workspaceId AS workspace_id, :uploaderId AS user_id) AS uploads
     WHERE ${CHANGES_UPLOAD_SQL}
        OR :selectedId IS NULL AND EXISTS (SELECT 1 FROM workspaces w
                                            WHERE w.id = uploads.workspace_id AND w.deleted_at_ms IS NOT NULL
                                              AND w.created_by = :userId)`);

  function entriesOf(place: WaitingObject["place"], uploadId: string): Entry[] {
    return selectEntries.all({ ...keyBounds(place, installationId, uploadId), limit: WAITING_MAX });
  }

  function mayAsk(principal: Principal, owner: Owner): boolean {
    if (principal.authKind === "api_key") return owner.workspaceId === principal.workspaceId;
    const { workspaceId, userId: uploaderId } = owner;
    return selectMayAsk.get({ workspaceId, uploaderId, ...sessionParams(principal) }) !== undefined;
  }

  function find(principal: Principal, uploadId: string, nowMs: number): Deletion {
    if (views.findToChange(principal, uploadId) !== undefined) throw notDeleted();
    const release = selectRelease.get(uploadId);
    const record = removed.find(uploadId);
    const finals = entriesOf("final", uploadId);
    const staged = entriesOf("staging", uploadId);
    const entries = [...finals, ...staged];
    // The entry that was made by the deletion.
    const entered = entries.find(({ userId }) => userId !== null);
    const userId = record?.userId ?? entered?.userId ?? null;
    const ownerId = record?.ownerId ?? entered?.ownerId ?? null;
    const deletedAtMs = release?.atMs ?? record?.deletedAtMs ?? entered?.enteredAtMs ?? null;
    // An owner that is not the user is a workspace.
    const workspaceId = release?.workspaceId ?? (ownerId === userId ? null : ownerId);
    // Checked in every case: the time that this takes must not tell whether the id exists (NO-LEAK).
    if (!mayAsk(principal, { workspaceId, userId }) || deletedAtMs === null) throw noUpload();
    return {
      uploadId,
      deletedAtMs,
      bytesReleased: -(release?.bytes ?? 0),
      removedAtMs: entries.length > 0 ? null : (record?.removedAtMs ?? null),
      attempts: entries.reduce((sum, { attempts }) => sum + attempts, record?.attempts ?? 0),
      waiting: [
        ...finals.map((entry) => waitingObject("final", entry, nowMs)),
        ...staged.map((entry) => waitingObject("staging", entry, nowMs)),
      ],
    };
  }

  return { find: async (principal, uploadId, nowMs) => find(principal, uploadId, nowMs) };
}

function waitingObject(place: WaitingObject["place"], entry: Entry, nowMs: number): WaitingObject {
  return { place, reason: reasonOf(entry, nowMs), nextAttemptAtMs: Math.max(nowMs, entry.dueAtMs) };
}

function reasonOf({ attempts, lastError, takenAtMs, sinceMs, dueAtMs, againAtMs }: Entry, nowMs: number): WaitReason {
  if (takenAtMs !== null) return "taken";
  if (attempts > 0) return "failed";
  if (lastError !== null) return lastError === CUT_OFF ? "cut_off" : "store_unavailable";
  if (Math.min(sinceMs, dueAtMs) <= nowMs) return "queued";
  return againAtMs === null ? "again" : "leased";
}
