import { uploadIdOfKey } from "../object_keys.ts";
import type { Owner } from "../unconfirmed_bounds.ts";
import type { Db } from "./db/db.ts";
import type { StagedNotes } from "./staged_notes.ts";
import { GONE_COLUMNS, type GoneRow } from "./upload_rows.ts";

/** Owners whose figures are remembered. */
const OWNERS_HELD_MAX = 10_000;

/** The uploads and bytes that an owner has pending. */
export interface Pending {
  uploads: number;
  /** The larger of each upload's stated size and the size known to be staged, summed. */
  bytes: number;
  /** The bytes that are known to lie in the store. */
  stagedBytes: number;
}

/** Upload URLs that are still good although their upload is deleted or confirmed; always none if the store refuses them. */
export interface Held {
  /** Those that are good for any length. */
  heldUploads: number;
  /** The lengths that the others are good for. */
  heldBytes: number;
}

export interface Account extends Pending, Held {
  /** Differs from the database's if another process has written since. */
  dataVersion: number;
}

type PendingRow = GoneRow & Owner & { pendingOwnerId: string; objectKey: string };

export type PendingAccounts = ReturnType<typeof createPendingAccounts>;

/** Each owner's pending uploads and bytes, counted once and remembered: the cost of each count grows with the rows. */
export function createPendingAccounts(
  db: Db,
  { notes, urlsOutliveUploads }: { notes: StagedNotes; urlsOutliveUploads: boolean },
) {
  const counting = (whereSql: string) =>
    db.prepare<[string], Pending>(`
      SELECT count(*) AS uploads,
             coalesce(sum(max(coalesce(stated_size_bytes, 0), coalesce(staged_size_bytes, 0))), 0) AS bytes,
             coalesce(sum(staged_size_bytes), 0) AS stagedBytes
        FROM uploads WHERE ${whereSql} AND status = 'pending'`);
  const countOfWorkspace = counting("workspace_id = ?");
  const countOfPerson = counting("workspace_id IS NULL AND user_id = ?");
  const countHeld = db.prepare<[string], Held>(`
    SELECT count(*) FILTER (WHERE stated_size_bytes IS NULL) AS heldUploads, coalesce(sum(stated_size_bytes), 0) AS heldBytes
      FROM object_removals WHERE owner_id = ?`);
  const selectDataVersion = db.prepare<[], { dataVersion: number }>(
    "SELECT data_version AS dataVersion FROM pragma_data_version",
  );
  const selectPending = db.prepare<[string], PendingRow>(`
    SELECT ${GONE_COLUMNS}, workspace_id AS workspaceId, user_id AS userId, object_key AS objectKey
      FROM uploads WHERE id = ? AND status = 'pending'`);
  const accounts = new Map<string, Account>();

  function countAnew(ownerId: string): Account {
    const { heldUploads = 0, heldBytes = 0 } = urlsOutliveUploads ? (countHeld.get(ownerId) ?? {}) : {};
    const account = { uploads: 0, bytes: 0, stagedBytes: 0, heldUploads, heldBytes, dataVersion: dataVersion() };
    // One of the two finds nothing: no person has the id of a workspace.
    for (const counted of [countOfWorkspace.get(ownerId), countOfPerson.get(ownerId)]) {
      account.uploads += counted?.uploads ?? 0;
      account.bytes += counted?.bytes ?? 0;
      account.stagedBytes += counted?.stagedBytes ?? 0;
    }
    // The rows do not know yet what was PUT a moment ago.
    for (const uploadId of notes.idsOf(ownerId)) {
      const row = selectPending.get(uploadId);
      if (row === undefined) continue;
      const writtenBytes = row.stagedSizeBytes ?? 0;
      account.bytes += bytesOf(row) - Math.max(row.statedSizeBytes ?? 0, writtenBytes);
      account.stagedBytes += stagedOf(row) - writtenBytes;
    }
    if (accounts.size >= OWNERS_HELD_MAX) accounts.clear();
    accounts.set(ownerId, account);
    return account;
  }

  function dataVersion(): number {
    return selectDataVersion.get()?.dataVersion ?? 0;
  }

  /** The bytes staged for an upload, as far as they are known. */
  function stagedOf({ uploadId, stagedSizeBytes }: GoneRow): number {
    return notes.of(uploadId) ?? stagedSizeBytes ?? 0;
  }

  /** The bytes that an upload counts for. */
  function bytesOf(row: GoneRow): number {
    return Math.max(row.statedSizeBytes ?? 0, stagedOf(row));
  }

  return {
    /** An owner's account, counted if it is not remembered. */
    get: (ownerId: string): Account => accounts.get(ownerId) ?? countAnew(ownerId),
    /** An owner's account, if it is remembered. One that is not needs no change: it will be counted. */
    remembered: (ownerId: string): Account | undefined => accounts.get(ownerId),
    /** Counts an owner anew if another process may have changed what they have; false if none has. */
    refresh(ownerId: string): boolean {
      if (accounts.get(ownerId)?.dataVersion === dataVersion()) return false;
      countAnew(ownerId);
      return true;
    },
    forget: (ownerId: string): void => void accounts.delete(ownerId),
    forgetAll: (): void => accounts.clear(),
    /** A pending upload's row; undefined if there is none. */
    rowOf: (uploadId: string): PendingRow | undefined => selectPending.get(uploadId),
    /** The row of the pending upload that names this staging key; undefined if none does. */
    rowOfKey(objectKey: string): PendingRow | undefined {
      const uploadId = uploadIdOfKey(objectKey);
      const row = uploadId === null ? undefined : selectPending.get(uploadId);
      return row?.objectKey === objectKey ? row : undefined;
    },
    stagedOf,
    bytesOf,
  };
}
