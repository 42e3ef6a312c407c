import { join } from "node:path";
import type Database from "better-sqlite3";
import { createFreeSpaceCheck } from "../../../data_dir/free_space.ts";
import { DATABASE_FILE } from "../../../data_dir/layout.ts";
import type { Log } from "../../../log.ts";
import { createCheckpoints, type LogFigures } from "../../../sqlite/checkpoints.ts";
import { createFileWatch } from "../../../sqlite/file_watch.ts";
import { createGroupCommit, type GroupCommit } from "../../../sqlite/group_commit.ts";
import { openConnection } from "./connection.ts";
import { createLogStarts } from "./log_start.ts";

export interface Db extends Pick<GroupCommit, "write" | "writeStatement"> {
  /** Prepares a statement once; to be called when a module is made, not for each request. */
  prepare: <Params extends unknown[] | object = unknown[], Row = unknown>(
    sql: string,
  ) => Database.Statement<Params extends unknown[] ? Params : [Params], Row>;
  /**
   * To be called before a write that makes the file grow for good. Throws `insufficient_storage` while too little of the disk
   * is free. Not for deletes and what leads to them: they make room.
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
  /** Bytes that `checkFreeSpace` keeps free on the disk; 0 by default. */
  minFreeBytes?: number;
  /** Brings an older file up to date. Only for the holder of the serve lock. */
  migrate: boolean;
  /** Whether this process holds the serve lock; by default, if it migrates. */
  holdsLock?: boolean | undefined;
  /** Called when the file's state is unknown (an I/O error): the process must end. */
  onFatal: (error: unknown) => void;
  /** Called when a write finds the disk full, so that room kept for this case can be given up. */
  onFull?: (() => void) | undefined;
  /** Called after every group: how many writes it had, and how long its COMMIT took, or null if the whole group failed. */
  onGroup?: ((group: { writes: number; commitMs: number | null }) => void) | undefined;
  /** A clock that only goes forward; says how long a write has waited. */
  monotonicMs?: () => number;
}

/**
 * Opens the database of a data directory.
 *
 * Writes are grouped: all that arrive in one turn of the event loop share one transaction and one fsync. Throws an
 * `AppError` if the file cannot be used, is damaged, or is newer than the program; without `migrate`, also if it is older or
 * missing.
 */
export function openDb(options: DbOptions): Db {
  const { dataDir, log, minFreeBytes = 0, migrate, holdsLock = migrate, onFatal } = options;
  const { onGroup, onFull, monotonicMs = () => performance.now() } = options;
  const path = join(dataDir, DATABASE_FILE);
  const sqlite = openConnection({ path, dataDir, log, migrate, holdsLock });
  const checkpoints = createCheckpoints(sqlite, {
    ...{ path, log, keepsLog: migrate, monotonicMs },
    starts: migrate ? createLogStarts(sqlite) : null,
  });
  const checkInPlace = createFileWatch(path);

  const commits = createGroupCommit(sqlite, {
    ...{ log, checkInPlace, afterGroup: checkpoints.afterGroup, onFatal, onFull, onGroup, monotonicMs },
  });

  async function close(): Promise<void> {
    await commits.finish();
    if (!sqlite.open) return;
    checkpoints.finish();
    sqlite.close();
  }

  return {
    prepare: (sql) => sqlite.prepare(sql),
    write: commits.write,
    writeStatement: commits.writeStatement,
    checkFreeSpace: createFreeSpaceCheck(dataDir, minFreeBytes, log),
    logFigures: checkpoints.figures,
    close,
  };
}
