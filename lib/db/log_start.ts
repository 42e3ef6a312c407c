import { randomBytes } from "node:crypto";
import type Database from "better-sqlite3";
import * as z from "zod";

/**
 * What the first write of a log says, in `installation.log_start_json`: which log it is, which one its file has taken in
 * last, and where the ledger ended then. A log that lies beside a file that it does not continue is told by it.
 */
const logStart = z.object({
  log: z.string(),
  before: z.string().nullable(),
  ledger_seq: z.number(),
});
export type LogStart = z.infer<typeof logStart>;

/**
 * What a database says of its log: null before its first log was marked, undefined where it cannot be read, as in a file of
 * an older version.
 */
export function readLogStart(sqlite: Database.Database): LogStart | null | undefined {
  try {
    const text = sqlite.prepare<[], string | null>("SELECT log_start_json FROM installation").pluck().get();
    return text === null ? null : logStart.parse(JSON.parse(text ?? ""));
  } catch {
    return undefined;
  }
}

/** The last number of the ledger; null where it cannot be read. */
export function readLedgerSeq(sqlite: Database.Database): number | null {
  try {
    return sqlite.prepare<[], number>("SELECT coalesce(max(seq), 0) FROM storage_events").pluck().get() ?? null;
  } catch {
    return null;
  }
}

/**
 * Whether a log can continue a file: `pair` is what the two say together, `file` what the file says without the log.
 *
 * A checkpoint that was cut off has taken some pages of the log into the file and not others, so the file may say either.
 * Its ledger then ends where the log began, or further on: never before.
 */
export function belongTogether(
  pair: LogStart | null | undefined,
  file: LogStart | null | undefined,
  fileLedgerSeq: number | null,
): boolean {
  if (pair === null || pair === undefined || file === undefined || file?.log === pair.log) return true;
  return (file?.log ?? null) === pair.before && (fileLedgerSeq === null || fileLedgerSeq >= pair.ledger_seq);
}

/** Marks the beginnings of logs. Only for the holder of the serve lock. */
export function createLogStarts(sqlite: Database.Database) {
  const version = sqlite.prepare<[], number>("PRAGMA data_version").pluck();
  const begin = sqlite.prepare("BEGIN IMMEDIATE");
  const commit = sqlite.prepare("COMMIT");
  const rollback = sqlite.prepare("ROLLBACK");
  const update = sqlite.prepare<[string]>("UPDATE installation SET log_start_json = ?");

  return {
    /** To be asked before a checkpoint: what others commit changes it. */
    version: (): number | undefined => version.get(),
    /**
     * To be called when the file has taken in all of the log, and nobody else has committed since `asOf`: then this write
     * is the first of the next log.
     */
    mark(asOf: number | undefined): void {
      begin.run();
      try {
        if (version.get() !== asOf) return void rollback.run();
        const next: LogStart = {
          log: randomBytes(8).toString("hex"),
          before: readLogStart(sqlite)?.log ?? null,
          ledger_seq: readLedgerSeq(sqlite) ?? 0,
        };
        update.run(JSON.stringify(next));
        commit.run();
      } catch (error) {
        if (sqlite.inTransaction) rollback.run();
        throw error;
      }
    },
  };
}
