import { chmodSync, existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import Database from "better-sqlite3";
import { AppError, outcomeUnknown } from "../errors.ts";
import type { Log } from "../log.ts";
import { fsyncPathSync } from "./files.ts";
import { createFreeSpaceCheck } from "./free_space.ts";
import { checkSchema, SCHEMA_VERSION } from "./schema_version.ts";

/** The name of the database file in the data directory. */
export const DATABASE_FILE = "stowage.db";

/** How long one attempt may block the event loop while another process holds the write lock. */
const BUSY_TIMEOUT_MS = 5;
/** Pause between two attempts to get the write lock. */
const BUSY_RETRY_MS = 20;
/** A write that has waited longer than this for the lock is refused. */
const WRITE_AGE_MS_MAX = 5_000;
/** Writes that may wait at once. Each is a request in flight, so this bounds memory, not throughput. */
const QUEUED_WRITES_MAX = 10_000;
/** Bodies in one transaction; after a stall the backlog is worked off in groups that stay short. */
const GROUP_BODIES_MAX = 1_024;

/** Opening may have to wait for another process that recovers or checkpoints the file. */
const OPEN_TIMEOUT_MS = 5_000;

/** Idle this long, the log is copied into the database if it holds at least `IDLE_CHECKPOINT_PAGES`. */
const IDLE_CHECKPOINT_MS = 200;
const IDLE_CHECKPOINT_PAGES = 256;
/** Under constant load the log is copied once it holds 32 MiB (pages of 4 KiB), between two groups. */
const BUSY_CHECKPOINT_PAGES = 8_192;
/** At 64 MiB readers are waited for, so that the log starts over from its beginning. */
const RESTART_CHECKPOINT_PAGES = 16_384;
/** How often the length of the log is looked at under load. */
const LOG_LOOK_MS = 20;

export interface Db {
  /** Prepares a statement once; to be called when a module is made, not for each request. */
  prepare: <Params extends unknown[] | object = unknown[], Row = unknown>(
    sql: string,
  ) => Database.Statement<Params extends unknown[] ? Params : [Params], Row>;
  /**
   * Runs `body` in the next group's transaction, in a savepoint of its own, and resolves with its result once the
   * group's COMMIT is durable. What the body throws rejects the promise, also only then, and undoes this body alone.
   *
   * The body must not await and must let SQLite's errors pass: a caught one could hide that the transaction is gone.
   * Rejects with `storage_unavailable` where the group as a whole failed, or the database was busy for too long.
   */
  write: <T>(body: () => T) => Promise<T>;
  /** The same for a body whose only write is one statement, or that throws before it writes: it needs no savepoint. */
  writeStatement: <T>(body: () => T) => Promise<T>;
  /**
   * To be called before a write that makes the file grow for good. Throws `insufficient_storage` while the disk has too
   * little free. Not for deletes, and not for what ends in one: they make room.
   */
  checkFreeSpace: () => void;
  /** Finishes queued writes, copies the log into the database and closes the file. */
  close: () => Promise<void>;
}

export interface DbOptions {
  dataDir: string;
  log: Log;
  /** What `checkFreeSpace` keeps free on the disk; by default nothing. */
  minFreeBytes?: number;
  /** Brings an older file up to date. Only for the holder of the serve lock. */
  migrate: boolean;
  /** Called when the file's state is unknown (an I/O error): the process must end. */
  onFatal: (error: unknown) => void;
  /** Told of every group: its writes, and how long its COMMIT took, or null where the group failed as a whole. */
  onGroup?: ((group: { writes: number; commitMs: number | null }) => void) | undefined;
  /** A clock that only goes forward; says how long a write has waited. */
  monotonicMs?: () => number;
}

interface QueuedWrite {
  body: () => unknown;
  savepoint: boolean;
  queuedAtMs: number;
  resolve: (value: unknown) => void;
  reject: (error: unknown) => void;
}

type Outcome = { ok: true; value: unknown } | { ok: false; error: unknown };

/** Thrown inside a group when the transaction that it ran in is no more. */
class GroupLost extends Error {}

/**
 * Opens the database of a data directory.
 *
 * Writes are grouped: all that arrive in one turn of the event loop share one transaction and one fsync. Throws an
 * `AppError` where the file is newer than the program, or older or absent and `migrate` is not set.
 */
export function openDb(options: DbOptions): Db {
  const { dataDir, log, minFreeBytes = 0, migrate, onFatal } = options;
  const { onGroup = () => {}, monotonicMs = () => performance.now() } = options;
  const path = join(dataDir, DATABASE_FILE);
  const isNew = !existsSync(path);
  if (isNew && !migrate) {
    throw new AppError("not_found", `Cannot open database "${path}": there is none`, {
      hint: "name the data directory with STOWAGE_DATA_DIR, or make one with `stowage init`",
    });
  }
  const sqlite = new Database(path, { timeout: OPEN_TIMEOUT_MS });
  try {
    if (isNew) chmodSync(path, 0o600);
    prepareConnection(sqlite);
    const fileVersion = checkSchema(sqlite, path, migrate);
    if (fileVersion > 0 && fileVersion < SCHEMA_VERSION) {
      log.warn("database_upgraded", {
        from_version: fileVersion,
        to_version: SCHEMA_VERSION,
        effect: "versions of this program before this one refuse it from now on",
      });
    }
    // Each time, not only when the file is new: whoever made it may have lost power before this line.
    fsyncPathSync(dirname(path));
  } catch (error) {
    sqlite.close();
    throw error;
  }
  sqlite.pragma(`busy_timeout = ${BUSY_TIMEOUT_MS}`);

  const begin = sqlite.prepare("BEGIN IMMEDIATE");
  const commit = sqlite.prepare("COMMIT");
  const rollback = sqlite.prepare("ROLLBACK");
  const savepoint = sqlite.prepare("SAVEPOINT body");
  const release = sqlite.prepare("RELEASE body");
  const rollbackTo = sqlite.prepare("ROLLBACK TO body");
  // Asked many times a second under load, where `pragma()` would compile both the statement and a maker of its rows anew.
  const askLog = sqlite.prepare<[], [busy: number, pages: number, copied: number]>("PRAGMA wal_checkpoint(NOOP)").raw();

  let queue: QueuedWrite[] = [];
  let scheduled = false;
  let closing = false;
  let lastLookMs = 0;
  let lastGroupMs = 0;
  let idleTimer: NodeJS.Timeout | null = null;

  function enqueue<T>(body: () => T, withSavepoint: boolean): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (closing) return reject(busy("The service is shutting down: ask again"));
      if (queue.length >= QUEUED_WRITES_MAX) return reject(busy("Too many changes are waiting: ask again in a moment"));
      // The queue holds bodies of many types; each entry's resolve only ever meets its own body's value.
      const settle = resolve as (value: unknown) => void;
      queue.push({ body, savepoint: withSavepoint, queuedAtMs: monotonicMs(), resolve: settle, reject });
      schedule();
    });
  }

  function schedule(): void {
    if (scheduled || queue.length === 0) return;
    scheduled = true;
    setImmediate(flush);
  }

  function flush(): void {
    scheduled = false;
    if (queue.length === 0) return;
    try {
      begin.run();
    } catch (error) {
      if (isSqliteError(error, "SQLITE_BUSY")) return waitForLock(error);
      return failGroup(queue.splice(0), error);
    }
    const group = queue.length <= GROUP_BODIES_MAX ? queue : queue.splice(0, GROUP_BODIES_MAX);
    if (group === queue) queue = [];

    const outcomes: Outcome[] = [];
    let commitMs = 0;
    try {
      for (const write of group) outcomes.push(runBody(write));
      const commitStartedMs = performance.now();
      commit.run();
      commitMs = performance.now() - commitStartedMs;
    } catch (error) {
      failGroup(group, error instanceof GroupLost ? (error.cause ?? error) : error);
      return schedule();
    }
    // Only now, results and errors alike: a 404 that saw a delete of this group must not leave before that is durable.
    for (const [i, outcome] of outcomes.entries()) {
      if (outcome.ok) group[i]?.resolve(outcome.value);
      else group[i]?.reject(outcome.error);
    }
    onGroup({ writes: group.length, commitMs });
    schedule();
    scheduleCheckpoint();
  }

  function runBody(write: QueuedWrite): Outcome {
    if (write.savepoint) savepoint.run();
    try {
      const value = write.body();
      if (!sqlite.inTransaction) throw new GroupLost("A body ended the transaction");
      if (isThenable(value)) {
        const mistake = new TypeError("The body of a write must not be asynchronous");
        // Without a savepoint what it has written by now can only be undone with the whole group.
        if (!write.savepoint) throw new GroupLost("A body cannot be undone", { cause: mistake });
        throw mistake;
      }
      if (write.savepoint) release.run();
      return { ok: true, value };
    } catch (error) {
      // Some failures (disk full, I/O, memory) undo the whole transaction. The next savepoint would then open one of its
      // own, and later bodies would commit alone: so nothing of this group runs any further.
      if (error instanceof GroupLost) throw error;
      if (!sqlite.inTransaction || isSqliteError(error, "SQLITE_IOERR")) {
        throw new GroupLost("The transaction is gone", { cause: error });
      }
      if (write.savepoint) {
        rollbackTo.run();
        release.run();
      }
      return { ok: false, error: isResourceError(error) ? outcomeUnknown(error) : error };
    }
  }

  function failGroup(group: QueuedWrite[], cause: unknown): void {
    log.error("group_failed", { writes: group.length, cause });
    try {
      if (sqlite.inTransaction) rollback.run();
    } catch (error) {
      log.error("rollback_failed", { cause: error });
    }
    for (const write of group) write.reject(outcomeUnknown(cause));
    onGroup({ writes: group.length, commitMs: null });
    if (isSqliteError(cause, "SQLITE_IOERR")) onFatal(cause);
  }

  /** Another process has the write lock. The event loop goes on; whoever has waited too long is told so. */
  function waitForLock(cause: unknown): void {
    const nowMs = monotonicMs();
    const tooOld = queue.filter((write) => nowMs - write.queuedAtMs > WRITE_AGE_MS_MAX);
    if (tooOld.length > 0) {
      queue = queue.filter((write) => nowMs - write.queuedAtMs <= WRITE_AGE_MS_MAX);
      log.warn("database_busy", { refused: tooOld.length });
      for (const write of tooOld) write.reject(busy("The database is busy with another process: ask again", cause));
    }
    if (queue.length === 0) return;
    scheduled = true;
    setTimeout(flush, BUSY_RETRY_MS);
  }

  function scheduleCheckpoint(): void {
    lastGroupMs = performance.now();
    if (lastGroupMs - lastLookMs >= LOG_LOOK_MS) {
      lastLookMs = lastGroupMs;
      // After the answers of this group have been handed to their sockets.
      setImmediate(() => checkpointFrom(BUSY_CHECKPOINT_PAGES));
    }
    idleTimer ??= setTimeout(checkpointIfIdle, IDLE_CHECKPOINT_MS).unref();
  }

  function checkpointIfIdle(): void {
    const restMs = lastGroupMs + IDLE_CHECKPOINT_MS - performance.now();
    idleTimer = restMs > 0 ? setTimeout(checkpointIfIdle, restMs).unref() : null;
    if (idleTimer === null) checkpointFrom(IDLE_CHECKPOINT_PAGES);
  }

  function checkpointFrom(pages: number): void {
    if (!sqlite.open) return;
    try {
      const [, logPages = 0, copiedPages = 0] = askLog.get() ?? [];
      // By the log's whole length: readers that take turns let all of it be copied and still keep it from starting over.
      if (logPages >= RESTART_CHECKPOINT_PAGES) checkpoint("RESTART");
      else if (logPages - copiedPages >= pages) checkpoint("PASSIVE");
    } catch (error) {
      // The log stays as it is and nothing is lost; the next look tries again.
      log.warn("checkpoint_failed", { cause: error });
    }
  }

  function checkpoint(kind: "PASSIVE" | "RESTART" | "TRUNCATE"): void {
    sqlite.pragma(`wal_checkpoint(${kind})`);
  }

  async function close(): Promise<void> {
    closing = true;
    while (queue.length > 0) {
      flush();
      if (queue.length > 0) await delay(BUSY_RETRY_MS);
    }
    if (idleTimer !== null) clearTimeout(idleTimer);
    if (!sqlite.open) return;
    try {
      checkpoint("TRUNCATE");
    } catch (error) {
      log.warn("checkpoint_failed", { cause: error });
    }
    sqlite.close();
  }

  return {
    prepare: (sql) => sqlite.prepare(sql),
    write: (body) => enqueue(body, true),
    writeStatement: (body) => enqueue(body, false),
    checkFreeSpace: createFreeSpaceCheck(dataDir, minFreeBytes, log),
    close,
  };
}

function prepareConnection(sqlite: Database.Database): void {
  // Readers never wait for the writer, and one fsync of the log makes a whole group durable.
  sqlite.pragma("journal_mode = WAL");
  // The driver's default in WAL mode is NORMAL, which may lose the last commits on power loss (NO-LOSS).
  sqlite.pragma("synchronous = FULL");
  // Off by default in SQLite; a row must not point to a user or workspace that does not exist.
  sqlite.pragma("foreign_keys = ON");
  // macOS: a plain fsync there does not reach the disk itself.
  sqlite.pragma("fullfsync = ON");
  sqlite.pragma("checkpoint_fullfsync = ON");
  // Ours run between groups, after the answers have left; SQLite's own would run inside a COMMIT.
  sqlite.pragma("wal_autocheckpoint = 0");
}

function isThenable(value: unknown): boolean {
  return typeof value === "object" && value !== null && "then" in value && typeof value.then === "function";
}

function busy(message: string, cause?: unknown): AppError {
  return new AppError("storage_unavailable", message, { retryAfterSeconds: 1, cause });
}

/** Whether `error` came from SQLite with this result code, or an extended form of it. */
export function isSqliteError(error: unknown, code: string): error is Database.SqliteError & Error {
  return error instanceof Database.SqliteError && (error.code === code || error.code.startsWith(`${code}_`));
}

function isResourceError(error: unknown): boolean {
  return ["SQLITE_FULL", "SQLITE_NOMEM", "SQLITE_BUSY"].some((code) => isSqliteError(error, code));
}
