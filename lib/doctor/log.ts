import { statSync } from "node:fs";
import { join } from "node:path";
import { LOG_BYTES_MAX } from "../db/checkpoints.ts";
import { DATABASE_FILE } from "../db/db.ts";
import { describeReader, readersOf } from "../db/log_readers.ts";
import type { Report } from "./report.ts";

/** Whether the database's log keeps the size that is promised, and who keeps it from that. */
export function checkLog(report: Report, dataDir: string, serverProcessId: number | null): void {
  const check = "log";
  const path = join(dataDir, DATABASE_FILE);
  const logBytes = statSync(`${path}-wal`, { throwIfNoEntry: false })?.size ?? 0;
  if (logBytes <= LOG_BYTES_MAX) return report.ok(check, `${logBytes} bytes`);
  const readers = readersOf(`${path}-shm`).filter(({ processId }) => processId !== serverProcessId);
  report.problem(check, `the database's log has grown to ${logBytes} bytes, more than ${LOG_BYTES_MAX}`, {
    examples: readers.map((reader) => `${describeReader(reader)} is reading the database`),
    advice:
      readers.length === 0
        ? "something read the database for long, such as a shell or a copy; the file shrinks by itself when a server runs"
        : `end what reads for so long (kill ${readers.map(({ processId }) => processId).join(" ")}): the file then shrinks by itself`,
  });
}
