import type { OutboxFigures } from "./outbox.ts";

/** Sums over all workspaces, for those who run the service. */
export interface Totals {
  bytesUsed: number;
  uploadsPending: number;
  /** The sum of the sizes that were stated for pending uploads; those without one add nothing. */
  bytesPendingStated: number;
  outbox: OutboxFigures;
}

/** The log of the database, which holds the newest changes until they are copied into the main file. */
export interface LogFigures {
  logBytes: number;
  /** How long a reader has kept the log from being copied, or from starting over; 0 if none does. */
  heldUpMs: number;
}

/** Adds up what is in the tables when somebody asks: a counter beside them could drift. */
export interface TotalsReader {
  /**
   * Adds up all workspaces, pending uploads and the outbox. The tables are read in short steps, between which requests have
   * their turn: a row that changes meanwhile is counted as it was before or as it is after. If there are many rows, callers
   * share one result, which is kept for a hundred times as long as it took.
   */
  read(nowMs: number): Promise<Totals>;

  /** The state of the database's log at this moment. */
  readLog(): Promise<LogFigures>;
}
