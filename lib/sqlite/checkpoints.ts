import { statSync } from "node:fs";
import type Database from "better-sqlite3";
import type { Log } from "../log.ts";
import { createLogThrottle } from "../log_throttle.ts";
import { describeReader, readersOf } from "./log_readers.ts";

/** From this length on a checkpoint waits for readers, so that the log can start over: 64 MiB, in pages of 4 KiB. */
const RESTART_CHECKPOINT_PAGES = 16_384;
/** The size that the log promises to keep; its file shrinks to this after it had to grow larger. */
export const LOG_BYTES_MAX = 64 * 1024 * 1024;
/** Under constant load the log is copied once it holds 32 MiB, between two groups. */
const BUSY_CHECKPOINT_PAGES = 8_192;
/** Idle this long, the log is copied into the database if it holds at least `IDLE_CHECKPOINT_PAGES`. */
const IDLE_CHECKPOINT_MS = 200;
const IDLE_CHECKPOINT_PAGES = 256;
/** How often the length of the log is checked under load. */
const LOG_CHECK_MS = 20;
/** While a reader is in the way, retries are this far apart: each may block the event loop for the whole lock timeout. */
const HELD_UP_RETRY_MS = 1_000;
/** A reader that is in the way for longer than this is reported: none of ours ever is. */
const HELD_UP_TOLD_MS = 10_000;
const COMPLAINT_INTERVAL_MS = 10 * 60_000;

/** Figures of the log, for operators. */
export interface LogFigures {
  /** The size of the log's file. */
  logBytes: number;
  /** For how long a reader has kept the log from being copied, or from starting over; 0 if none does. */
  heldUpMs: number;
}

/** Marks the beginnings of logs. */
export interface LogStarts {
  /** To be read before a checkpoint: commits of other processes change it. */
  version: () => number | undefined;
  /**
   * To be called when the file has absorbed the whole log. If nobody else has committed since `asOf`, this write is the first of
   * the next log.
   */
  mark: (asOf: number | undefined) => void;
}

export interface CheckpointOptions {
  path: string;
  log: Log;
  /** Whether this process keeps the log short at its end, as the one that holds the serve lock and writes. */
  keepsLog: boolean;
  /** Marks where logs begin, so that a log beside a file that it does not continue can be detected later. */
  starts?: LogStarts | null;
  monotonicMs: () => number;
}

/**
 * Copies the log into the database between groups of writes, so that it adds to no request's latency. Another process that reads
 * for long, such as a shell, holds this up: the log then grows, and that process is named in the program's log.
 */
export function createCheckpoints(sqlite: Database.Database, options: CheckpointOptions) {
  const { path, log, keepsLog, starts = null, monotonicMs } = options;
  // SQLite shortens the file to this when the log starts over.
  sqlite.pragma(`journal_size_limit = ${LOG_BYTES_MAX}`);
  // Runs many times a second under load. `pragma()` would compile the statement each time, and a constructor for its rows.
  const readLog = sqlite
    .prepare<[], [busy: number, pages: number, copied: number]>("PRAGMA wal_checkpoint(NOOP)")
    .raw();
  const [passive, restart, truncate] = ["PASSIVE", "RESTART", "TRUNCATE"].map((kind) =>
    sqlite.prepare<[], [busy: number, pages: number, copied: number]>(`PRAGMA wal_checkpoint(${kind})`).raw(),
  );
  let lastCheckMs = 0;
  let lastGroupMs = 0;
  let idleTimer: NodeJS.Timeout | null = null;
  let heldUpTimer: NodeJS.Timeout | null = null;
  /** Whether only the timer checks the log, because every checkpoint is held up. */
  let isWaiting = false;
  let heldUpSinceMs: number | null = null;
  const complaints = createLogThrottle({ intervalMs: COMPLAINT_INTERVAL_MS, monotonicNow: monotonicMs });

  /** To be called after a group of writes. */
  function afterGroup(): void {
    lastGroupMs = performance.now();
    if (lastGroupMs - lastCheckMs >= LOG_CHECK_MS) {
      lastCheckMs = lastGroupMs;
      // After the responses of this group have been handed to their sockets.
      setImmediate(() => copyUnlessWaiting(BUSY_CHECKPOINT_PAGES));
    }
    idleTimer ??= setTimeout(copyIfIdle, IDLE_CHECKPOINT_MS).unref();
  }

  function copyIfIdle(): void {
    const restMs = lastGroupMs + IDLE_CHECKPOINT_MS - performance.now();
    idleTimer = restMs > 0 ? setTimeout(copyIfIdle, restMs).unref() : null;
    if (idleTimer === null) copyUnlessWaiting(IDLE_CHECKPOINT_PAGES);
  }

  function copyUnlessWaiting(pages: number): void {
    if (!isWaiting) copyIfLong(pages);
  }

  /** Copies the log if at least `pages` of it are not copied yet, or if it is too long. */
  function copyIfLong(pages: number): void {
    if (!sqlite.open) return;
    try {
      const [, logPages = 0, copiedPages = 0] = readLog.get() ?? [];
      // The whole length counts: readers that take turns let all of it be copied, and still keep it from starting over.
      const isLong = logPages >= RESTART_CHECKPOINT_PAGES;
      if (!isLong && logPages - copiedPages < pages) {
        if (copiedPages === logPages) onFree();
        return;
      }
      const version = starts?.version();
      const [busy = 0, left = 0, copied = 0] = (isLong ? restart : passive)?.get() ?? [];
      if (busy !== 0 || copied < left) return onHeldUp();
      onFree();
      // SQLite shortens the file with this commit.
      starts?.mark(version);
    } catch (error) {
      // The log stays as it is and nothing is lost; a later checkpoint copies it.
      log.warn("checkpoint_failed", { cause: error });
      isWaiting = true;
      retryLater();
    }
  }

  function onFree(): void {
    if (complaints.forget()) log.info("log_free_again", { log_bytes: figures().logBytes });
    heldUpSinceMs = null;
  }

  function onHeldUp(): void {
    const nowMs = monotonicMs();
    heldUpSinceMs ??= nowMs;
    // A reader that is gone in a moment is not worth a wait.
    isWaiting = nowMs - heldUpSinceMs >= HELD_UP_RETRY_MS;
    retryLater();
    if (nowMs - heldUpSinceMs < HELD_UP_TOLD_MS || !complaints.isDue("held_up")) return;
    const { logBytes, heldUpMs } = figures();
    const readers = readersOf(`${path}-shm`);
    log.warn("log_held_up", {
      file: `${path}-wal`,
      log_bytes: logBytes,
      held_up_seconds: Math.round(heldUpMs / 1_000),
      readers: readers.map(describeReader),
      effect: "the database's log cannot start over: it grows with each write, and takes the room on the disk",
      hint:
        readers.length === 0
          ? "end whatever reads the database for so long, such as a shell or a copy"
          : `end it, or let it end its transaction: kill ${readers.map(({ processId }) => processId).join(" ")}`,
    });
  }

  function retryLater(): void {
    heldUpTimer ??= setTimeout(() => {
      heldUpTimer = null;
      isWaiting = false;
      copyIfLong(1);
    }, HELD_UP_RETRY_MS).unref();
  }

  function figures(): LogFigures {
    const logBytes = statSync(`${path}-wal`, { throwIfNoEntry: false })?.size ?? 0;
    return { logBytes, heldUpMs: heldUpSinceMs === null ? 0 : Math.max(0, monotonicMs() - heldUpSinceMs) };
  }

  /** Ends all checkpoints. */
  function stop(): void {
    for (const timer of [idleTimer, heldUpTimer]) if (timer !== null) clearTimeout(timer);
  }

  /** Copies everything, unless a reader is in the way, and ends all checkpoints. Commands leave that to a running server. */
  function finish(): void {
    stop();
    if (!keepsLog) return;
    try {
      truncate?.get();
    } catch (error) {
      log.warn("checkpoint_failed", { cause: error });
    }
  }

  // After a clean end there is no log, so the next write begins one.
  if (starts !== null && (readLog.get()?.[1] ?? 0) === 0) starts.mark(starts.version());

  return { afterGroup, copy: () => copyUnlessWaiting(1), figures, finish, stop };
}
