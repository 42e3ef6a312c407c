/** Anything that could have been removed for this long is more than a backlog: doctor and `/ready` report it. */
export const OVERDUE_MS = 60 * 60_000;
/** An object of a deleted upload that is overdue by this much is counted separately: somebody may have to account for it. */
export const DELETED_OVERDUE_MS = 24 * 60 * 60_000;

export interface OutboxFigures {
  /** Entries to be removed now. */
  due: number;
  /** Entries whose removal has failed; it is retried, later and later. */
  failing: number;
  /** Entries whose time has not come: leases of confirms, and second removals. */
  waiting: number;
  /**
   * Since when the oldest of the due and the failing could have been removed; null if there are none. It lies in the future
   * if the clock was set back, or if somebody has brought the entry forward by hand.
   */
  oldestDueSinceMs: number | null;
  /** Objects of deleted uploads that could have been removed for more than `DELETED_OVERDUE_MS`. */
  deletedOverdue: number;
}

/** Counts what is in the outbox; `removals.ts` has the verbs that work on it. */
export interface OutboxReader {
  /**
   * Counts the entries. They are read in short steps, between which requests have their turn: an entry that changes
   * meanwhile is counted as it was before or as it is after. If there are many, callers share one result, which is kept for
   * a hundred times as long as it took.
   */
  read(nowMs: number): Promise<OutboxFigures>;
}
