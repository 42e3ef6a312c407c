import type { Db } from "../db/db.ts";
import { AppError } from "../errors.ts";
import { uploadIdOfKey } from "../ids.ts";
import type { Log } from "../log.ts";
import { createPutsInFlight } from "./puts_in_flight.ts";
import { createStagedNotes } from "./staged_notes.ts";
import { areFew, type Owner, tooManyByQuota, tooManyBySetting, tooManyUploads } from "./unconfirmed_bounds.ts";
import { noWorkspace, type Workspaces } from "./workspaces.ts";

/** Owners whose figures are remembered. */
const OWNERS_HELD_MAX = 10_000;

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

export interface UnconfirmedOptions {
  pendingUploadsMax: number;
  /** Null: what the quota leaves, and something more. */
  stagedBytesMax: number | null;
  /** A person without a workspace may stage as much as a workspace with this quota. */
  defaultQuotaBytes: number;
  /** Whether the store takes a PUT to a URL that is still good although its upload is deleted or confirmed. */
  urlsOutliveUploads: boolean;
}

/** What an owner has pending. */
interface Pending {
  uploads: number;
  /** Of each upload what was stated or what is known to be staged, whichever is more. */
  bytes: number;
  /** What is known to lie in the store. */
  stagedBytes: number;
}

/** Upload URLs that are still good although their upload is deleted or confirmed; always none if the store refuses them. */
interface Held {
  /** Those that are good for any length. */
  heldUploads: number;
  /** The lengths that the others are good for. */
  heldBytes: number;
}

interface Account extends Pending, Held {
  /** Differs from the database's if another process has written since. */
  dataVersion: number;
}

/** One PUT that is under way. */
export interface CountedPut {
  /** To be called before so many bytes in all are written. Throws as `beginPut`. */
  growTo: (bytes: number) => void;
  /** So many bytes are stored. */
  stored: (sizeBytes: number) => void;
  /** It has ended, well or not. */
  end: () => void;
}

export type Unconfirmed = ReturnType<typeof createUnconfirmed>;

/**
 * Bounds what is not confirmed yet: nobody is charged for it, so the uploads and their bytes are limited for each owner.
 * A URL that has outlived its upload holds the upload's place until its entry in the outbox is settled for good.
 * Counting them each time would cost as much as there are. So they are counted once and then followed. They are counted
 * again only at the limit, and only if another process has written to the database: it may have deleted some.
 */
export function createUnconfirmed(db: Db, parts: { workspaces: Workspaces; log: Log; options: UnconfirmedOptions }) {
  const { workspaces, log, options } = parts;
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
  const selectPending = db.prepare<[string], GoneRow & Owner & { pendingOwnerId: string; objectKey: string }>(`
    SELECT ${GONE_COLUMNS}, workspace_id AS workspaceId, user_id AS userId, object_key AS objectKey
      FROM uploads WHERE id = ? AND status = 'pending'`);

  const accounts = new Map<string, Account>();
  const notes = createStagedNotes(db, log);
  const inFlight = createPutsInFlight((uploadId) => {
    const row = selectPending.get(uploadId);
    return row === undefined ? 0 : bytesOf(row);
  });

  function stagedOf({ uploadId, stagedSizeBytes }: GoneRow): number {
    return notes.of(uploadId) ?? stagedSizeBytes ?? 0;
  }

  function bytesOf(row: GoneRow): number {
    return Math.max(row.statedSizeBytes ?? 0, stagedOf(row));
  }

  function accountOf(ownerId: string): Account {
    return accounts.get(ownerId) ?? countAgain(ownerId);
  }

  function countAgain(ownerId: string): Account {
    const { heldUploads = 0, heldBytes = 0 } = options.urlsOutliveUploads ? (countHeld.get(ownerId) ?? {}) : {};
    const account = { uploads: 0, bytes: 0, stagedBytes: 0, heldUploads, heldBytes, dataVersion: dataVersion() };
    // One of the two finds nothing: no person has the id of a workspace.
    for (const counted of [countOfWorkspace.get(ownerId), countOfPerson.get(ownerId)]) {
      account.uploads += counted?.uploads ?? 0;
      account.bytes += counted?.bytes ?? 0;
      account.stagedBytes += counted?.stagedBytes ?? 0;
    }
    // What was PUT a moment ago is not written to the rows yet.
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

  /** Throws what `check` finds, unless it finds nothing once what another process has done is counted. */
  function refuseIf(ownerId: string, check: () => AppError | null): void {
    let refusal = check();
    if (refusal !== null && accountOf(ownerId).dataVersion !== dataVersion()) {
      countAgain(ownerId);
      refusal = check();
    }
    if (refusal !== null) throw refusal;
  }

  /** Why the owner may not have one more upload; null if they may. */
  function uploadsProblem(owner: Owner): AppError | null {
    return tooManyUploads(owner, accountOf(idOf(owner)), options.pendingUploadsMax);
  }

  /** Why the owner may not stage so many bytes more; null if they may. */
  function bytesProblem(owner: Owner, moreBytes: number): AppError | null {
    const { bytes, heldBytes } = accountOf(idOf(owner));
    const figures = { bytes: bytes + inFlight.of(idOf(owner)), heldBytes, moreBytes };
    if (options.stagedBytesMax !== null) return tooManyBySetting(owner, figures, options.stagedBytesMax);
    // Asked first, because it costs no look at the workspace.
    if (areFew(figures)) return null;
    if (owner.workspaceId === null) {
      return tooManyByQuota(owner, figures, { storageBytesQuota: options.defaultQuotaBytes, storageBytesUsed: 0 });
    }
    const workspace = workspaces.find(owner.workspaceId);
    return workspace === undefined ? noWorkspace() : tooManyByQuota(owner, figures, workspace);
  }

  /**
   * Counts one more pending upload. Runs inside the write that makes it; if that fails after this has returned, `forget` is
   * to be called. Throws `rate_limited` if there are too many, and as `beginPut` for bytes that are stated.
   */
  function add(owner: Owner, statedSizeBytes: number | null): void {
    const ownerId = idOf(owner);
    refuseIf(ownerId, () => uploadsProblem(owner) ?? bytesProblem(owner, statedSizeBytes ?? 0));
    const account = accountOf(ownerId);
    account.uploads++;
    account.bytes += statedSizeBytes ?? 0;
  }

  /** The owner's uploads are to be counted anew. */
  function forget(owner: Owner): void {
    accounts.delete(idOf(owner));
  }

  /** Everybody's are: a transaction is undone, and what was counted inside it never came to be. */
  function forgetAll(): void {
    accounts.clear();
  }

  /** A row is deleted. Runs inside the write that does it, after it. What this returns is called as that of `cease`. */
  function remove(row: GoneRow): () => void {
    notes.writeToEntry(row.uploadId);
    return cease(row);
  }

  /**
   * A row ceases to be pending: it is deleted, or confirmed. Runs inside the write that does it. What this returns is to be
   * called once that is durable; until then the row counts.
   */
  function cease(row: GoneRow): () => void {
    const { uploadId, pendingOwnerId: ownerId, statedSizeBytes } = row;
    if (ownerId === null) return nothing;
    const [bytes, stagedBytes] = [bytesOf(row), stagedOf(row)];
    const account = accounts.get(ownerId);
    return () => {
      notes.drop(uploadId);
      inFlight.refresh(uploadId);
      // If the owner was counted again meanwhile, the row was not counted any more.
      if (account === undefined || accounts.get(ownerId) !== account) return;
      account.uploads--;
      account.bytes -= bytes;
      account.stagedBytes -= stagedBytes;
      if (options.urlsOutliveUploads) hold(account, statedSizeBytes, 1);
    };
  }

  function hold(account: Account, statedSizeBytes: number | null, by: 1 | -1): void {
    if (statedSizeBytes === null) account.heldUploads += by;
    else account.heldBytes += by * statedSizeBytes;
  }

  /**
   * A URL has expired, and what may have come by it is removed. Runs inside the write that settles its entry. What this
   * returns is to be called once that is durable.
   */
  function releaseUrl(ownerId: string, statedSizeBytes: number | null): () => void {
    const account = options.urlsOutliveUploads ? accounts.get(ownerId) : undefined;
    if (account === undefined) return nothing;
    return () => {
      if (accounts.get(ownerId) === account) hold(account, statedSizeBytes, -1);
    };
  }

  /** `cease` for a row that is about to be confirmed. */
  function removeById(uploadId: string): () => void {
    const row = selectPending.get(uploadId);
    return row === undefined ? nothing : cease(row);
  }

  /** Something is known to be staged under a key. It counts if a pending upload names it; false if none does. */
  function noteStaged(objectKey: string, sizeBytes: number): boolean {
    const row = selectPending.get(uploadIdOfKey(objectKey));
    if (row?.objectKey !== objectKey) return false;
    if (stagedOf(row) === sizeBytes) return true;
    const { uploadId, pendingOwnerId: ownerId } = row;
    const account = accounts.get(ownerId);
    if (account !== undefined) {
      account.bytes += Math.max(row.statedSizeBytes ?? 0, sizeBytes) - bytesOf(row);
      account.stagedBytes += sizeBytes - stagedOf(row);
    }
    notes.add(uploadId, { ownerId, objectKey, sizeBytes });
    inFlight.refresh(uploadId);
    return true;
  }

  /**
   * A PUT to a pending upload begins; null is an unknown length. Throws `storage_limit_exceeded` if the quota has no room
   * for so many bytes more, `rate_limited` if the setting has none, `not_found` if no pending upload names the key.
   */
  function beginPut(objectKey: string, announcedBytes: number | null): CountedPut {
    const uploadId = uploadIdOfKey(objectKey);
    const owner = selectPending.get(uploadId);
    if (owner === undefined) throw new AppError("not_found", "There is no pending upload for this URL");

    const checkSize = (bytes: number): void => {
      const moreBytes = inFlight.moreBytes(uploadId, bytes);
      if (moreBytes > 0) refuseIf(idOf(owner), () => bytesProblem(owner, moreBytes));
    };
    checkSize(announcedBytes ?? 0);
    const put = inFlight.begin(uploadId, idOf(owner), announcedBytes ?? 0);
    return {
      growTo(bytes) {
        if (bytes <= put.bytes()) return;
        checkSize(bytes);
        put.growTo(bytes);
      },
      stored: (sizeBytes) => void noteStaged(objectKey, sizeBytes),
      end: put.end,
    };
  }

  return {
    ...{ add, forget, forgetAll, remove, removeById, releaseUrl, beginPut, noteStaged },
    flushNotes: notes.flush,
    /** What is remembered of an owner. */
    figuresOf: (ownerId: string): Readonly<Pending & Held> => accountOf(ownerId),
  };
}

function nothing(): void {}

function idOf({ workspaceId, userId }: Owner): string {
  return workspaceId ?? userId;
}
