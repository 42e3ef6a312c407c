import { linkSync, rmSync } from "node:fs";

/**
 * Does something with a database's file as it is without its log: SQLite finds a log by the file's name, and under another
 * name there is none. Throws what making the link or the work throws.
 */
export function withoutLog<T>(path: string, work: (link: string) => T): T {
  const link = `${path}.alone-${process.pid}`;
  try {
    linkSync(path, link);
    return work(link);
  } finally {
    for (const suffix of ["", "-wal", "-shm"]) rmSync(link + suffix, { force: true });
  }
}
