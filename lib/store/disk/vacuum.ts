import type Database from "better-sqlite3";
import type { Log } from "../../log.ts";
import { isSqliteError } from "../../sqlite/sqlite_errors.ts";

/** Nothing is given back while writes come: they would wait, and may need the room themselves. */
const IDLE_MS = 1_000;
/** Free pages that stay in the file: 1 MiB. */
const FREE_PAGES_KEPT = 256;
/** Pages in one step, which is a transaction: 1 MiB, a few milliseconds. */
const STEP_PAGES = 256;
const STEP_PAUSE_MS = 20;

/** Gives free pages of a file back to the disk, in idle moments and in small steps. */
export function createVacuum(sqlite: Database.Database, { onEnd, log }: { onEnd: () => void; log: Log }) {
  const countFree = sqlite.prepare<[], number>("PRAGMA freelist_count").pluck();
  let lastGroupMs = 0;
  let timer: NodeJS.Timeout | null = null;
  let hasVacuumed = false;

  function waitMs(ms: number): void {
    timer = setTimeout(step, ms).unref();
  }

  function step(): void {
    timer = null;
    if (!sqlite.open) return;
    const restMs = lastGroupMs + IDLE_MS - performance.now();
    if (restMs > 0) return waitMs(restMs);
    try {
      if ((countFree.get() ?? 0) <= FREE_PAGES_KEPT) {
        // The file gets shorter only when the log that says so is copied.
        if (hasVacuumed) onEnd();
        hasVacuumed = false;
        return;
      }
      // Not a prepared statement: of that the driver makes the first step only, which is one page.
      sqlite.exec(`PRAGMA incremental_vacuum(${STEP_PAGES})`);
      hasVacuumed = true;
      waitMs(STEP_PAUSE_MS);
    } catch (error) {
      // Another process reads or writes, for a moment as a rule.
      if (isSqliteError(error, "SQLITE_BUSY") || isSqliteError(error, "SQLITE_LOCKED")) return waitMs(IDLE_MS);
      // The room stays in the file, for the objects to come. The next idle moment after a write tries again.
      log.warn("room_not_given_back", { error });
    }
  }

  return {
    /** To be called after each group of writes. */
    afterGroup(): void {
      lastGroupMs = performance.now();
      if (timer === null) waitMs(IDLE_MS);
    },
    stop(): void {
      if (timer !== null) clearTimeout(timer);
    },
  };
}
