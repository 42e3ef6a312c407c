import { statSync } from "node:fs";
import { DatabaseMoved } from "./sqlite_errors.ts";

/** By default the files are checked at most this often: for so long, writes may go to a file that was just moved. */
const CHECK_INTERVAL_MS = 1_000;

/**
 * Returns a check that the files at the database's paths are still those that this process has open. SQLite goes on with a file
 * that was moved, removed or replaced, and everything written to it would be gone at the next start. The check throws
 * `DatabaseMoved` until they are back. A result is kept for `keptMs`.
 */
export function createFileWatch(path: string, { keptMs = CHECK_INTERVAL_MS } = {}): () => void {
  // The log and its index are there as long as a connection is open.
  const opened = ["", "-wal", "-shm"].map((suffix) => ({ suffix, id: idOf(path + suffix) }));
  let checkedAtMs = performance.now();
  let isGone = false;

  return () => {
    const nowMs = performance.now();
    if (nowMs - checkedAtMs >= keptMs) {
      checkedAtMs = nowMs;
      isGone = opened.some(({ suffix, id }) => id !== idOf(path + suffix));
    }
    if (!isGone) return;
    throw new DatabaseMoved(
      "its file, or the log beside it, was moved, removed or replaced while the service was running",
    );
  };
}

function idOf(path: string): string {
  try {
    const found = statSync(path, { throwIfNoEntry: false });
    return found === undefined ? "none" : `${found.dev}:${found.ino}`;
  } catch (error) {
    return error instanceof Error && "code" in error ? String(error.code) : "unknown";
  }
}
