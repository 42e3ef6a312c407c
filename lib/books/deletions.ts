import { AppError } from "../errors.ts";
import type { Principal } from "./principals.ts";

/** The history of deleted uploads and their objects. */
export interface Deletions {
  /**
   * The deletion of an upload, for everybody who could have deleted it. Throws `not_found`: with a hint if the upload still
   * exists and the caller may delete it, and otherwise as for an id that never existed.
   */
  find: (principal: Principal, uploadId: string, nowMs: number) => Promise<Deletion>;
}

export interface Deletion {
  uploadId: string;
  deletedAtMs: number;
  /** 0 if the upload was never charged. */
  bytesReleased: number;
  /** When the last of its objects was removed. Null if one still waits, or if the removal was not recorded. */
  removedAtMs: number | null;
  /** Attempts to remove its objects: all of those that are removed, and the failed ones of those that are not. */
  attempts: number;
  /** Empty once everything is removed. */
  waiting: readonly WaitingObject[];
}

/** An object of a deleted upload that is still to be removed, or to be removed once more. */
export interface WaitingObject {
  /** `final`: the confirmed file. `staging`: the bytes that were PUT to the upload URL. */
  place: "final" | "staging";
  reason: WaitReason;
  nextAttemptAtMs: number;
}

/** Why an object is not removed yet. */
export type WaitReason =
  /** It is due, or about to be. */
  | "queued"
  /** The store is being asked to remove it. */
  | "taken"
  /** The last attempt failed; later ones follow. */
  | "failed"
  /** The store as a whole could not be used when its removal was tried. */
  | "store_unavailable"
  /** The process ended during its removal. */
  | "cut_off"
  /** A confirm may still be copying to it. */
  | "leased"
  /** It was removed once. Anything that comes under its key until `nextAttemptAtMs` is removed then. */
  | "again";

/** For an upload that still exists. */
export function notDeleted(): AppError {
  return new AppError("not_found", "This upload is not deleted: send a DELETE for it first");
}
