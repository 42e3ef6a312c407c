import type { Db } from "../db/db.ts";
import { AppError } from "../errors.ts";
import { OVERDUE_SINCE_SQL } from "./outbox.ts";
import { CHANGES_UPLOAD_SQL, type SessionParams, sessionParams } from "./permissions.ts";
import type { Principal } from "./principals.ts";
import { CUT_OFF } from "./removals.ts";
import type { RemovedObjectsRecord } from "./removed_objects.ts";
import { noUpload } from "./upload_views.ts";
import type { Uploads } from "./uploads.ts";

/** Objects of one upload that are told of. Only a confirm that failed again and again leaves more than two. */
const WAITING_MAX = 20;

/** What stands between an object and its removal. */
export type WaitReason =
  /** It is its turn, or about to be. */
  | "queued"
  /** The store is being asked to remove it. */
  | "taken"
  /** The last attempt failed; later ones follow. */
  | "failed"
  /** The store as a whole could not be used when it was tried. */
  | "store_unavailable"
  /** The process ended while it was being removed. */
  | "cut_off"
  /** A confirm that copies to it may not have ended. */
  | "leased"
  /** It was removed once. Something may come under its key until its time, and is removed then. */
  | "again";

/** An object of a deleted upload that is still to be removed, or to be removed once more. */
export interface WaitingObject {
  /** Whether it is the confirmed file, or what was PUT to the upload URL. */
  place: "final" | "staging";
  reason: WaitReason;
  nextAttemptAtMs: number;
}

/** What is known of an upload's deletion. */
export interface Deletion {
  uploadId: string;
  deletedAtMs: number;
  /** 0 if it was never charged. */
  bytesReleased: number;
  /** When the last of its objects was removed; null if one waits, or no one has written it down. */
  removedAtMs: number | null;
  /** How often it was tried to remove its objects, as far as they are removed, and how often that failed of the others. */
  attempts: number;
  /** Empty: they are removed. */
  waiting: readonly WaitingObject[];
}

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

/** Whose a deleted upload was. */
interface Owner {
  workspaceId: string | null;
  /** Who had made it, if that is known. */
  userId: string | null;
}

export type Deletions = ReturnType<typeof createDeletions>;

/**
 * Shows that an upload is deleted for good. The ledger knows when a charged one was; the outbox what is still to be removed;
 * the record what is.
 */
export function createDeletions(
  db: Db,
  parts: { uploads: Pick<Uploads, "findToChange">; removed: RemovedObjectsRecord; installationId: string },
) {
  const { uploads, removed, installationId } = parts;
  const selectRelease = db.prepare<[string], { workspaceId: string; bytes: number; atMs: number }>(`
    SELECT workspace_id AS workspaceId, bytes, at_ms AS atMs
      FROM storage_events WHERE upload_id = ? AND kind = 'release'`);
  const selectEntries = db.prepare<{ from: string; to: string; limit: number }, Entry>(`
    SELECT owner_id AS ownerId, user_id AS userId, entered_at_ms AS enteredAtMs,
           ${OVERDUE_SINCE_SQL} AS sinceMs, due_at_ms AS dueAtMs, again_at_ms AS againAtMs,
           taken_at_ms AS takenAtMs, attempts, last_error AS lastError
      FROM object_removals WHERE object_key > :from AND object_key < :to ORDER BY object_key LIMIT :limit`);
  // What a session might have deleted, asked of an upload whose row is gone. Nobody is a member of a workspace that is
  // deleted; its owner, who alone could delete it, may still ask.
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
    const prefix = `${place}/${installationId}/${uploadId}`;
    // After the slash comes the zero.
    return selectEntries.all({ from: `${prefix}/`, to: `${prefix}0`, limit: WAITING_MAX });
  }

  function mayAsk(principal: Principal, owner: Owner): boolean {
    if (principal.authKind === "api_key") return owner.workspaceId === principal.workspaceId;
    const { workspaceId, userId: uploaderId } = owner;
    return selectMayAsk.get({ workspaceId, uploaderId, ...sessionParams(principal) }) !== undefined;
  }

  /**
   * The deletion of an upload, for whoever could have deleted it. Throws `not_found`: alike for everyone else and for ids that
   * there never were, in other words if the upload still exists.
   */
  function find(principal: Principal, uploadId: string, nowMs: number): Deletion {
    if (exists(principal, uploadId)) {
      throw new AppError("not_found", "This upload is not deleted: send a DELETE for it first");
    }
    const release = selectRelease.get(uploadId);
    const record = removed.find(uploadId);
    const finals = entriesOf("final", uploadId);
    const staged = entriesOf("staging", uploadId);
    const entries = [...finals, ...staged];
    // The one that its deletion entered.
    const entered = entries.find(({ userId }) => userId !== null);
    const userId = record?.userId ?? entered?.userId ?? null;
    const ownerId = record?.ownerId ?? entered?.ownerId ?? null;
    const deletedAtMs = release?.atMs ?? record?.deletedAtMs ?? entered?.enteredAtMs ?? null;
    // No person has the id of a workspace.
    const workspaceId = release?.workspaceId ?? (ownerId === userId ? null : ownerId);
    // Asked in every case: whether there is such an id must not show in the time either.
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

  function exists(principal: Principal, uploadId: string): boolean {
    try {
      uploads.findToChange(principal, uploadId);
      return true;
    } catch (error) {
      if (error instanceof AppError && error.code === "not_found") return false;
      throw error;
    }
  }

  return { find };
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
