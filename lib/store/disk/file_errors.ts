import { AppError } from "../../errors.ts";
import { hintOn, whyUnusable } from "../../sqlite/sqlite_errors.ts";
import { StoreError } from "../objects.ts";

const FILE_HINT =
  "see that the disk of the objects folder is mounted and sound (`dmesg`), and that this user owns what is in the folder (`ls -ln`)";

/** An error of a failed call to the file system. */
type FileError = Error & { code: string; syscall: string };

function isFileError(error: unknown): error is FileError {
  return error instanceof Error && "syscall" in error && "code" in error && typeof error.code === "string";
}

/** Whether a file, or a folder on the way to it, was not there. */
export function isMissing(error: unknown): boolean {
  return isFileError(error) && error.code === "ENOENT";
}

/** Whether a name was already taken. */
export function isTaken(error: unknown): boolean {
  return isFileError(error) && error.code === "EEXIST";
}

/** Whether the disk, or this user's part of it, was full. */
export function isFull(error: unknown): boolean {
  return isFileError(error) && (error.code === "ENOSPC" || error.code === "EDQUOT");
}

/** Says in a few words why a file could not be touched. Carries no path: it may be shown to an administrator. */
export function fileErrorReason(error: unknown): string {
  return isFileError(error) ? `${error.code} on ${error.syscall}` : "unexpected failure";
}

/** Turns a failed call to the file system into the store's error. A `StoreError` passes through. */
export function toStoreError(error: unknown): StoreError {
  if (error instanceof StoreError) return error;
  if (error instanceof AppError) {
    const failure = error.code === "insufficient_storage" ? "full" : "unavailable";
    return new StoreError(failure, error.message, error, error.hint ?? hintOn(error.cause));
  }
  const why = whyUnusable(error);
  if (why !== null) {
    const message = `The file of small objects cannot be used: ${why}`;
    return new StoreError("unavailable", message, error, hintOn(error));
  }
  if (isMissing(error)) return new StoreError("absent", "There is no such object", error);
  const denied = isFileError(error) && (error.code === "EACCES" || error.code === "EPERM" || error.code === "EROFS");
  const message = `The file system failed: ${fileErrorReason(error)}`;
  return new StoreError(denied ? "denied" : "unavailable", message, error, isFileError(error) ? FILE_HINT : null);
}

/** Turns a failure to write an upload's bytes into the user's error. Other errors pass through. */
export function toUploadError(error: unknown): unknown {
  if (!isFileError(error) && !(error instanceof StoreError)) return error;
  if (isFull(error)) return noSpace(error);
  return new AppError("storage_unavailable", "Cannot store the upload at the moment: send it again in a while", {
    retryAfterSeconds: 10,
    cause: error,
  });
}

/** The disk must keep room for the database: deletes and confirms go on while uploads are refused. */
export function noSpace(cause?: unknown): AppError {
  return new AppError(
    "insufficient_storage",
    "Cannot take the upload: the server's disk is too full for it. Try again later, or ask its administrator to make room",
    cause === undefined ? {} : { cause },
  );
}

/** One owner's unconfirmed uploads may not fill the disk for all. */
export function shareUsedUp(ownBytes: number): AppError {
  return new AppError(
    "insufficient_storage",
    // How much is free is nobody's business: from it one could follow what all others upload.
    `Cannot take the upload: unconfirmed uploads of this workspace or person take ${ownBytes} bytes of the server's disk, ` +
      "which is their share of it at the moment. Confirm or delete some, or try again later",
  );
}
