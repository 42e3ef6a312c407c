import { compareMarker, type MarkerVerdict, writeMarker } from "../operations/ledger_marker.ts";
import { timestamp } from "../timestamp.ts";
import type { DoctorParts } from "./doctor.ts";
import { createDoctorQueries } from "./queries.ts";
import { counted, type Tally } from "./report.ts";
import { type Walk, walkStore } from "./walk.ts";

/** What going on with an older database costs, as far as store and database tell. */
export interface Losses {
  /** Objects that this database does not know: uploads that were begun or confirmed after it. */
  unknownObjects: Tally;
  /** Objects that are there and that it would remove: entered, in its time, as leases or as deleted. */
  removedObjects: Tally;
  /** Confirmed uploads whose object is gone or another: deleted after it. */
  ghosts: Tally;
  /** Uploads that were pending in its time and would expire at once. */
  expiringUploads: number;
}

export interface OlderDatabase {
  /** Why the database counts as older. */
  reason: string;
  /** When its ledger was last written; null where it is empty. */
  lastBookedAt: string | null;
  losses: Losses;
}

/**
 * What there is to decide, or null where the database is not older than the store. Rejects with the `StoreError`, or the
 * `ListingError`, where the store cannot tell.
 */
export async function findLosses(
  { core, objects, installationId }: DoctorParts,
  now: () => number,
): Promise<OlderDatabase | null> {
  const { ledger, db } = core;
  const verdict = await compareMarker({ objects, ledger, installationId });
  if (!isOlder(verdict)) return null;
  const queries = createDoctorQueries(db);
  // Of whatever age: an upload of an hour ago counts too.
  const walk = await walkStore({ objects, queries, installationId, now, graceMs: Number.NEGATIVE_INFINITY });
  const last = ledger.last();
  return {
    reason: verdict.reason,
    lastBookedAt: last === null ? null : timestamp(last.atMs),
    losses: { ...lossesOf(walk), expiringUploads: queries.expiring(now()) },
  };
}

/** Records the decision: the marker says from now on what this database says, and the cleaner goes on. */
export async function acceptDatabase({ core, objects, installationId }: DoctorParts, now: () => number): Promise<void> {
  await writeMarker({ objects, ledger: core.ledger, installationId }, now());
}

/** What there is to decide, for people. */
export function describeLosses({ reason, lastBookedAt, losses }: OlderDatabase): string {
  const { unknownObjects, removedObjects, ghosts, expiringUploads } = losses;
  const lines = [
    `This database is older than the store: ${reason}.`,
    lastBookedAt === null ? "Nothing was ever booked in it." : `Its ledger was last written at ${lastBookedAt}.`,
    "",
    "If you go on with it:",
    `  ${sized(unknownObjects)} that it does not know. Those of unfinished uploads are removed by the server; the rest`,
    "    stay, belong to no upload, and are entered for removal by `stowage doctor --fix` only",
    `  ${sized(removedObjects)} that are there now and will be removed: it has them entered for removal`,
    `  ${counted(ghosts.count, "confirmed upload")} whose object is gone: deleted since, and in the list again`,
    `  ${counted(expiringUploads, "pending upload")} will expire at once`,
  ];
  return lines.join("\n");
}

function isOlder(verdict: MarkerVerdict): verdict is Extract<MarkerVerdict, { reason: string }> {
  return verdict.kind === "older" || verdict.kind === "foreign";
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
