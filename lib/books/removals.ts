/**
 * The outbox: every object that is to be removed from the store has an entry until it is gone. The schema's triggers enter
 * the objects of deleted and confirmed uploads (ROW-FIRST). The cleaner alone takes entries, removes their objects, and
 * settles them.
 */
export interface Removals {
  /**
   * Marks up to `limit` due entries as taken, durably, and resolves with them. From then on a confirm whose lease has run
   * out fails instead of charging an object that is about to be removed.
   */
  takeDue: (nowMs: number, limit: number) => Promise<TakenRemoval[]>;

  /** Puts taken entries back, at a start or after a failed pass. To be called while no removal is under way. */
  clearTaken: () => Promise<void>;

  /**
   * Books the results of removals. An entry whose object was removed goes, or waits for its second removal; one that failed
   * (`failures`: the reason by key) is retried later and later, and never given up.
   */
  settle: (taken: readonly TakenRemoval[], failures: ReadonlyMap<string, string>, nowMs: number) => Promise<void>;

  /** Puts entries back until `dueAtMs`, with a reason. For a store that is down: it counts as no attempt. */
  postpone: (taken: readonly TakenRemoval[], reason: string, dueAtMs: number) => Promise<void>;

  /** When the next entry is due; null if none waits. May lie in the past. */
  nextDueAtMs: () => Promise<number | null>;

  /**
   * Ends the lease of a confirm that failed: its object is due now. If the copy may land late, a second removal follows a
   * day later. An object whose entry is gone is entered anew: after a jump of the clock both of its removals may have been
   * made while the copy was under way.
   */
  endLease: (objectKey: string, ended: EndedLease) => Promise<void>;

  /**
   * Enters keys that doctor is about to fill, each as a confirm does: if the process is killed, the objects are removed
   * after `leaseMs`.
   */
  lease: (objectKey: string, lease: Lease) => Promise<void>;

  /** Takes leases back whose objects are gone. A lease whose removal has begun stays. */
  takeBackLeases: (objectKeys: readonly string[]) => Promise<void>;

  /** Corrects the size of the object that was found under a key, if the key is entered; does nothing if it is not. */
  noteFound: (objectKey: string, sizeBytes: number) => Promise<void>;

  /** Enters an object found in the store. Resolves with false, and enters nothing, if an upload or an entry names it. */
  enterFound: (found: FoundObject) => Promise<boolean>;
}

export interface TakenRemoval {
  /** The entry's number. */
  seq: number;
  objectKey: string;
  /** How often its removal has failed. */
  attempts: number;
}

export interface Lease {
  uploadId: string;
  sizeBytes: number;
  nowMs: number;
  leaseMs: number;
}

/** The end of a confirm that failed, and the object that it may have made. */
export interface EndedLease {
  uploadId: string;
  sizeBytes: number;
  nowMs: number;
  /** The store gave no response to the copy, so the object may appear after it was removed. */
  mayLandLate: boolean;
}

/** An object that a scan of the store has found. */
export interface FoundObject {
  objectKey: string;
  uploadId: string;
  sizeBytes: number;
  nowMs: number;
}
