import { statSync } from "node:fs";
import { DatabaseMoved } from "./sqlite_errors.ts";

/** The files are looked at once in this time at most: so long writes may go to a file that was just moved. */
const KEPT_MS = 1_000;

/**
 * Makes the check that the files that this process has open are still those at their paths. SQLite goes on with a file that
 * was moved, removed or replaced, and whatever is written to it would be gone at the next start. The check throws
 * `DatabaseMoved` until they are back.
 */
export function createFileWatch(path: string): () => void {
  // The log and its index are there as long as a connection is open.
  const opened = ["", "-wal", "-shm"].map((suffix) => ({ suffix, id: idOf(path + suffix) }));
  let lookedAtMs = performance.now();
  let isGone = false;

  return () => {
    const nowMs = performance.now();
    if (nowMs - lookedAtMs >= KEPT_MS) {
      lookedAtMs = nowMs;
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
