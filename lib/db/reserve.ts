import { randomBytes } from "node:crypto";
import { closeSync, openSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import type { Log } from "../log.ts";
import { isThere } from "./access.ts";
import { freeBytesOf } from "./free_space.ts";
import { findServer } from "./serve_lock.ts";
import { OPENING_BYTES } from "./sqlite_errors.ts";

const RESERVE_FILE = "stowage.reserve";
/** Enough to open the database and to delete some thousands of uploads, by which others' room is won back. */
const RESERVE_BYTES = 8 * 1024 * 1024;
/** It is made where at least this much is free: on a disk that is nearly full it would be in the way itself. */
const FREE_BYTES_MIN = 4 * RESERVE_BYTES;
/** How often it is made anew where it is missing. */
const REMAKE_MS = 60_000;

export interface Reserve {
  /** Makes it, and again whenever it is missing and there is room. Only for the holder of the serve lock. */
  keep: () => void;
  /** Gives the room to the database, if there is any left to give. */
  release: () => void;
  close: () => void;
}

/**
 * Keeps some room on the disk of the data directory that only the database gets, when the disk is full: without it SQLite
 * could not even be opened, and so nothing be deleted. If the disk is full now, the room is given at once: taking the serve
 * lock needs some too. A server that runs keeps its own: who comes second gets no lock anyway.
 */
export function createReserve(dataDir: string, log: Log): Reserve {
  const path = join(dataDir, RESERVE_FILE);
  let remakeTimer: NodeJS.Timeout | undefined;

  function make(): void {
    try {
      if (isThere(path) || freeBytesOf(dataDir) < FREE_BYTES_MIN) return;
      writeReserve(path);
    } catch (error) {
      log.warn("reserve_not_made", { path, error });
    }
  }

  function release(): void {
    try {
      if (!isThere(path)) return;
      rmSync(path, { force: true });
      log.warn("reserve_released", {
        ...{ path, bytes: RESERVE_BYTES },
        why: "the disk is full",
        effect: "reads and deletes go on for a while; the reserve is made anew once there is room",
        hint: "make room on this disk",
      });
    } catch (error) {
      log.warn("reserve_not_released", { path, error });
    }
  }

  function keep(): void {
    make();
    remakeTimer = setInterval(make, REMAKE_MS).unref();
  }

  if (isFull(dataDir) && findServer(dataDir) === null) release();
  return { keep, release, close: () => clearInterval(remakeTimer) };
}

function isFull(dataDir: string): boolean {
  try {
    return freeBytesOf(dataDir) < OPENING_BYTES;
  } catch {
    return false;
  }
}

/** Whole or not at all. Random, because some file systems keep zeros in no room. */
function writeReserve(path: string): void {
  const chunk = randomBytes(1024 * 1024);
  const file = openSync(path, "wx", 0o600);
  try {
    for (let left = RESERVE_BYTES; left > 0; ) left -= writeSync(file, chunk, 0, Math.min(left, chunk.length));
  } catch (error) {
    rmSync(path, { force: true });
    throw error;
  } finally {
    closeSync(file);
  }
}
