export const STORAGE_EVENT_KINDS = ["charge", "release", "adjust"] as const;
export type StorageEventKind = (typeof STORAGE_EVENT_KINDS)[number];

export interface StorageEvent {
  /** The place in the ledger. Events are ordered by it, never by time. */
  seq: number;
  workspaceId: string;
  /** Null for an `adjust`. */
  uploadId: string | null;
  kind: StorageEventKind;
  /** Signed: a release is negative. */
  bytes: number;
  /** The workspace's usage after this event. */
  balanceBytes: number;
  atMs: number;
}

export interface StorageEventFilter {
  uploadId?: string | undefined;
  kind?: StorageEventKind | undefined;
  /** Only events before this one. */
  beforeSeq?: number | undefined;
  limit: number;
}

/** A workspace's counter beside what it must equal (BOOKS). */
export interface WorkspaceSums {
  workspaceId: string;
  counterBytes: number;
  ledgerBytes: number;
  /** The sum of the confirmed uploads' sizes. */
  uploadsBytes: number;
  /** The balance after the newest event; 0 if there is none. */
  balanceBytes: number;
}

/**
 * The ledger of storage: every charge, release and adjustment. Nothing in it is ever changed. Confirms and deletes book
 * their events themselves, each in its own transaction; only adjustments are booked here.
 */
export interface Ledger {
  /**
   * Lists a workspace's events, newest first. An upload of another workspace has none. A long search for one kind is made
   * in short steps, between which other requests have their turn.
   */
  list(workspaceId: string, filter: StorageEventFilter): Promise<StorageEvent[]>;

  /** The newest event of any workspace; null if nothing was ever booked. */
  findLast(): Promise<StorageEvent | null>;

  /** The event with this number, of whatever workspace; null if there is none. */
  find(seq: number): Promise<StorageEvent | null>;

  /**
   * A workspace's counter, ledger and uploads, all at one moment. Undefined if there never was such a workspace; a deleted
   * one keeps its sums.
   */
  sumsOf(workspaceId: string): Promise<WorkspaceSums | undefined>;

  /**
   * Books an `adjust` that brings counter and ledger to the sum of the uploads. Resolves with whether it booked one: it does
   * not if they agree already, or if the ledger contradicts itself, which no event can repair (see `isLedgerSound`).
   */
  adjust(workspaceId: string, nowMs: number): Promise<boolean>;
}

/** Whether counter, ledger and last balance agree. If they do not, no event can repair it. */
export function isLedgerSound({ counterBytes, ledgerBytes, balanceBytes }: WorkspaceSums): boolean {
  return counterBytes === ledgerBytes && counterBytes === balanceBytes;
}
