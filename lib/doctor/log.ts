import { statSync } from "node:fs";
import { join } from "node:path";
import { DATABASE_LOG_FILE, DATABASE_LOG_INDEX_FILE } from "../data_dir/layout.ts";
import { LOG_BYTES_MAX } from "../sqlite/checkpoints.ts";
import { describeReader, readersOf } from "../sqlite/log_readers.ts";
import type { Report } from "./report.ts";

/** Checks that the database's log keeps the promised size, and names the processes that keep it from that. */
export function checkLog(report: Report, dataDir: string, serverProcessId: number | null): void {
  const check = "log";
  const logBytes = statSync(join(dataDir, DATABASE_LOG_FILE), { throwIfNoEntry: false })?.size ?? 0;
  if (logBytes <= LOG_BYTES_MAX) return report.ok(check, `${logBytes} bytes`);
  const readers = readersOf(join(dataDir, DATABASE_LOG_INDEX_FILE)).filter(
    ({ processId }) => processId !== serverProcessId,
  );
  report.problem(check, `the database's log has grown to ${logBytes} bytes, more than ${LOG_BYTES_MAX}`, {
    examples: readers.map((reader) => `${describeReader(reader)} is reading the database`),
    advice:
      readers.length === 0
        ? "something read the database for long, such as a shell or a copy; the file shrinks by itself when a server runs"
        : `end what reads for so long (kill ${readers.map(({ processId }) => processId).join(" ")}): the file then shrinks by itself`,
  });
}
