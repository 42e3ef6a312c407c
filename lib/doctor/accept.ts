import { markerKey } from "../books/object_keys.ts";
import { AppError } from "../errors.ts";
import {
  compareMarker,
  contestedReason,
  type Marker,
  type MarkerVerdict,
  newStoreId,
  parseMarker,
  writeMarker,
} from "../operations/ledger_marker.ts";
import { timestamp } from "../timestamp.ts";
import { type DoctorParts, markerPartsOf } from "./doctor.ts";
import { counted, type Tally } from "./report.ts";
import { type Walk, walkStore } from "./walk.ts";

/** The losses if the service goes on, as far as store and database show. */
export interface Losses {
  /** Objects that this database does not know, of uploads that were created or confirmed after it. */
  unknownObjects: Tally;
  /** Objects that are there and that it would remove: in its time they were leased or their uploads deleted. */
  removedObjects: Tally;
  /** Confirmed uploads whose object is not there, or is another. */
  ghosts: Tally;
  /** Uploads that were pending in its time and would expire at once. */
  expiringUploads: number;
}

/** The decision for a person: whether to go on with this database, or with the given store. */
export type Decision = "older-database" | "store";

export interface Question {
  /** The verdict that stops the service. */
  kind: "older" | "copied" | "other";
  reason: string;
  /** When the ledger was last written; null if it is empty. */
  lastBookedAt: string | null;
  losses: Losses;
}

/**
 * Finds out what there is to decide; null if nothing of that kind stops the service. Throws a `StoreError` or a `ListingError` if the
 * store cannot be read, and `conflict` if it belongs to another installation.
 */
export async function findQuestion(
  parts: DoctorParts,
  decision: Decision,
  now: () => number,
): Promise<Question | null> {
  const { books, objects, installationId } = parts;
  const verdict = await compareMarker(markerPartsOf(parts));
  const stopped = stoppedBy(verdict);
  if (stopped === null || (stopped.kind === "other") !== (decision === "store")) return null;
  // It throws if the bucket or folder is not there: without one nobody can go on.
  checkIsOurs(parseMarker(await objects.readMarker(markerKey(installationId))), installationId);
  // Objects of any age count: an upload of an hour ago would be lost too.
  const graceMs = Number.NEGATIVE_INFINITY;
  const walk = await walkStore({ objects, audit: books.audit, installationId, now, graceMs });
  const last = await books.ledger.findLast();
  return {
    ...stopped,
    lastBookedAt: last === null ? null : timestamp(last.atMs),
    losses: { ...lossesOf(walk), expiringUploads: await books.audit.countExpiring(now()) },
  };
}

/** Nobody may accept another installation's store: its objects would be taken for leftovers. */
function checkIsOurs(marker: Marker | null, installationId: string): void {
  if (marker === null || marker.installationId === installationId) return;
  throw new AppError(
    "conflict",
    `Cannot go on with this store: it holds the objects of the installation "${marker.installationId}", and this database is of "${installationId}"`,
    { hint: "restore the database that belongs to it, or give a folder or bucket of its own to this one" },
  );
}

function stoppedBy(verdict: MarkerVerdict): Pick<Question, "kind" | "reason"> | null {
  if (verdict.kind === "fresh") return null;
  if (verdict.kind !== "current") return { kind: verdict.kind, reason: verdict.reason };
  const reason = contestedReason(verdict.marker);
  return reason === null ? null : { kind: "copied", reason };
}

/** Records the decision: the marker in the given store now agrees with this database, so a running server takes the store. */
export async function acceptAsItIs(parts: DoctorParts, decision: Decision, now: () => number): Promise<void> {
  const { books, objects, installationId, place } = parts;
  const { record, generation } = await books.stores.read();
  const stored = await objects.readMarker(markerKey(installationId));
  const replaced = parseMarker(stored);
  const owner = {
    // An accepted store must differ from any store that it may have been copied from.
    storeId: decision === "store" ? newStoreId() : (replaced?.storeId ?? record?.storeId ?? newStoreId()),
    generation: Math.max(generation, replaced?.generation ?? 0),
    runId: null,
    directory: null,
    isReleased: false,
  };
  const ledgerSeq = await writeMarker({ objects, ledger: books.ledger, installationId }, owner, {
    replaces: stored,
    nowMs: now(),
  });
  const { storeId, runId } = owner;
  await books.stores.recordMarked({ place, storeId, runId, ledgerSeq }, owner.generation, now());
}

/** The question as it is printed for people. */
export function describeQuestion(decision: Decision, { kind, reason, lastBookedAt, losses }: Question): string {
  const { unknownObjects, removedObjects, ghosts, expiringUploads } = losses;
  const booked =
    lastBookedAt === null ? "Nothing was ever booked in it." : `Its ledger was last written at ${lastBookedAt}.`;
  const titles = {
    older: "This database is older than the store",
    copied: "This is not the only database that has used the store",
    other: "This is not the store that holds the objects",
  };
  const gone = `  ${counted(ghosts.count, "confirmed upload")} (${ghosts.bytes} bytes) whose object is`;
  const lines = [
    `${titles[kind]}: ${reason}.`,
    ...(decision === "store" ? [] : [booked]),
    "",
    "If you go on with it:",
    ...(decision === "store" ? [`${gone} not in it: lost, unless you bring them here first`] : []),
    `  ${sized(unknownObjects)} that ${decision === "store" ? "the database" : "it"} does not know. Those of unfinished uploads are removed by the server; the rest`,
    "    stay, belong to no upload, and are entered for removal by `stowage doctor --fix` only",
    `  ${sized(removedObjects)} that are there now and will be removed: ${decision === "store" ? "they are" : "it has them"} entered for removal`,
    ...(decision === "store" ? [] : [`${gone} gone: deleted since, and in the list again`]),
    `  ${counted(expiringUploads, "pending upload")} will expire at once`,
  ];
  return lines.join("\n");
}

function lossesOf({ orphans, entered, ghosts, wrongSize }: Walk): Omit<Losses, "expiringUploads"> {
  return {
    unknownObjects: orphans,
    removedObjects: joined(entered.staging, entered.final),
    ghosts: joined(ghosts, wrongSize),
  };
}

function joined(a: Tally, b: Tally): Tally {
  return { count: a.count + b.count, bytes: a.bytes + b.bytes, examples: [...a.examples, ...b.examples] };
}

function sized({ count, bytes }: Tally): string {
  return `${counted(count, "object")} (${bytes} bytes)`;
}
