/** The facts about time that the books hold when the process starts. All are milliseconds since 1970. */
export interface TimesAtStart {
  /** When the clock was last trusted; null if that was never recorded. */
  trustedAtMs: number | null;
  /** When the clock was first doubted, by its own time; null if it was not since it was last trusted. */
  doubtedAtMs: number | null;
  /** The time of the newest upload, the newest event of the ledger, or the file's creation, whichever is latest. */
  newestRowAtMs: number;
  /** When the last complete scan of staging ended; null if there was none. */
  scannedAtMs: number | null;
  createdAtMs: number;
}

/** Times of the installation as a whole that a restart must not forget. */
export interface ClockRecords {
  /** Reads what is known. To be called before this process writes anything: later the newest row would be its own. */
  read(): Promise<TimesAtStart>;

  /** Records that the clock is trusted, which ends any doubt. */
  recordTrusted(nowMs: number): Promise<void>;

  /** Records since when the clock is doubted, by its own time. */
  recordDoubted(nowMs: number): Promise<void>;

  /** Records that a complete scan of staging has ended. */
  recordScanned(nowMs: number): Promise<void>;
}
