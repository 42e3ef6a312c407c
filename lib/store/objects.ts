import type { Readable } from "node:stream";

/** An object as its store describes it. */
export interface ObjectStat {
  sizeBytes: number;
  /** Changes whenever the bytes do. It has the quotes that HTTP requires. */
  etag: string;
  /** The SHA-256 of the bytes, in lower-case hex, if the store knows it. */
  checksumSha256?: string | null;
}

export interface ListedObject extends ObjectStat {
  objectKey: string;
  modifiedAtMs: number;
}

export interface PutUrlOptions {
  contentType: string;
  /** The exact length that the URL is good for; null if the caller stated none. */
  sizeBytes: number | null;
  /**
   * The SHA-256, in hex, of the only bytes that the URL is good for; null if the caller stated none. On an S3 server the
   * PUT must then send it in a header: see `checksum.ts`.
   */
  checksumSha256?: string | null;
  expiresAtMs: number;
  /** When the URL was first made, so that it is the same when it is made again. By default now. */
  signedAtMs?: number;
}

/** Whether a browser saves a download or shows it. */
export type Disposition = "attachment" | "inline";

export interface GetUrlOptions {
  contentType: string;
  filename: string;
  /** By default `attachment`. `inline` is for types that a browser shows and does not run: see `isShownInline`. */
  disposition?: Disposition;
  expiresAtMs: number;
}

/** Images, audio, video, text and PDF. */
export function isShownInline(contentType: string): boolean {
  return /^(image|audio|video|text)\/|^application\/pdf$/.test(contentType);
}

/** The type under which a store shows a file inline if it cannot sandbox it: pages and drawings become their source. */
export function typeWithoutScripts(contentType: string): string {
  return /^text\/|\+xml$/.test(contentType) ? "text/plain" : contentType;
}

/** The marker as it is stored. */
export interface StoredMarker {
  text: string;
  /** Changes whenever the marker does. */
  etag: string;
}

/** How far the ledger had come, and whose the store was, when the marker was last written. */
export interface PartMark {
  storeId: string;
  generation: number;
  ledgerSeq: number;
}

/**
 * A part of the store that can be lost, or replaced by an older copy, without the rest. It carries a mark of its own, which
 * is compared with the marker: without it objects would seem to be removed already, or never to have been uploaded.
 */
export interface StorePart {
  /** The mark; null if the part is not there, is not ours, or was never marked. */
  readMark: () => Promise<PartMark | null>;
  /** Replaces the mark, and resolves with true when it is durable; with false if the part is not there. */
  writeMark: (mark: PartMark) => Promise<boolean>;
}

export interface PromoteOptions {
  /** The staging object as it was stat'ed. */
  source: ObjectStat;
  contentType: string;
}

/**
 * How a store that nobody else writes to lets a staged object be confirmed without a copy. A sealed object has the final key
 * of `sealedKeyOf`, and no PUT replaces it, from the moment at which its row is confirmed with that key.
 */
export interface Sealing {
  /** Whether the object under this staging key can be sealed; any other has to be promoted. */
  canSeal: (stagingKey: string) => boolean;
  /**
   * To be called inside the transaction that confirms the row, which must not await. Throws a `StoreError`, `absent` or
   * `changed`, if the staged object is not the one that was stat'ed, or can no longer be sealed. It is durable already, and
   * if the transaction fails nothing has changed.
   */
  seal: (stagingKey: string, source: ObjectStat) => void;
}

/** The few ways in which a store can fail, whatever its make. */
export type StoreFailure =
  /** The object is not there. Never used for a missing bucket. */
  | "absent"
  /** The object is there, and is not the one that was stat'ed. */
  | "changed"
  /** The store refused our credentials or this action. */
  | "denied"
  /** The place of the objects itself is not there: the bucket, or the embedded store's folder. */
  | "bucket_missing"
  /** The disk of the embedded store has no room for it. */
  | "full"
  /** No response, or one that does not tell: the store may or may not have done what it was asked to. */
  | "unavailable";

export class StoreError extends Error {
  override readonly name = "StoreError";
  readonly failure: StoreFailure;
  /** Advice for an administrator; null if the failure says no more than its kind. */
  readonly hint: string | null;
  constructor(failure: StoreFailure, message: string, cause?: unknown, hint: string | null = null) {
    super(message, cause === undefined ? {} : { cause });
    this.failure = failure;
    this.hint = hint;
  }

  /** Whether the store certainly did nothing. */
  get isRefusal(): boolean {
    return this.failure !== "unavailable";
  }
}

/** One call to the object store, for metrics. */
export interface StoreCall {
  operation: string;
  durationMs: number;
  /** Null if it succeeded. */
  failure: StoreFailure | null;
}

/**
 * The operations that the service needs of an object store. If the store fails, every method rejects with a `StoreError`, and
 * with nothing else (except `prepare`).
 */
export interface ObjectStore {
  /** An absolute URL that a client may PUT the object to, once or more, until it expires. */
  presignPut: (objectKey: string, options: PutUrlOptions) => string;
  /** An absolute URL that downloads the object under its filename. */
  presignGet: (objectKey: string, options: GetUrlOptions) => string;
  /** The object's size and ETag; null if there is no object. */
  stat: (objectKey: string) => Promise<ObjectStat | null>;
  /**
   * Makes `finalKey` hold the staged object: exactly the one that was stat'ed, or nothing. Durable when it resolves.
   * Rejects with `absent` or `changed` if the staged object is no longer that one.
   */
  promote: (stagingKey: string, finalKey: string, options: PromoteOptions) => Promise<ObjectStat>;
  /** Null if others write to the store: then every object is promoted. */
  sealing: Sealing | null;
  /** How long `promote` may take for an object of this size, in milliseconds; the confirm's lease is longer. */
  promoteMsMax: (sizeBytes: number) => number;
  /** How many objects can be promoted, and then read, at once before one has to wait for another. */
  promotesAtOnceMax: number;
  /** The object's bytes. Rejects with `absent`. */
  read: (objectKey: string) => Promise<Readable>;
  /**
   * Removes objects and resolves with the reason for each key that may still be there. An object that was not there counts as
   * removed. Removed objects stay removed, even after a power loss if the store can promise that.
   */
  remove: (objectKeys: readonly string[]) => Promise<Map<string, string>>;
  /** Every object whose key begins with `prefix`, which ends in a slash, in the order of the keys' bytes. */
  list: (prefix: string) => AsyncIterable<ListedObject>;
  /** The marker of the ledger as it was last written; null if there is none. See `ledger_marker.ts`. */
  readMarker: (markerKey: string) => Promise<StoredMarker | null>;
  /**
   * Replaces the marker that was read with this ETag (null: there was none), as a whole or not at all. Rejects with
   * `changed` if it is another by now; a store without conditional writes may overwrite one that was written just before.
   * Durable when it resolves, if the store can promise that.
   */
  writeMarker: (markerKey: string, text: string, options: { replaces: string | null }) => Promise<void>;
  /** Null if no part of the store can be lost without the marker. */
  part: StorePart | null;
  /**
   * Makes everything that the store needs before its first use; the bucket or folder itself only with `makes`, and its part
   * only without `hasPart`: then it was made before. Rejects with `bucket_missing` if the bucket or folder is not there, with
   * `unavailable` if the part is not, and with an `AppError` if the place can never be used.
   */
  prepare: (options: { makes: boolean; hasPart?: boolean }) => Promise<void>;
  /** Resolves if the store can be used. */
  probe: () => Promise<void>;
  /** How far the store's clock is ahead of ours, by its latest response since `probe`. Null if no response had a date. */
  clockSkewMs: () => number | null;
  close: () => Promise<void>;
}
