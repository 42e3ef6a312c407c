import {
  inspectSmallFile,
  removeLooseBodies,
  type SmallInspection,
  smallFileBytes,
} from "../store/disk/small_check.ts";
import { INTEGRITY_BYTES_MAX_BESIDE_SERVER } from "./database.ts";
import { isTooMany } from "./objects.ts";
import { addTo, counted, createTally, type Report } from "./report.ts";

const CHECK = "small objects";
/** Bodies that are removed in one transaction, for which a server's writes have to wait. */
const REMOVED_AT_ONCE = 1_000;

export interface SmallObjectsCheck {
  objectsDir: string;
  isServed: boolean;
  /** Removes bytes that belong to no object. */
  fix: boolean;
}

/**
 * Checks the embedded store's file of small objects: its structure, and that each object has its bytes. With `fix` it removes
 * bytes that belong to no object. Throws an `AppError`, or SQLite's error, if the file cannot be read.
 */
export function checkSmallObjects(report: Report, { objectsDir, isServed, fix }: SmallObjectsCheck): void {
  const fileBytes = smallFileBytes(objectsDir);
  // Whether there must be one, and this one, is the marker's concern.
  if (fileBytes === null) return;
  if (isServed && fileBytes > INTEGRITY_BYTES_MAX_BESIDE_SERVER) {
    report.note(
      CHECK,
      `their file was not checked: it has ${fileBytes} bytes, which takes long, and a server is running`,
      { advice: "run `stowage doctor` while the server is stopped, or on a snapshot of the data directory" },
    );
    return;
  }
  const before = report.findings.length;
  const inspection = inspectSmallFile(objectsDir);
  if (inspection === null) return;
  let looseIds: number[];
  try {
    const faults = inspection.findFaults();
    if (faults.length > 0) {
      report.problem(CHECK, `SQLite finds ${counted(faults.length, "fault")} in their file`, {
        count: faults.length,
        examples: faults,
        advice:
          "stop the server, keep a copy of the whole data directory, and restore the newest backup that is sound;\n" +
          "then look for the cause: a failing disk, a network file system, or a file that was copied while it was in use",
      });
      return;
    }
    const isWhole = reportBroken(report, inspection);
    looseIds = reportLoose(report, inspection, { fix, isWhole });
    if (report.findings.length === before && looseIds.length === 0) {
      report.ok(CHECK, `${fileBytes} bytes, sound, each object with its bytes`);
    }
  } finally {
    inspection.close();
  }
  if (looseIds.length > 0) removeLoose(report, objectsDir, looseIds);
}

/** Returns whether every object has its bytes. */
function reportBroken(report: Report, inspection: SmallInspection): boolean {
  const tally = createTally();
  for (const { objectKey, sizeBytes, keptBytes } of inspection.broken()) {
    addTo(tally, `${objectKey}: ${keptBytes ?? "none"} of ${sizeBytes} bytes`);
  }
  if (tally.count === 0) return true;
  report.problem(CHECK, `${counted(tally.count, "object has", "objects have")} lost bytes`, {
    ...{ count: tally.count, examples: tally.examples },
    advice:
      "restore the data directory from the newest backup in which they are whole. What cannot be restored is lost:\n" +
      "its upload can be deleted like any other (DELETE /api/v1/uploads/ID), which gives the bytes back",
  });
  return false;
}

/** Returns the ids of the bodies to remove. */
function reportLoose(
  report: Report,
  inspection: SmallInspection,
  { fix, isWhole }: { fix: boolean; isWhole: boolean },
): number[] {
  const ids: number[] = [];
  let bytes = 0;
  for (const body of inspection.looseBodies()) {
    ids.push(body.id);
    bytes += body.bytes;
  }
  if (ids.length === 0) return ids;
  // They may be the bytes that objects have lost.
  const reasons = isWhole ? [] : ["objects have lost their bytes"];
  if (isTooMany(ids.length, inspection.countBodies())) reasons.push("so many have another cause");
  if (fix && reasons.length === 0) return ids;
  report.problem(CHECK, `${counted(bytes, "byte")} in ${counted(ids.length, "body", "bodies")} of no object`, {
    count: ids.length,
    advice:
      reasons.length === 0
        ? "`stowage doctor --fix` removes them"
        : `nothing is removed, because ${reasons.join(" and ")}: keep a copy of the data directory, and restore a backup`,
  });
  return [];
}

function removeLoose(report: Report, objectsDir: string, ids: readonly number[]): void {
  let removed = 0;
  for (let start = 0; start < ids.length; start += REMOVED_AT_ONCE) {
    removed += removeLooseBodies(objectsDir, ids.slice(start, start + REMOVED_AT_ONCE));
  }
  report.add({
    ...{ check: CHECK, result: "fixed", count: removed },
    what: `${counted(removed, "body", "bodies")} of no object removed`,
  });
}
