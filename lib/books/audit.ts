export interface ConfirmedRow {
  uploadId: string;
  objectKey: string;
  sizeBytes: number;
  etag: string;
  confirmedAtMs: number;
}

/** An entry whose removal has failed. */
export interface FailingEntry {
  objectKey: string;
  /** How often it has failed. */
  attempts: number;
  /** The reason that the store gave last. */
  lastError: string | null;
}

/** An upload that doctor makes to try the embedded store with. */
export interface TrialUpload {
  uploadId: string;
  objectKey: string;
  expiresAtMs: number;
  nowMs: number;
}

/**
 * The reads that doctor makes, and its trial upload. Each read is short and bounded, so that doctor never holds up the log of a
 * server that runs beside it. Only the time of `findFaults` grows with the size of the file.
 */
export interface Audit {
  /** The size of the database file, without its log. */
  fileBytes(): Promise<number>;

  /** Checks the database file and resolves with a sentence for each fault; empty if it is sound. */
  findFaults(): Promise<string[]>;

  /** Up to `limit` workspace ids after this one, in order; deleted workspaces are included. */
  listWorkspaceIds(afterId: string, limit: number): Promise<string[]>;

  /** Up to `limit` confirmed uploads whose ids lie after the first id and not beyond the second, in order. */
  listConfirmed(afterId: string, throughId: string, limit: number): Promise<ConfirmedRow[]>;

  /** Whether the upload, in either state, names this object. */
  isNamed(uploadId: string, objectKey: string): Promise<boolean>;

  /** Whether the object is entered for removal. One that was sealed a moment ago may still be under its staging key. */
  isEntered(objectKey: string): Promise<boolean>;

  /** Lists up to `limit` entries of the outbox whose removal has failed, oldest first. */
  listFailing(limit: number): Promise<FailingEntry[]>;

  /** Counts the pending uploads that would expire at this time. */
  countExpiring(nowMs: number): Promise<number>;

  /**
   * Makes a pending upload of some user and of no workspace, so that it counts against no quota. Resolves with false if there
   * is no user. It expires even if the caller ends before `removeTrial`.
   */
  createTrial(trial: TrialUpload): Promise<boolean>;

  /** Deletes the trial upload as any upload is deleted: its object is entered for removal. */
  removeTrial(uploadId: string): Promise<void>;
}
