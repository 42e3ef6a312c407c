import type { AppError } from "../../errors.ts";
import type { Log } from "../../log.ts";
import { noPendingUpload } from "../staging.ts";
import { areFew, type Owner, tooManyByQuota, tooManyBySetting, tooManyUploads } from "../unconfirmed_bounds.ts";
import { noWorkspace } from "../workspaces.ts";
import type { Db } from "./db/db.ts";
import {
  type Account,
  createPendingAccounts,
  type Held,
  type Pending,
  type PendingAccounts,
} from "./pending_accounts.ts";
import { createPutsInFlight, type PutsInFlight } from "./puts_in_flight.ts";
import type { RemovalEntries } from "./removals.ts";
import { createStagedNotes } from "./staged_notes.ts";
import type { GoneRow, UploadRows } from "./upload_rows.ts";
import type { WorkspaceRows } from "./workspace_rows.ts";

export interface UnconfirmedOptions {
  pendingUploadsMax: number;
  /** Null: the room that the quota leaves, and something more. */
  stagedBytesMax: number | null;
  /** A person without a workspace may stage as much as a workspace with this quota. */
  defaultQuotaBytes: number;
  /** Whether the store takes a PUT to a URL that is still good although its upload is deleted or confirmed. */
  urlsOutliveUploads: boolean;
}

export interface UnconfirmedParts {
  rows: Pick<UploadRows, "setStagedSize">;
  entries: Pick<RemovalEntries, "setSize">;
  workspaces: Pick<WorkspaceRows, "find">;
  log: Log;
  options: UnconfirmedOptions;
}

/** One PUT that is under way, as it is counted. */
export interface CountedPut {
  /** To be called before this many bytes in all are written. Throws as `beginPut`. */
  growTo: (bytes: number) => void;
  /** This many bytes are stored. */
  stored: (sizeBytes: number) => void;
  /** It has ended, whether it succeeded or not. */
  end: () => void;
}

export type Unconfirmed = ReturnType<typeof createUnconfirmed>;

/**
 * Counts and bounds unconfirmed uploads, which nobody is charged for. A URL that outlives its upload holds the
 * upload's place until its entry in the outbox is settled for good. Each owner is counted once and then followed, and
 * counted again only at the limit, if another process has written to the database: it may have deleted some.
 *
 * A function that runs inside a write returns another, to be called once that write is durable: until then the row counts.
 */
export function createUnconfirmed(db: Db, parts: UnconfirmedParts) {
  const { urlsOutliveUploads } = parts.options;
  const notes = createStagedNotes(db, parts);
  const accounts = createPendingAccounts(db, { notes, urlsOutliveUploads });
  const inFlight = createPutsInFlight((uploadId) => {
    const row = accounts.rowOf(uploadId);
    return row === undefined ? 0 : accounts.bytesOf(row);
  });
  const bounds = createBounds(parts, accounts, inFlight);

  /**
   * Counts one more pending upload. Runs inside the write that makes it; if the write fails after this has returned, `forget`
   * has to be called. Throws `rate_limited` if there are too many, and as `beginPut` for the stated bytes.
   */
  function add(owner: Owner, statedSizeBytes: number | null): void {
    bounds.checkUpload(owner, statedSizeBytes ?? 0);
    const account = accounts.get(idOf(owner));
    account.uploads++;
    account.bytes += statedSizeBytes ?? 0;
  }

  /** A row was deleted. Runs inside that write. */
  function remove(row: GoneRow): () => void {
    notes.writeToEntry(row.uploadId);
    return cease(row);
  }

  /** A row is about to be confirmed. Runs inside that write. */
  function removeById(uploadId: string): () => void {
    const row = accounts.rowOf(uploadId);
    return row === undefined ? doNothing : cease(row);
  }

  function cease(row: GoneRow): () => void {
    const { uploadId, pendingOwnerId: ownerId, statedSizeBytes } = row;
    if (ownerId === null) return doNothing;
    const [bytes, stagedBytes] = [accounts.bytesOf(row), accounts.stagedOf(row)];
    const account = accounts.remembered(ownerId);
    return () => {
      notes.drop(uploadId);
      inFlight.refresh(uploadId);
      // If the owner was counted again meanwhile, the row was not counted any more.
      if (account === undefined || accounts.remembered(ownerId) !== account) return;
      account.uploads--;
      account.bytes -= bytes;
      account.stagedBytes -= stagedBytes;
      if (urlsOutliveUploads) hold(account, statedSizeBytes, 1);
    };
  }

  /** A URL has expired, and the object that may have come by it is removed. Runs inside the write that settles its entry. */
  function releaseUrl(ownerId: string, statedSizeBytes: number | null): () => void {
    const account = urlsOutliveUploads ? accounts.remembered(ownerId) : undefined;
    if (account === undefined) return doNothing;
    return () => {
      if (accounts.remembered(ownerId) === account) hold(account, statedSizeBytes, -1);
    };
  }

  /** An object is known to be staged under a key. It counts if a pending upload names the key; false if none does. */
  function noteStaged(objectKey: string, sizeBytes: number): boolean {
    const row = accounts.rowOfKey(objectKey);
    if (row === undefined) return false;
    const stagedBytes = accounts.stagedOf(row);
    if (stagedBytes === sizeBytes) return true;
    const { uploadId, pendingOwnerId: ownerId } = row;
    const account = accounts.remembered(ownerId);
    if (account !== undefined) {
      account.bytes += Math.max(row.statedSizeBytes ?? 0, sizeBytes) - accounts.bytesOf(row);
      account.stagedBytes += sizeBytes - stagedBytes;
    }
    notes.add(uploadId, { ownerId, objectKey, sizeBytes });
    inFlight.refresh(uploadId);
    return true;
  }

  /** See `Staging.beginPut`. */
  function beginPut(objectKey: string, announcedBytes: number | null): CountedPut {
    const row = accounts.rowOfKey(objectKey);
    if (row === undefined) throw noPendingUpload();
    const { uploadId } = row;
    const checkSize = (bytes: number): void => {
      const moreBytes = inFlight.moreBytes(uploadId, bytes);
      if (moreBytes > 0) bounds.checkBytes(row, moreBytes);
    };
    checkSize(announcedBytes ?? 0);
    const put = inFlight.begin(uploadId, idOf(row), announcedBytes ?? 0);
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
    ...{ add, remove, removeById, releaseUrl, beginPut, noteStaged },
    /** The owner is to be counted anew. */
    forget: (owner: Owner): void => accounts.forget(idOf(owner)),
    /** A transaction was undone, and what was counted inside it never came to be: everybody is to be counted anew. */
    forgetAll: accounts.forgetAll,
    flushNotes: notes.flush,
    /** The remembered figures of an owner. */
    figuresOf: (ownerId: string): Readonly<Pending & Held> => accounts.get(ownerId),
  };
}

/** Refuses uploads and bytes beyond an owner's bounds. */
function createBounds(
  { workspaces, options }: UnconfirmedParts,
  accounts: PendingAccounts,
  inFlight: Pick<PutsInFlight, "of">,
) {
  /** Why the owner may not have one more upload; null if they may. */
  function uploadsProblem(owner: Owner): AppError | null {
    return tooManyUploads(owner, accounts.get(idOf(owner)), options.pendingUploadsMax);
  }

  /** Why the owner may not stage this many more bytes; null if they may. */
  function bytesProblem(owner: Owner, moreBytes: number): AppError | null {
    const { bytes, heldBytes } = accounts.get(idOf(owner));
    const figures = { bytes: bytes + inFlight.of(idOf(owner)), heldBytes, moreBytes };
    if (options.stagedBytesMax !== null) return tooManyBySetting(owner, figures, options.stagedBytesMax);
    // First, because it needs no read of the workspace.
    if (areFew(figures)) return null;
    if (owner.workspaceId === null) {
      return tooManyByQuota(owner, figures, { storageBytesQuota: options.defaultQuotaBytes, storageBytesUsed: 0 });
    }
    const workspace = workspaces.find(owner.workspaceId);
    return workspace === undefined ? noWorkspace() : tooManyByQuota(owner, figures, workspace);
  }

  /** Throws the problem, unless it is gone once the changes of other processes are counted. */
  function refuseIf(owner: Owner, problem: () => AppError | null): void {
    let refusal = problem();
    if (refusal !== null && accounts.refresh(idOf(owner))) refusal = problem();
    if (refusal !== null) throw refusal;
  }

  return {
    checkUpload: (owner: Owner, bytes: number): void =>
      refuseIf(owner, () => uploadsProblem(owner) ?? bytesProblem(owner, bytes)),
    checkBytes: (owner: Owner, moreBytes: number): void => refuseIf(owner, () => bytesProblem(owner, moreBytes)),
  };
}

function hold(account: Account, statedSizeBytes: number | null, by: 1 | -1): void {
  if (statedSizeBytes === null) account.heldUploads += by;
  else account.heldBytes += by * statedSizeBytes;
}

function doNothing(): void {}

function idOf({ workspaceId, userId }: Owner): string {
  return workspaceId ?? userId;
}
