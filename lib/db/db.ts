import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type Database from "better-sqlite3";
import { AppError, outcomeUnknown } from "../errors.ts";
import type { Log } from "../log.ts";
import { createCheckpoints, type LogFigures } from "./checkpoints.ts";
import { openConnection } from "./connection.ts";
import { createFileWatch } from "./file_watch.ts";
import { createFreeSpaceCheck } from "./free_space.ts";
import { isSqliteError, toUnavailable, whyUnusable } from "./sqlite_errors.ts";

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
  /** How long the log is, and whether a reader keeps it from getting shorter. */
  logFigures: () => LogFigures;
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
  /** Whether this process holds the serve lock; by default, if it migrates. */
  holdsLock?: boolean | undefined;
  /** Called when the file's state is unknown (an I/O error): the process must end. */
  onFatal: (error: unknown) => void;
  /** Called when a write finds the disk full: whoever keeps some room for that gives it now. */
  onFull?: (() => void) | undefined;
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
 * `AppError` where the file cannot be used or is not sound, is newer than the program, or older or absent and `migrate` is
 * not set.
 */
export function openDb(options: DbOptions): Db {
  const { dataDir, log, minFreeBytes = 0, migrate, holdsLock = migrate, onFatal } = options;
  const { onGroup = () => {}, onFull = () => {}, monotonicMs = () => performance.now() } = options;
  const path = join(dataDir, DATABASE_FILE);
  const sqlite = openConnection({ path, dataDir, log, migrate, holdsLock });
  sqlite.pragma(`busy_timeout = ${BUSY_TIMEOUT_MS}`);
  const checkpoints = createCheckpoints(sqlite, { path, log, keepsLog: migrate, monotonicMs });
  const checkInPlace = createFileWatch(path);

  const begin = sqlite.prepare("BEGIN IMMEDIATE");
  const commit = sqlite.prepare("COMMIT");
  const rollback = sqlite.prepare("ROLLBACK");
  const savepoint = sqlite.prepare("SAVEPOINT body");
  const release = sqlite.prepare("RELEASE body");
  const rollbackTo = sqlite.prepare("ROLLBACK TO body");

  let queue: QueuedWrite[] = [];
  let scheduled = false;
  let closing = false;

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
      checkInPlace();
      begin.run();
    } catch (error) {
      if (isSqliteError(error, "SQLITE_BUSY")) return waitForLock(error);
      // Nothing of it was begun, which is more than "unknown".
      return failGroup(queue.splice(0), error, toUnavailable(error));
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
    checkpoints.afterGroup();
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
      return { ok: false, error: whyUnusable(error) === null ? error : outcomeUnknown(error) };
    }
  }

  function failGroup(group: QueuedWrite[], cause: unknown, told: unknown = outcomeUnknown(cause)): void {
    log.error("group_failed", { writes: group.length, cause });
    try {
      if (sqlite.inTransaction) rollback.run();
    } catch (error) {
      log.error("rollback_failed", { cause: error });
    }
    for (const write of group) write.reject(told);
    onGroup({ writes: group.length, commitMs: null });
    if (isSqliteError(cause, "SQLITE_FULL")) {
      onFull();
      // Once it is copied the log starts over, in the room that it has.
      checkpoints.afterGroup();
    }
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

  async function close(): Promise<void> {
    closing = true;
    while (queue.length > 0) {
      flush();
      if (queue.length > 0) await delay(BUSY_RETRY_MS);
    }
    if (!sqlite.open) return;
    checkpoints.finish();
    sqlite.close();
  }

  return {
    prepare: (sql) => sqlite.prepare(sql),
    write: (body) => enqueue(body, true),
    writeStatement: (body) => enqueue(body, false),
    checkFreeSpace: createFreeSpaceCheck(dataDir, minFreeBytes, log),
    logFigures: checkpoints.figures,
    close,
  };
}

function isThenable(value: unknown): boolean {
  return typeof value === "object" && value !== null && "then" in value && typeof value.then === "function";
}

function busy(message: string, cause?: unknown): AppError {
  return new AppError("storage_unavailable", message, { retryAfterSeconds: 1, cause });
}
