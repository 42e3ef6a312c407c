import { setTimeout as delay } from "node:timers/promises";
import type Database from "better-sqlite3";
import { AppError, outcomeUnknown } from "../errors.ts";
import type { Log } from "../log.ts";
import { isSqliteError, toUnavailable, whyUnusable } from "./sqlite_errors.ts";

/** How long one attempt may block the event loop while another process holds the write lock. */
const BUSY_TIMEOUT_MS = 5;
/** Pause between two attempts to get the write lock. */
const BUSY_RETRY_MS = 20;
/** A write that has waited longer than this for the lock is refused. */
const WRITE_AGE_MS_MAX = 5_000;
/** Writes that may wait at once. Each is a request in flight, so this bounds memory, not throughput. */
const QUEUED_WRITES_MAX = 10_000;
/** Bodies in one transaction: after a stall, the backlog is worked off in groups that stay short. */
const GROUP_BODIES_MAX = 1_024;

export interface GroupCommit {
  /**
   * Runs `body` in the next group's transaction, in a savepoint of its own, and resolves with its result once the
   * group's COMMIT is durable. If the body throws, the promise rejects, also only then, and this body alone is undone.
   *
   * The body must not await, and must let SQLite's errors pass: a caught one could hide that the transaction is gone. Rejects
   * with `storage_unavailable` if the whole group failed, or if the database was busy for too long.
   */
  write: <T>(body: () => T) => Promise<T>;
  /** The same for a body whose only write is one statement, or that throws before it writes: it needs no savepoint. */
  writeStatement: <T>(body: () => T) => Promise<T>;
  /** Refuses writes from now on. Resolves when the queued ones have ended. */
  finish: () => Promise<void>;
}

export interface GroupCommitOptions {
  /** The file, as the subject of a sentence; by default "The database". */
  subject?: string;
  log: Log;
  /** Called before each transaction: throws if the file is no longer the one that is open. */
  checkInPlace: () => void;
  /** Called between two groups. */
  afterGroup: () => void;
  /** Called when the file's state is unknown (an I/O error): it must not be used any further. */
  onFatal: (error: unknown) => void;
  /** Called when a write finds the disk full, so that room kept for this case can be given up. */
  onFull?: (() => void) | undefined;
  /** Called after every group: how many writes it had, and how long its COMMIT took, or null if the whole group failed. */
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

/** Thrown inside a group when its transaction is gone. */
class GroupLost extends Error {}

/**
 * Groups the writes of a connection: all that arrive in one turn of the event loop share one transaction and one fsync.
 * Nothing else begins a transaction on this connection, except its checkpoints, between two groups.
 */
export function createGroupCommit(sqlite: Database.Database, options: GroupCommitOptions): GroupCommit {
  const { log, checkInPlace, afterGroup, onFatal } = options;
  const { subject = "The database" } = options;
  const { onGroup = () => {}, onFull = () => {}, monotonicMs = () => performance.now() } = options;
  sqlite.pragma(`busy_timeout = ${BUSY_TIMEOUT_MS}`);
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
      if (closing) return reject(busy("The service is shutting down: retry"));
      if (queue.length >= QUEUED_WRITES_MAX) return reject(busy("Too many changes are waiting: retry in a moment"));
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
      // Nothing was begun, so the outcome is known.
      return failGroup(queue.splice(0), error, toUnavailable(error, subject));
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
    // Only now, both results and errors: a 404 that saw a delete of this group must not leave before that delete is durable.
    for (const [i, outcome] of outcomes.entries()) {
      if (outcome.ok) group[i]?.resolve(outcome.value);
      else group[i]?.reject(outcome.error);
    }
    onGroup({ writes: group.length, commitMs });
    schedule();
    afterGroup();
  }

  function runBody(write: QueuedWrite): Outcome {
    if (write.savepoint) savepoint.run();
    try {
      const value = write.body();
      if (!sqlite.inTransaction) throw new GroupLost("A body ended the transaction");
      if (isThenable(value)) {
        const mistake = new TypeError("The body of a write must not be asynchronous");
        // Without a savepoint, its writes so far can only be undone with the whole group.
        if (!write.savepoint) throw new GroupLost("A body cannot be undone", { cause: mistake });
        throw mistake;
      }
      if (write.savepoint) release.run();
      return { ok: true, value };
    } catch (error) {
      // Some failures (disk full, I/O, memory) undo the whole transaction. The next savepoint would open a transaction of its
      // own, and later bodies would commit alone, so no more of this group runs.
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
    log.error("group_failed", { file: subject, writes: group.length, cause });
    try {
      if (sqlite.inTransaction) rollback.run();
    } catch (error) {
      log.error("rollback_failed", { cause: error });
    }
    for (const write of group) write.reject(told);
    onGroup({ writes: group.length, commitMs: null });
    if (isSqliteError(cause, "SQLITE_FULL")) {
      onFull();
      // Once it is copied, the log starts over in the room that it has.
      afterGroup();
    }
    if (isSqliteError(cause, "SQLITE_IOERR")) onFatal(cause);
  }

  /** Another process has the write lock. The event loop goes on, and writes that have waited too long are refused. */
  function waitForLock(cause: unknown): void {
    const nowMs = monotonicMs();
    const tooOld = queue.filter((write) => nowMs - write.queuedAtMs > WRITE_AGE_MS_MAX);
    if (tooOld.length > 0) {
      queue = queue.filter((write) => nowMs - write.queuedAtMs <= WRITE_AGE_MS_MAX);
      log.warn("database_busy", { file: subject, refused: tooOld.length });
      for (const write of tooOld) write.reject(busy(`${subject} is busy with another process: retry`, cause));
    }
    if (queue.length === 0) return;
    scheduled = true;
    setTimeout(flush, BUSY_RETRY_MS);
  }

  async function finish(): Promise<void> {
    closing = true;
    while (queue.length > 0) {
      flush();
      if (queue.length > 0) await delay(BUSY_RETRY_MS);
    }
  }

  return {
    write: (body) => enqueue(body, true),
    writeStatement: (body) => enqueue(body, false),
    finish,
  };
}

function isThenable(value: unknown): boolean {
  return typeof value === "object" && value !== null && "then" in value && typeof value.then === "function";
}

function busy(message: string, cause?: unknown): AppError {
  return new AppError("storage_unavailable", message, { retryAfterSeconds: 1, cause });
}
