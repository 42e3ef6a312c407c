import { closeSync, linkSync, openSync, readSync, rmSync, statSync } from "node:fs";
import { totalmem } from "node:os";
import Database from "better-sqlite3";
import { AppError } from "../errors.ts";
import type { Log } from "../log.ts";
import { belongTogether, readLedgerSeq, readLogStart } from "./log_start.ts";
import { isSqliteError } from "./sqlite_errors.ts";

/** Up to this size every entry of every index is compared with its row. Measured: 0.7 s; ten times as much would take too long. */
const WHOLE_CHECK_BYTES_MAX = 256 * 1024 * 1024;
/** Faults that are collected of one file. */
const FAULTS_MAX = 100;
/** Faults that a message names. */
const FAULTS_TOLD_MAX = 3;
/** The tables that grow with what people do. The quick check does not compare their rows with the entries of their indexes. */
const LARGE_TABLES = ["uploads", "storage_events", "object_removals", "contexts", "idempotency_keys"] as const;
/** Read at a time while the file is brought into memory. */
const READ_AHEAD_BYTES = 4 * 1024 * 1024;
/** Waiting for another process that recovers the file at this moment. */
const BUSY_TIMEOUT_MS = 5_000;

/**
 * To be called before a database file is opened for writing, by whoever has it alone. After an end that was not clean, which
 * a log that is not empty tells, file and log are checked together, read-only: SQLite applies any log that lies beside a
 * file, also one of another file, and the first checkpoint would mix the two for good. Throws `conflict` where they are not
 * sound, and has then changed nothing.
 */
export function refuseUnsound(path: string, log: Log): void {
  const logPath = `${path}-wal`;
  const logBytes = sizeOf(logPath);
  if (logBytes === 0) return;
  const fileBytes = sizeOf(path);
  if (fileBytes === 0) throw noFileToLog(path, logPath);
  log.warn("database_check", {
    why: "the last run did not end cleanly",
    file_bytes: fileBytes,
    log_bytes: logBytes,
    effect: "waiting until its soundness is known: a second or two for a million uploads",
  });
  // What follows blocks the event loop, which would otherwise write the line.
  log.flush();
  const startedAtMs = performance.now();
  // Cheap, and certain where it finds something. What is left are logs that say nothing of their beginning.
  if (!belongTogether(...startsOf(path))) throw mixedUp(path, logPath, "the log continues another file");
  readAhead(path, fileBytes);
  const faults = faultsOf(path);
  if (faults.length > 0) throw unsound(path, logPath, faults);
  log.info("database_sound", { duration_ms: Math.round(performance.now() - startedAtMs) });
}

/**
 * Reads the file once from its beginning to its end, so that the checks find it in memory: they go through it in the order
 * of its trees. Measured after a power loss, with a million uploads: 3 s instead of 24 s.
 */
function readAhead(path: string, fileBytes: number): void {
  if (fileBytes > totalmem() / 2) return;
  const piece = Buffer.allocUnsafe(READ_AHEAD_BYTES);
  const file = openSync(path, "r");
  try {
    while (readSync(file, piece) > 0);
  } finally {
    closeSync(file);
  }
}

/** What is wrong with a database file and the log beside it; nothing where it is sound. Writes to neither. */
function faultsOf(path: string): string[] {
  try {
    return reading(path, (sqlite) => {
      const faults = checkPages(sqlite);
      // An `init` that was cut off has made no tables yet.
      const isEmpty = sqlite.pragma("user_version", { simple: true }) === 0;
      return faults.length > 0 || isEmpty ? faults : [...checkIndexes(sqlite), ...checkLedger(sqlite)];
    });
  } catch (error) {
    // So damaged that the checks themselves fail. What cannot be looked at is not known to be unsound.
    if (!isSqliteError(error, "SQLITE_CORRUPT") && !isSqliteError(error, "SQLITE_NOTADB")) throw error;
    return [error.message];
  }
}

/** Every page, every row, and up to a size every entry of an index. */
function checkPages(sqlite: Database.Database): string[] {
  const pragma = (name: string): number => Number(sqlite.pragma(name, { simple: true }));
  const isSmall = pragma("page_count") * pragma("page_size") <= WHOLE_CHECK_BYTES_MAX;
  const check = sqlite.prepare<[], string>(`PRAGMA ${isSmall ? "integrity_check" : "quick_check"}(${FAULTS_MAX})`);
  return check
    .pluck()
    .all()
    .filter((text) => text !== "ok");
}

/** An index has an entry for each row of its table. */
function checkIndexes(sqlite: Database.Database): string[] {
  const faults: string[] = [];
  const selectIndexes = sqlite.prepare<[string], { name: string }>(
    "SELECT name FROM pragma_index_list(?) WHERE partial = 0",
  );
  for (const table of LARGE_TABLES) {
    const names = selectIndexes.all(table).map(({ name }) => name);
    if (names.length === 0) continue;
    const count = (by: string): unknown => sqlite.prepare(`SELECT count(*) FROM ${table} ${by}`).pluck().get();
    const rows = count("NOT INDEXED");
    for (const name of names) {
      const entries = count(`INDEXED BY ${name}`);
      if (entries !== rows) faults.push(`${table} has ${rows} rows, its index ${name} ${entries} entries`);
    }
  }
  return faults;
}

/** The ledger has no gap, and ends for each workspace with what its counter says. */
function checkLedger(sqlite: Database.Database): string[] {
  const ledger = sqlite
    .prepare<[], { events: number; lastSeq: number }>(
      "SELECT count(*) AS events, coalesce(max(seq), 0) AS lastSeq FROM storage_events",
    )
    .get();
  const drifted = sqlite
    .prepare<[], string>(
      `SELECT id FROM workspaces w
        WHERE storage_bytes_used IS NOT coalesce((SELECT balance_bytes FROM storage_events e WHERE e.workspace_id = w.id
                                                   ORDER BY seq DESC LIMIT 1), 0)
        LIMIT ${FAULTS_MAX}`,
    )
    .pluck()
    .all();
  return [
    ...(ledger === undefined || ledger.events === ledger.lastSeq
      ? []
      : [`the ledger ends at ${ledger.lastSeq} and has ${ledger.events} events`]),
    ...drifted.map((id) => `the counter of workspace ${id} is not its last balance`),
  ];
}

/** What file and log say of the log together, what the file says alone, and where the file's ledger ends. */
function startsOf(path: string): Parameters<typeof belongTogether> {
  const pair = reading(path, readLogStart);
  const [file, ledgerSeq] = alone(path, (link) =>
    reading(link, (sqlite) => [readLogStart(sqlite), readLedgerSeq(sqlite)]),
  ) ?? [undefined, null];
  return [pair, file, ledgerSeq];
}

/** A connection that may not write copies nothing from the log, not even when it is closed. */
function reading<T>(path: string, read: (sqlite: Database.Database) => T): T {
  const sqlite = new Database(path, { readonly: true, fileMustExist: true, timeout: BUSY_TIMEOUT_MS });
  try {
    return read(sqlite);
  } finally {
    sqlite.close();
  }
}

/** Does something with the file as it is without its log; null where that cannot be done. */
function alone<T>(path: string, work: (link: string) => T): T | null {
  // SQLite finds a log by the file's name: under another name there is none.
  const link = `${path}.alone-${process.pid}`;
  try {
    linkSync(path, link);
    return work(link);
  } catch {
    return null;
  } finally {
    for (const suffix of ["", "-wal", "-shm"]) rmSync(link + suffix, { force: true });
  }
}

function unsound(path: string, logPath: string, faults: readonly string[]): AppError {
  const told = faults.slice(0, FAULTS_TOLD_MAX).join("; ");
  const found = `${faults.length}${faults.length >= FAULTS_MAX ? " or more" : ""} faults`;
  if (alone(path, faultsOf)?.length === 0) {
    return mixedUp(path, logPath, `with the log there are ${found} (${told}), without it none`);
  }
  return new AppError("conflict", `The database "${path}" is damaged: ${found} (${told}). Nothing was written`, {
    hint:
      "keep a copy of the whole data directory, and restore the newest backup that is sound into an empty folder " +
      '(README, "Backup"); then look for the cause: a failing disk, a network file system, a copy made while it was in use',
  });
}

function mixedUp(path: string, logPath: string, why: string): AppError {
  return new AppError(
    "conflict",
    `The database "${path}" and its log "${logPath}" do not belong together: ${why}. Most likely a copy was put back and ` +
      "the log of the newer file left beside it. Nothing was written",
    {
      hint:
        "keep a copy of the whole data directory first. To go on with the copy that was put back, move the log away " +
        `(mv "${logPath}" "${path}-shm" SOMEWHERE); to go on with the newer state, put back the file that the log belongs to ` +
        "(docs/troubleshooting.md)",
    },
  );
}

function noFileToLog(path: string, logPath: string): AppError {
  return new AppError(
    "conflict",
    `The database "${path}" is missing or empty, and its log "${logPath}" is there. Nothing was written`,
    {
      hint:
        "put back the file that the log belongs to. If there is none, keep the log, move it away, and restore a backup " +
        '(README, "Backup")',
    },
  );
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}
