import Database from "better-sqlite3";
import { isSqliteError } from "./sqlite_errors.ts";

/** Up to this size every entry of every index is compared with its row. Measured: 2 s; ten times as much would take too long. */
export const WHOLE_CHECK_BYTES_MAX = 512 * 1024 * 1024;
/** Partial indexes with up to so many entries, such as those of pending uploads, are compared entry by entry in any file. */
const COMPARED_ENTRIES_MAX = 100_000;
/** Faults that are collected of one file. */
export const FAULTS_MAX = 100;
/** The tables that grow with what people do. The quick check does not compare their rows with the entries of their indexes. */
const LARGE_TABLES = ["uploads", "storage_events", "object_removals", "contexts", "idempotency_keys"] as const;
/** Waiting for another process that recovers the file at this moment. */
const BUSY_TIMEOUT_MS = 5_000;

/** What is wrong with a database file and the log beside it; nothing where it is sound. Writes to neither. */
export function faultsOf(path: string, wholeCheckBytesMax: number): string[] {
  try {
    return reading(path, (sqlite) => {
      const faults = checkPages(sqlite, wholeCheckBytesMax);
      // An `init` that was cut off has made no tables yet.
      const isEmpty = sqlite.pragma("user_version", { simple: true }) === 0;
      return isEmpty ? faults : [...faults, ...checkLedger(sqlite), ...checkBooks(sqlite)];
    });
  } catch (error) {
    // So damaged that the checks themselves fail. What cannot be looked at is not known to be unsound.
    if (!isSqliteError(error, "SQLITE_CORRUPT") && !isSqliteError(error, "SQLITE_NOTADB")) throw error;
    return [error.message];
  }
}

/** A connection that may not write copies nothing from the log, not even when it is closed. */
export function reading<T>(path: string, read: (sqlite: Database.Database) => T): T {
  const sqlite = new Database(path, { readonly: true, fileMustExist: true, timeout: BUSY_TIMEOUT_MS });
  try {
    return read(sqlite);
  } finally {
    sqlite.close();
  }
}

/** Every page, every row and the entries of the indexes: each one up to a size, else their numbers. */
function checkPages(sqlite: Database.Database, wholeCheckBytesMax: number): string[] {
  const pragma = (name: string): number => Number(sqlite.pragma(name, { simple: true }));
  const isSmall = pragma("page_count") * pragma("page_size") <= wholeCheckBytesMax;
  const check = sqlite.prepare<[], string>(`PRAGMA ${isSmall ? "integrity_check" : "quick_check"}(${FAULTS_MAX})`);
  const faults = check
    .pluck()
    .all()
    .filter((text) => text !== "ok");
  return isSmall || faults.length > 0 ? faults : checkIndexes(sqlite);
}

interface Index {
  name: string;
  /** Its text in the schema; null for one that SQLite made for a key. */
  sql: string | null;
}

/** An index has an entry for each row of its table, a partial one for each row that it is for. */
function checkIndexes(sqlite: Database.Database): string[] {
  const faults: string[] = [];
  const selectIndexes = sqlite.prepare<[string], Index>(
    "SELECT l.name, s.sql FROM pragma_index_list(?) l JOIN sqlite_schema s ON s.type = 'index' AND s.name = l.name",
  );
  for (const table of LARGE_TABLES) {
    const indexes = selectIndexes.all(table).map(({ name, sql }) => ({ name, where: predicateOf(sql) }));
    if (indexes.length === 0) continue;
    const counts = (what: string, from: string): unknown[] =>
      sqlite.prepare<[], unknown[]>(`SELECT ${what} FROM ${table} ${from}`).raw().get() ?? [];
    // All in one pass through the table.
    const rows = counts(indexes.map(({ where }) => `count(*) FILTER (WHERE ${where})`).join(), "NOT INDEXED");
    for (const [i, { name, where }] of indexes.entries()) {
      const [entries] = counts("count(*)", `INDEXED BY "${name}" WHERE ${where}`);
      if (entries !== rows[i]) faults.push(`${table} has ${rows[i]} rows for its index ${name}, which has ${entries}`);
      else if (
        where !== "true" &&
        Number(entries) <= COMPARED_ENTRIES_MAX &&
        hasOthers(sqlite, { table, name, where })
      ) {
        faults.push(`${table} has other rows than its index ${name}`);
      }
    }
  }
  return faults;
}

/** Whether a partial index has entries for other rows than those it is for. */
function hasOthers(sqlite: Database.Database, at: { table: string; name: string; where: string }): boolean {
  const { table, name, where } = at;
  const key = sqlite.prepare("SELECT group_concat(name) FROM pragma_table_info(?) WHERE pk > 0").pluck().get(table);
  const select = (by: string): string => `SELECT ${key} FROM ${table} ${by} WHERE ${where}`;
  const others = sqlite.prepare(`${select(`INDEXED BY "${name}"`)} EXCEPT ${select("NOT INDEXED")} LIMIT 1`);
  return others.get() !== undefined;
}

/** Which rows an index is for. */
function predicateOf(sql: string | null): string {
  return sql === null ? "true" : (/\sWHERE\s(.*)$/is.exec(sql)?.[1] ?? "true");
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

/**
 * Each workspace has as many uploads as were charged and not released, and all together add up to all counters. Not the bytes
 * of each workspace: sorting a million uploads by their workspaces would take longer than all other checks together.
 */
function checkBooks(sqlite: Database.Database): string[] {
  const differing = sqlite
    .prepare<[], string>(
      `WITH u AS (SELECT workspace_id, sum(status = 'uploaded') AS uploads
                    FROM uploads WHERE workspace_id > '' GROUP BY workspace_id),
            e AS (SELECT workspace_id, sum(CASE kind WHEN 'charge' THEN 1 WHEN 'release' THEN -1 ELSE 0 END) AS charged
                    FROM storage_events GROUP BY workspace_id)
       SELECT w.id FROM workspaces w LEFT JOIN u ON u.workspace_id = w.id LEFT JOIN e ON e.workspace_id = w.id
        WHERE coalesce(u.uploads, 0) IS NOT coalesce(e.charged, 0)
        LIMIT ${FAULTS_MAX}`,
    )
    .pluck()
    .all();
  const all = sqlite
    .prepare<[], { bytes: number; usedBytes: number; uploads: number; charged: number }>(
      `SELECT coalesce(sum(size_bytes), 0) AS bytes, count(*) AS uploads,
              (SELECT coalesce(sum(storage_bytes_used), 0) FROM workspaces) AS usedBytes,
              (SELECT coalesce(sum(CASE kind WHEN 'charge' THEN 1 WHEN 'release' THEN -1 ELSE 0 END), 0) FROM storage_events) AS charged
         FROM uploads NOT INDEXED WHERE status = 'uploaded'`,
    )
    .get();
  return [
    ...differing.map((id) => `the uploads of workspace ${id} are not those that were charged`),
    ...(all === undefined || (all.bytes === all.usedBytes && all.uploads === all.charged)
      ? []
      : [`${all.uploads} uploads have ${all.bytes} bytes; ${all.charged} with ${all.usedBytes} bytes were charged`]),
  ];
}
