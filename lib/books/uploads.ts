import { AppError } from "../errors.ts";
import type { ContextType } from "./contexts.ts";
import type { Category, FileType } from "./file_types.ts";
import type { RepeatableRequest } from "./idempotency.ts";
import type { Principal } from "./principals.ts";
import type { TextCounts } from "./text_counts.ts";

/**
 * The life of an upload: `create` makes a pending row and names a staging key, the client PUTs its bytes there (see
 * `staging.ts`), a confirm copies or seals them under a final key and charges them to a workspace, and `remove` gives them
 * back. An upload that is never confirmed expires. An object whose row is gone is removed from the store later (see `removals.ts`).
 */
export interface Uploads {
  /**
   * Makes a pending upload. If a session selects no workspace, it is a personal upload, which nobody is charged for until a
   * confirm binds it to a workspace. With `request`, a repetition resolves with the upload that the first request made.
   *
   * Throws
   * - `rate_limited`: the owner has too many pending uploads, or too many bytes in them, or has sent too many different
   *   Idempotency-Keys;
   * - `storage_limit_exceeded`: the stated size does not fit the workspace's quota, or too much is staged for the quota;
   * - `payload_too_large`: the stated size is more than may ever be unconfirmed at once on this server;
   * - `insufficient_storage`: the disk of the database is short of space;
   * - `not_found`: the workspace was deleted, or the caller left it, after the request was let in; or the request is a
   *   repetition and the upload that it made is gone;
   * - `invalid_api_key`, `forbidden`: the key or the role was lost after the request was let in;
   * - `validation_error`: the Idempotency-Key came with another request before.
   */
  create: (principal: Principal, newUpload: NewUpload, request?: RepeatableRequest | null) => Promise<CreatedUpload>;

  /**
   * The upload, if the caller may see it. Throws `not_found`, which is the same for ids that do not exist, are deleted, or
   * belong to somebody else (NO-LEAK).
   */
  find: (principal: Principal, uploadId: string) => Promise<Upload>;

  /**
   * The uploads of the selected workspace, newest first; if a session selects none, the caller's personal uploads. A long
   * list is read in short steps that let other requests through, so rows that come or go meanwhile may be in it or not.
   * However few uploads a filter matches, it reads no more than one index entry for each upload of the workspace or person.
   */
  list: (principal: Principal, filter: UploadFilter, start: PageStart) => Promise<UploadPage>;

  /**
   * The confirmed uploads of a workflow, newest first: those bound to it, and those of the same workspace whose ids its
   * definition names. Read in short steps, as `list`. Throws `bad_request` if a session selects no workspace.
   */
  listOfWorkflow: (
    principal: Principal,
    workflow: { workflowId: string; definitionJson: string },
    start: PageStart,
  ) => Promise<UploadPage>;

  /**
   * Resolves if the caller may confirm the upload, whatever its state and the context. To be called before a wait that
   * would tell strangers something. Throws `not_found`, `invalid_api_key` or `validation_error`, as `findToConfirm`.
   */
  checkMayConfirm: (principal: Principal, request: ConfirmRequest) => Promise<void>;

  /**
   * The first step of a confirm: the upload, and the workspace that is to be charged. An upload that is confirmed already is
   * found as it is, whatever the context; the request's Idempotency-Key is then remembered, because there is nothing left
   * to do. To be called again whenever time has passed, and after any failure: the row says what is true.
   *
   * Throws
   * - `not_found`: no upload with this id that the caller may change; or no context with this id that the caller may see;
   *   or the context belongs to another workspace than the upload or the selected one;
   * - `forbidden`: the session's role is too low in the workspace that would be charged;
   * - `invalid_api_key`: the key was revoked or has expired;
   * - `validation_error`: the Idempotency-Key came with another request before.
   */
  findToConfirm: (principal: Principal, request: ConfirmRequest) => Promise<FoundToConfirm>;

  /**
   * An early check, so that a confirm that cannot succeed need not wait: whether the quota of the workspace has room for
   * `sizeBytes` more. Reserves nothing: only the charge in `settleConfirm` or `settleSealed` decides. Throws
   * `storage_limit_exceeded`, and `not_found` if the workspace is deleted.
   */
  checkRoom: (workspaceId: string, sizeBytes: number) => Promise<void>;

  /**
   * The second step: a fresh final key to copy the object to. The key is entered in the outbox with a lease of `leaseMs`, so
   * that the object is removed if the confirm does not settle in time, and the row is kept from expiring meanwhile. After a
   * failure `removals.endLease` ends the lease early.
   *
   * Throws `storage_limit_exceeded` if `sizeBytes` does not fit the quota of the workspace that would be charged (nothing is
   * reserved), and `not_found` if the workspace is deleted or the row is no longer pending.
   */
  reserveFinalKey: (
    uploadId: string,
    reservation: { workspaceId: string; sizeBytes: number; leaseMs: number },
  ) => Promise<string>;

  /**
   * The last step: charges the object that was copied, points the row to it and enters its staging key for removal, in one
   * transaction. The copy may have taken minutes, so rights and context are checked again inside the transaction. A full
   * disk does not refuse it: it needs a few hundred bytes, and without it the staged object would stay until it expires.
   *
   * Throws as `findToConfirm`, and
   * - `storage_unavailable`: the lease has run out and the removal of the object may have begun; nothing is charged;
   * - `storage_limit_exceeded`: the quota has no room; the upload stays pending;
   * - `not_found`: the row is gone, or the workspace is deleted.
   */
  settleConfirm: (principal: Principal, request: ConfirmRequest, copy: FinalObject) => Promise<Upload>;

  /**
   * Instead of the second and the last step, if the store seals the staged object: charges it, and names it by its final key
   * from now on, in one transaction. Nothing is entered for removal: the object is still the one that was PUT.
   * `object.seal` is called inside the transaction and must not await; what it throws undoes the confirm.
   *
   * Throws as `findToConfirm`, what `seal` throws, and `storage_limit_exceeded` or `not_found` as `settleConfirm`.
   */
  settleSealed: (principal: Principal, request: ConfirmRequest, object: SealedObject) => Promise<Upload>;

  /**
   * Deletes an upload in either state, returns its bytes to the workspace at once, and enters its object for removal. With
   * `request`, a repetition does nothing and succeeds. It works while the store is down and while the disk is full.
   *
   * Throws `not_found`, which is the same for ids that do not exist and uploads that the caller may not delete;
   * `invalid_api_key`, `forbidden` or `not_found` if the right was lost after the request was let in; `validation_error` if
   * the Idempotency-Key came with another request before.
   */
  remove: (principal: Principal, uploadId: string, request?: RepeatableRequest | null) => Promise<void>;

  /**
   * Deletes pending uploads whose time is over, a batch of them, and resolves with their number; 0 means that none is left.
   * To be called only while the clock is trusted.
   */
  expire: (nowMs: number) => Promise<number>;

  /**
   * Deletes up to `limit` uploads and workflows of a deleted workspace, uploads as `remove` does, and the memberships with
   * the last of them. Resolves with their number, or with null if no deleted workspace has any left. All progress is in the
   * database, so a process that is killed loses none.
   */
  removeOfDeletedWorkspaces: (limit: number) => Promise<number | null>;
}

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
  /** In lower-case hex: as it was stated or, once it is confirmed, as the store computed it; null if neither was. */
  checksumSha256: string | null;
  sizeBytes: number | null;
  etag: string | null;
  charCount: number | null;
  lineCount: number | null;
  contextType: ContextType | null;
  contextId: string | null;
  /** The staging key while the upload is pending, then the final key. */
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
  checksumSha256: string | null;
}

/** A new upload, or the one that the same request made before. */
export interface CreatedUpload {
  upload: Upload;
  /** The key to PUT the bytes to. If a repeated request finds the upload confirmed, `upload` has another key by then. */
  stagingKey: string;
}

export interface ConfirmRequest {
  uploadId: string;
  contextType: ContextType;
  contextId: string;
  /** Null if the request came without an Idempotency-Key. */
  repeatable: RepeatableRequest | null;
}

export type FoundToConfirm =
  | { isConfirmed: true; upload: Upload }
  | {
      isConfirmed: false;
      upload: Upload;
      /** The workspace that the context belongs to: it is charged. */
      workspaceId: string;
    };

/** The object that a confirm charges. */
export interface ChargedObject {
  sizeBytes: number;
  /** The store's, with its quotes. */
  etag: string;
  /** Kept if the caller stated none; null if the store computed none. */
  checksumSha256: string | null;
  /** Null if its characters are not counted. */
  counts: TextCounts | null;
}

/** An object that a confirm has copied to the key that it reserved. */
export interface FinalObject extends ChargedObject {
  finalKey: string;
}

/** A staged object that is confirmed in place. */
export interface SealedObject extends ChargedObject {
  /** Throws if the staged object is no longer this one. Nothing can replace it once the row is confirmed. */
  seal: () => void;
}

export interface UploadFilter {
  status?: "pending" | "uploaded" | undefined;
  category?: Category | undefined;
  contextId?: string | undefined;
  /** The whole name, in Unicode's composed form; upper and lower case differ. */
  filename?: string | undefined;
  /** The beginning of the name, compared in the same way. */
  filenamePrefix?: string | undefined;
  /** The first moment at which an upload may have been created. */
  createdFromMs?: number | undefined;
  /** The first moment at which it may not have been created any more. */
  createdBeforeMs?: number | undefined;
}

/** Where a page begins: `offset` uploads after the first one whose id is below `beforeId`, in the order of the list. */
export interface PageStart {
  beforeId?: string | undefined;
  offset: number;
  limit: number;
}

export interface UploadPage {
  uploads: Upload[];
  /** The number of uploads in the whole list. A long list's may be up to a minute old. */
  total: number;
  /** Where the next page begins; null if there is none. */
  nextBeforeId: string | null;
}

/** The same for every upload that does not exist, or that the caller may not see or change. */
export function noUpload(): AppError {
  return new AppError("not_found", "There is no such upload");
}

/** For a repeated create. Making another upload would be wrong: the request may be a late echo of the first. */
export function createdUploadIsGone(): AppError {
  return new AppError(
    "not_found",
    "The upload that this Idempotency-Key created is gone: send a new key to create another",
  );
}

/** The confirm's lease ran out before it could settle. */
export function confirmTookTooLong(): AppError {
  return new AppError("storage_unavailable", "The confirm took too long and was given up: retry", {
    retryAfterSeconds: 1,
  });
}
