import { readFileSync, readlinkSync, statSync } from "node:fs";
import { basename } from "node:path";

/** Where SQLite's readers lock the index of a log (`-shm`): bytes 123 to 127, one for each place in the log. */
const READ_LOCK_FIRST = 123;
const READ_LOCK_LAST = 127;

/** A process that reads a database. */
export interface LogReader {
  processId: number;
  /** The name of its program; empty where the system does not tell. */
  program: string;
}

/** The other processes that are reading from a log, as far as the system tells: only Linux does. */
export function readersOf(logIndexPath: string): LogReader[] {
  const inode = statSync(logIndexPath, { throwIfNoEntry: false })?.ino;
  const locks = textOf("/proc/locks");
  if (inode === undefined || locks === null) return [];
  const processIds = new Set<number>();
  for (const line of locks.split("\n")) {
    // 1: POSIX  ADVISORY  READ  1234 08:01:131 124 124
    const [, kind, , access, processId, file = "", first, last] = line.trim().split(/\s+/);
    if (kind !== "POSIX" || access !== "READ" || file.split(":")[2] !== String(inode)) continue;
    // All bytes beyond the readers' belong to the connection itself.
    if (Number(first) < READ_LOCK_FIRST || Number(last) > READ_LOCK_LAST) continue;
    processIds.add(Number(processId));
  }
  processIds.delete(process.pid);
  return [...processIds]
    .filter((processId) => processId > 0)
    .map((processId) => ({ processId, program: programOf(processId) }));
}

/** "process 12 (sqlite3)". */
export function describeReader({ processId, program }: LogReader): string {
  return `process ${processId}${program === "" ? "" : ` (${program})`}`;
}

/** The file of a program says more than the name of its main thread, and only its owner and root may ask for it. */
function programOf(processId: number): string {
  try {
    return basename(readlinkSync(`/proc/${processId}/exe`));
  } catch {
    return textOf(`/proc/${processId}/comm`)?.trim() ?? "";
  }
}

function textOf(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}
