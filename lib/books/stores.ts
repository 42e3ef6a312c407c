/** The place of a store, as the settings name it. It contains no secrets. */
export type StorePlace = { kind: "disk"; folder: string } | { kind: "s3"; endpoint: string; bucket: string };

/** The store that holds the objects, as the database knows it. */
export interface StoreRecord {
  place: StorePlace;
  /** Written in the marker too: a store is recognised by it, whatever its address. */
  storeId: string;
  /** The run of `serve` that took the store last; null after a person has decided, until a run takes it. */
  runId: string | null;
  /** The ledger's number when the marker was last known to be written. */
  ledgerSeq: number;
}

export interface StoreState {
  /** Null until a store is first recorded. */
  record: StoreRecord | null;
  /** When the marker was first written; null if it never was. */
  markerWrittenAtMs: number | null;
  /** Raised by each run of `serve` that took the store. */
  generation: number;
}

export interface SampledUpload {
  objectKey: string;
  sizeBytes: number;
}

/** The database's record of the store that holds its objects, and data to compare a store with. */
export interface Stores {
  /** Reads what is remembered; empty before the first start. */
  read(): Promise<StoreState>;

  /** Records which store is about to be used, before its marker is written. */
  recordTaken(record: StoreRecord, generation: number): Promise<void>;

  /** Records that the store has its marker. The time of the first marker is kept. */
  recordMarked(record: StoreRecord, generation: number, nowMs: number): Promise<void>;

  /** Whether anything was ever booked. Apart from `read`, so that a damaged page of the ledger stops nothing else. */
  hasLedger(): Promise<boolean>;

  /** Whether there is an upload, or an object that awaits removal. */
  hasUploads(): Promise<boolean>;

  /** A few confirmed uploads, the oldest and the newest: a store that was moved or restored in part lacks one or the other. */
  sampleUploads(): Promise<SampledUpload[]>;
}
