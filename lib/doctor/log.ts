import { statSync } from "node:fs";
import { join } from "node:path";
import {
  DATABASE_LOG_FILE,
  DATABASE_LOG_INDEX_FILE,
  SMALL_OBJECTS_LOG_FILE,
  SMALL_OBJECTS_LOG_INDEX_FILE,
} from "../data_dir/layout.ts";
import { LOG_BYTES_MAX } from "../sqlite/checkpoints.ts";
import { describeReader, readersOf } from "../sqlite/log_readers.ts";
import type { Report } from "./report.ts";

/** The logs that SQLite keeps, and the indexes by which their readers are found, as paths in the data directory. */
const LOGS = [
  { name: "the database's log", of: "the database", file: DATABASE_LOG_FILE, index: DATABASE_LOG_INDEX_FILE },
  {
    ...{ name: "the log of the file of small objects", of: "the file of small objects" },
    ...{ file: SMALL_OBJECTS_LOG_FILE, index: SMALL_OBJECTS_LOG_INDEX_FILE },
  },
];

/** Checks that the logs keep the promised size, and names the processes that keep them from that. */
export function checkLogs(report: Report, dataDir: string, serverProcessId: number | null): void {
  const check = "log";
  const sizes = LOGS.map(({ file }) => statSync(join(dataDir, file), { throwIfNoEntry: false })?.size ?? 0);
  if (sizes.every((bytes) => bytes <= LOG_BYTES_MAX)) {
    return report.ok(check, `${sizes.reduce((sum, bytes) => sum + bytes)} bytes`);
  }
  for (const [i, log] of LOGS.entries()) {
    const logBytes = sizes[i] ?? 0;
    if (logBytes > LOG_BYTES_MAX) reportLong(report, { ...log, logBytes, dataDir, serverProcessId });
  }
}

interface LongLog {
  name: string;
  of: string;
  index: string;
  logBytes: number;
  dataDir: string;
  serverProcessId: number | null;
}

function reportLong(report: Report, { name, of, index, logBytes, dataDir, serverProcessId }: LongLog): void {
  const readers = readersOf(join(dataDir, index)).filter(({ processId }) => processId !== serverProcessId);
  report.problem("log", `${name} has grown to ${logBytes} bytes, more than ${LOG_BYTES_MAX}`, {
    examples: readers.map((reader) => `${describeReader(reader)} is reading ${of}`),
    advice:
      readers.length === 0
        ? "something read the file for long, such as a shell or a copy; the file shrinks by itself when a server runs"
        : `end what reads for so long (kill ${readers.map(({ processId }) => processId).join(" ")}): the file then shrinks by itself`,
  });
}
