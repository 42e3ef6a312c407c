import { AppError } from "../errors.ts";
import {
  compareMarker,
  contestedReason,
  type Marker,
  type MarkerVerdict,
  markerIn,
  markerKeyOf,
  newStoreId,
  writeMarker,
} from "../operations/ledger_marker.ts";
import { timestamp } from "../timestamp.ts";
import { type DoctorParts, markerPartsOf } from "./doctor.ts";
import { createDoctorQueries } from "./queries.ts";
import { counted, type Tally } from "./report.ts";
import { type Walk, walkStore } from "./walk.ts";

/** What going on costs, as far as store and database tell. */
export interface Losses {
  /** Objects that this database does not know: uploads that were begun or confirmed after it. */
  unknownObjects: Tally;
  /** Objects that are there and that it would remove: entered, in its time, as leases or as deleted. */
  removedObjects: Tally;
  /** Confirmed uploads whose object is not there, or another. */
  ghosts: Tally;
  /** Uploads that were pending in its time and would expire at once. */
  expiringUploads: number;
}

/** What a person has to decide: to go on with this database, or with the store given. */
export type Decision = "older-database" | "store";

export interface Question {
  /** What stops it, and why. */
  kind: "older" | "copied" | "other";
  reason: string;
  /** When the ledger was last written; null where it is empty. */
  lastBookedAt: string | null;
  losses: Losses;
}

/**
 * What there is to decide, or null where nothing of that kind stops anything. Rejects with the `StoreError`, or the
 * `ListingError`, where the store cannot tell.
 */
export async function findQuestion(
  parts: DoctorParts,
  decision: Decision,
  now: () => number,
): Promise<Question | null> {
  const { core, objects, installationId } = parts;
  const verdict = await compareMarker(markerPartsOf(parts));
  const stopped = stoppedBy(verdict);
  if (stopped === null || (stopped.kind === "other") !== (decision === "store")) return null;
  // A bucket or folder that is not there has no objects, and cannot be gone on with either: this says so.
  checkIsOurs(markerIn(await objects.readMarker(markerKeyOf(installationId))), installationId);
  const queries = createDoctorQueries(core.db);
  // Of whatever age: an upload of an hour ago counts too.
  const walk = await walkStore({ objects, queries, installationId, now, graceMs: Number.NEGATIVE_INFINITY });
  const last = core.ledger.last();
  return {
    ...stopped,
    lastBookedAt: last === null ? null : timestamp(last.atMs),
    losses: { ...lossesOf(walk), expiringUploads: queries.expiring(now()) },
  };
}

/** Another installation's store is nobody's to accept: what lies in it would be taken for leftovers. */
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

/**
 * Records the decision: from now on the marker says what this database says, in the store given. A running server takes
 * the store then.
 */
export async function acceptAsItIs(parts: DoctorParts, decision: Decision, now: () => number): Promise<void> {
  const { core, objects, installationId, place } = parts;
  const { record, generation } = core.stores.read();
  const stored = await objects.readMarker(markerKeyOf(installationId));
  const replaced = markerIn(stored);
  const owner = {
    // A store that was accepted is another one than any from which it may have been copied.
    storeId: decision === "store" ? newStoreId() : (replaced?.storeId ?? record?.storeId ?? newStoreId()),
    generation: Math.max(generation, replaced?.generation ?? 0),
    runId: null,
    directory: null,
    isReleased: false,
  };
  const ledgerSeq = await writeMarker({ objects, ledger: core.ledger, installationId }, owner, {
    replaces: stored,
    nowMs: now(),
  });
  const { storeId, runId } = owner;
  await core.stores.noteMarked({ place, storeId, runId, ledgerSeq }, owner.generation, now());
}

/** What there is to decide, for people. */
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
