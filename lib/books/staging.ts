import { AppError } from "../errors.ts";

/**
 * The bytes of uploads that are not confirmed yet, as the books see them: whose they are, how many there may be, and
 * whether an object is still wanted. The embedded store asks before it takes bytes in or hands an object out. An S3 server
 * asks nobody: there the scan of staging reports what it finds.
 */
export interface Staging {
  /**
   * The workspace whose pending upload names this staging key, or the person if the upload is in no workspace. Throws
   * `not_found` if no pending upload names the key, or if its workspace is deleted.
   */
  findOwner: (objectKey: string) => Promise<string>;

  /**
   * Runs `place` while a pending upload names this key, and resolves with its result. No write to the books comes between
   * the check and the end of `place`: a delete that commits earlier is seen by the check, and one that commits later enters
   * the key for removal and so finds what was placed (NO-ORPHAN). `place` must not await and should take microseconds,
   * such as one rename. Throws as `findOwner`, and whatever `place` throws.
   */
  whilePending: <T>(objectKey: string, place: () => T) => Promise<T>;

  /**
   * Whether an upload in either state names this key. An object that no upload names is deleted, even if its file is still
   * there.
   */
  isNamed: (objectKey: string) => Promise<boolean>;

  /**
   * Throws as `findOwner`. Synchronous, for a store that asks in the middle of a write of its own: no write to the books
   * comes between the check and the end of that write, as with `whilePending`.
   */
  checkPending: (objectKey: string) => void;

  /** The state of the upload that names this key, also in a workspace that is deleted; null if none does. Synchronous too. */
  statusOf: (objectKey: string) => "pending" | "uploaded" | null;

  /**
   * Counts a PUT that begins against its owner's bounds. `announcedBytes` is null for an unknown length. Call `end` on the
   * result whatever becomes of the PUT. Throws `not_found` as `findOwner`; if there is no room for so many bytes,
   * `storage_limit_exceeded` (the quota), `rate_limited` (bytes that a confirm, a delete or time makes room for), or
   * `payload_too_large` (more than the server ever takes at once).
   */
  beginPut: (objectKey: string, announcedBytes: number | null) => Promise<StagedPut>;

  /** The bytes known to lie in the store for an owner's unconfirmed uploads. Kept in memory, so that it costs no read. */
  stagedBytes: (ownerId: string) => number;

  /**
   * Records that an object of this size lies under a staging key. It counts against its owner's bounds if a pending upload
   * names the key; resolves with false if none does. The figure reaches the database a moment later (see `flush`): if the
   * process is killed before that, the next scan of staging finds it again.
   */
  noteStaged: (objectKey: string, sizeBytes: number) => Promise<boolean>;

  /** Writes the sizes that `noteStaged` and PUTs have reported to the database. Call it before the books are closed. */
  flush: () => Promise<void>;
}

/** One PUT that is under way. */
export interface StagedPut {
  /** To be awaited before the PUT's bytes come to this number in all. Throws as `beginPut`. */
  growTo: (bytes: number) => Promise<void>;
  /** The whole object is stored, with this size. Until `end` the PUT counts as well, but never more than once. */
  stored: (sizeBytes: number) => void;
  /** The PUT has ended, whether it succeeded or not. */
  end: () => void;
}

/** The refusal of a PUT, or of anything else that only a pending upload allows. */
export function noPendingUpload(): AppError {
  return new AppError(
    "not_found",
    "There is no pending upload for this URL: it was deleted, has expired, or is confirmed already. Create a new one",
  );
}
