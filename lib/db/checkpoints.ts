import { statSync } from "node:fs";
import type Database from "better-sqlite3";
import type { Log } from "../log.ts";
import { describeReader, readersOf } from "./log_readers.ts";
import { createLogStarts } from "./log_start.ts";

/** What the log may hold before readers are waited for, so that it starts over: 64 MiB, in pages of 4 KiB. */
const RESTART_CHECKPOINT_PAGES = 16_384;
/** The size that is promised, and that the log's file shrinks to after it had to grow beyond it. */
export const LOG_BYTES_MAX = 64 * 1024 * 1024;
/** Under constant load the log is copied once it holds 32 MiB, between two groups. */
const BUSY_CHECKPOINT_PAGES = 8_192;
/** Idle this long, the log is copied into the database if it holds at least `IDLE_CHECKPOINT_PAGES`. */
const IDLE_CHECKPOINT_MS = 200;
const IDLE_CHECKPOINT_PAGES = 256;
/** How often the length of the log is looked at under load. */
const LOG_LOOK_MS = 20;
/** While a reader is in the way it is tried this often: each try may block the event loop for as long as a lock is waited for. */
const HELD_UP_RETRY_MS = 1_000;
/** A reader that is in the way for longer than this is told: no reader of ours is. */
const HELD_UP_TOLD_MS = 10_000;
const COMPLAINT_INTERVAL_MS = 10 * 60_000;

/** The log, for those who run the service. */
export interface LogFigures {
  /** The size of the log's file. */
  logBytes: number;
  /** For how long a reader has kept the log from being copied, or from starting over; 0 where none does. */
  heldUpMs: number;
}

export interface CheckpointOptions {
  path: string;
  log: Log;
  /** Whether this process keeps the log, as the one that holds the serve lock and writes: then it marks where logs begin. */
  keepsLog: boolean;
  monotonicMs: () => number;
}

/**
 * Copies the log into the database between groups of writes, where it spoils no request's latency. Another process that
 * reads for long, such as a shell, holds this up: then the log grows, and who does it is told.
 */
export function createCheckpoints(sqlite: Database.Database, { path, log, keepsLog, monotonicMs }: CheckpointOptions) {
  // SQLite shortens the file to this when the log starts over.
  sqlite.pragma(`journal_size_limit = ${LOG_BYTES_MAX}`);
  // Asked many times a second under load, where `pragma()` would compile both the statement and a maker of its rows anew.
  const askLog = sqlite.prepare<[], [busy: number, pages: number, copied: number]>("PRAGMA wal_checkpoint(NOOP)").raw();
  const [passive, restart, truncate] = ["PASSIVE", "RESTART", "TRUNCATE"].map((kind) =>
    sqlite.prepare<[], [busy: number, pages: number, copied: number]>(`PRAGMA wal_checkpoint(${kind})`).raw(),
  );
  const starts = keepsLog ? createLogStarts(sqlite) : null;
  let lastLookMs = 0;
  let lastGroupMs = 0;
  let idleTimer: NodeJS.Timeout | null = null;
  let heldUpTimer: NodeJS.Timeout | null = null;
  /** Whether only the timer looks, because each look was in vain. */
  let isWaiting = false;
  let heldUpSinceMs: number | null = null;
  let complainedAtMs: number | null = null;

  /** To be called after a group of writes. */
  function afterGroup(): void {
    lastGroupMs = performance.now();
    if (lastGroupMs - lastLookMs >= LOG_LOOK_MS) {
      lastLookMs = lastGroupMs;
      // After the answers of this group have been handed to their sockets.
      setImmediate(() => lookUnlessWaiting(BUSY_CHECKPOINT_PAGES));
    }
    idleTimer ??= setTimeout(lookIfIdle, IDLE_CHECKPOINT_MS).unref();
  }

  function lookIfIdle(): void {
    const restMs = lastGroupMs + IDLE_CHECKPOINT_MS - performance.now();
    idleTimer = restMs > 0 ? setTimeout(lookIfIdle, restMs).unref() : null;
    if (idleTimer === null) lookUnlessWaiting(IDLE_CHECKPOINT_PAGES);
  }

  function lookUnlessWaiting(pages: number): void {
    if (!isWaiting) look(pages);
  }

  /** Copies the log if it holds so many pages that are not copied yet, or is too long. */
  function look(pages: number): void {
    if (!sqlite.open) return;
    try {
      const [, logPages = 0, copiedPages = 0] = askLog.get() ?? [];
      // By the log's whole length: readers that take turns let all of it be copied and still keep it from starting over.
      const isLong = logPages >= RESTART_CHECKPOINT_PAGES;
      if (!isLong && logPages - copiedPages < pages) {
        if (copiedPages === logPages) onFree();
        return;
      }
      const version = starts?.version();
      const [busy = 0, left = 0, copied = 0] = (isLong ? restart : passive)?.get() ?? [];
      if (busy !== 0 || copied < left) return onHeldUp();
      onFree();
      // Also the commit by which SQLite shortens the file.
      starts?.mark(version);
    } catch (error) {
      // The log stays as it is and nothing is lost; the next look tries again.
      log.warn("checkpoint_failed", { cause: error });
      isWaiting = true;
      lookAgainLater();
    }
  }

  function onFree(): void {
    if (complainedAtMs !== null) log.info("log_free_again", { log_bytes: figures().logBytes });
    heldUpSinceMs = null;
    complainedAtMs = null;
  }

  function onHeldUp(): void {
    const nowMs = monotonicMs();
    heldUpSinceMs ??= nowMs;
    // A reader of a moment is not worth waiting for.
    isWaiting = nowMs - heldUpSinceMs >= HELD_UP_RETRY_MS;
    lookAgainLater();
    const isDue = complainedAtMs === null || nowMs - complainedAtMs >= COMPLAINT_INTERVAL_MS;
    if (nowMs - heldUpSinceMs < HELD_UP_TOLD_MS || !isDue) return;
    complainedAtMs = nowMs;
    const { logBytes, heldUpMs } = figures();
    const readers = readersOf(`${path}-shm`);
    log.warn("log_held_up", {
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

  function lookAgainLater(): void {
    heldUpTimer ??= setTimeout(() => {
      heldUpTimer = null;
      isWaiting = false;
      look(1);
    }, HELD_UP_RETRY_MS).unref();
  }

  function figures(): LogFigures {
    const logBytes = statSync(`${path}-wal`, { throwIfNoEntry: false })?.size ?? 0;
    return { logBytes, heldUpMs: heldUpSinceMs === null ? 0 : Math.max(0, monotonicMs() - heldUpSinceMs) };
  }

  /** Copies everything, as far as nobody is in the way; then no more. Beside a server that is the server's business. */
  function finish(): void {
    for (const timer of [idleTimer, heldUpTimer]) if (timer !== null) clearTimeout(timer);
    if (!keepsLog) return;
    try {
      truncate?.get();
    } catch (error) {
      log.warn("checkpoint_failed", { cause: error });
    }
  }

  // After a clean end there is no log, and what is written now begins one.
  if (starts !== null && (askLog.get()?.[1] ?? 0) === 0) starts.mark(starts.version());

  return { afterGroup, figures, finish };
}
