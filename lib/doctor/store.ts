import type { Removals } from "../core/removals.ts";
import { compareMarker, contestedReason, type MarkerParts, type MarkerVerdict } from "../operations/ledger_marker.ts";
import { WHAT_TO_DO } from "../operations/store_complaints.ts";
import { type ObjectStore, StoreError } from "../store/objects.ts";
import { describePlace } from "../store/place.ts";
import { counted, type Report, type Tally } from "./report.ts";
import { ListingError, type Orphan, type Walk, type WalkOptions, walkStore } from "./walk.ts";

/** Clocks further apart than this make an object's age unknown. */
export const CLOCK_SKEW_MS_MAX = 5 * 60_000;
/** More than this share of the objects is never entered for removal: so many orphans are a mistake of another kind. */
const FIX_PERCENT_MAX = 5;
const OLDER_DATABASE = "the database is older than the store";
/** So many may go whatever their share: in a small store one object is more than a few percent. */
const FIX_OBJECTS_MIN = 10;

/**
 * Whether this is the store that holds the objects, it can be used, and its clock and ours agree. Null where there is
 * nothing to compare; else reasons against a fix.
 */
export async function checkStore(report: Report, objects: ObjectStore, marker: MarkerParts): Promise<string[] | null> {
  const check = "store";
  const reasons: string[] = [];
  try {
    const verdict = await compareMarker(marker);
    if (verdict.kind === "other") {
      report.problem(check, verdict.reason, {
        advice: `${WHAT_TO_DO.other}.\nUntil this is decided no upload is taken, nothing is removed and nothing expires`,
      });
      return null;
    }
    if (verdict.kind === "fresh" && marker.place.kind === "disk") {
      report.note(check, `nothing was ever stored; the next \`stowage serve\` makes ${describePlace(marker.place)}`);
      return null;
    }
    await objects.probe();
    const skewMs = objects.clockSkewMs();
    if (skewMs !== null && Math.abs(skewMs) > CLOCK_SKEW_MS_MAX) {
      report.problem("clock", describeSkew(skewMs), { advice: "set both clocks by NTP (`timedatectl set-ntp true`)" });
      reasons.push("the clocks differ, so that the age of an object is not known");
    }
    if (verdict.kind === "fresh") report.ok("ledger marker", "nothing was ever stored");
    else reasons.push(...reportMarker(report, verdict));
    return reasons;
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    report.problem(check, error.message, { advice: adviceOn(error) });
    return null;
  }
}

/** What the marker says of the database, and of other copies of it. Returns reasons against a fix. */
function reportMarker(
  report: Report,
  verdict: Extract<MarkerVerdict, { kind: "older" | "copied" | "current" }>,
): string[] {
  const check = "ledger marker";
  const contested = verdict.kind === "copied" ? verdict.reason : contestedReason(verdict.marker);
  if (verdict.kind === "older") {
    report.problem(check, `the database is older than the store: ${verdict.reason}`, {
      advice:
        "until this is decided nothing is removed and nothing expires. Restore a newer database if there is one;\n" +
        "`stowage doctor --accept-older-database` shows what would be lost and goes on with this one",
    });
    return [OLDER_DATABASE];
  }
  if (contested !== null) {
    report.problem(check, contested, {
      advice: `until this is decided nothing is removed and nothing expires.\n${WHAT_TO_DO.copied}`,
    });
    return ["another copy of this data directory is in use"];
  }
  report.ok(check, "the database is as new as the store");
  return [];
}

export interface ObjectsCheck extends Pick<WalkOptions, "objects" | "queries" | "installationId" | "graceMs" | "now"> {
  removals: Removals;
  fix: boolean;
  /** Why nothing may be entered for removal, whatever is found. */
  reasonsAgainstFix: readonly string[];
}

/** NO-ORPHAN and NO-GHOST. With `fix` enters orphans in the outbox; an upload's row is never touched. */
export async function checkObjects(report: Report, options: ObjectsCheck): Promise<void> {
  let walk: Walk;
  try {
    walk = await walkStore(options);
  } catch (error) {
    if (!(error instanceof ListingError || error instanceof StoreError)) throw error;
    report.add({
      ...{ check: "NO-ORPHAN", result: "unknown", what: `objects could not be compared: ${error.message}` },
      advice:
        error instanceof StoreError
          ? adviceOn(error)
          : "look for a proxy or a server that changes listings; nothing was concluded from this one",
    });
    return;
  }
  const reasons = [...options.reasonsAgainstFix, ...reasonsIn(walk)];
  reportGhosts(report, walk, { isOlder: options.reasonsAgainstFix.includes(OLDER_DATABASE) });
  await reportOrphans(report, walk, { ...options, reasons });
  if (walk.foreign.count > 0) {
    report.note(
      "store",
      `${counted(walk.foreign.count, "object")} under this installation's prefixes are not Stowage's`,
      {
        ...{ count: walk.foreign.count, examples: walk.foreign.examples },
        advice: "they are left alone; move them elsewhere if you can",
      },
    );
  }
}

/** What in a walk makes its orphans doubtful. */
function reasonsIn({ orphans, objects, entered, confirmed, found }: Walk): string[] {
  const reasons: string[] = [];
  if ((confirmed > 0 && found === 0) || isTooMany(confirmed - found, confirmed)) {
    reasons.push(`${confirmed - found} of ${confirmed} confirmed uploads have no object: is this the right store`);
  }
  // A long outbox must not make many orphans look few.
  const staying = objects - entered.staging.count - entered.final.count;
  if (isTooMany(orphans.count, staying)) {
    reasons.push(`${orphans.count} of ${staying} objects would go, more than ${FIX_PERCENT_MAX} percent`);
  }
  return reasons;
}

function isTooMany(some: number, all: number): boolean {
  return some > FIX_OBJECTS_MIN && some * 100 > all * FIX_PERCENT_MAX;
}

function reportGhosts(report: Report, walk: Walk, { isOlder }: { isOlder: boolean }): void {
  const check = "NO-GHOST";
  const { confirmed, found, ghosts, wrongSize, otherEtag } = walk;
  if (isOlder && ghosts.count > 0) {
    report.problem(check, `${counted(ghosts.count, "confirmed upload")} without an object: most likely deleted since`, {
      count: ghosts.count,
      examples: ghosts.examples,
      advice: "decide first which database goes on (see the ledger marker): a newer one knows what was deleted",
    });
    return;
  }
  if (confirmed > 0 && found === 0) {
    // One finding and no list: it is the store that is wrong, not each upload.
    report.problem(
      check,
      `none of ${counted(confirmed, "confirmed upload")} has its object here: is this the wrong bucket or folder?`,
      {
        count: ghosts.count,
        advice:
          "compare STOWAGE_STORE, STOWAGE_S3_ENDPOINT, STOWAGE_S3_BUCKET and STOWAGE_DATA_DIR (`stowage config`) with what the server uses;\n" +
          "if they are right, the store was emptied: restore its backup",
      },
    );
    return;
  }
  const list = ({ count, examples }: Tally) => ({ count, examples });
  const advice =
    "restore the objects under these keys from the store's backup (in the embedded store's folder the key\n" +
    "final/I/AAAAABBB-…/R is the file final/AAAAA/BBB/AAAAABBB-….R). What cannot be restored is lost:\n" +
    "its upload can be deleted like any other (DELETE /api/v1/uploads/ID), which gives the bytes back";
  if (ghosts.count > 0) {
    report.problem(check, `${counted(ghosts.count, "confirmed upload")} without an object`, {
      ...list(ghosts),
      advice,
    });
  }
  if (wrongSize.count > 0) {
    report.problem(check, `${counted(wrongSize.count, "confirmed upload")} with an object of another size`, {
      ...list(wrongSize),
      advice,
    });
  }
  if (otherEtag.count > 0) {
    report.note(check, `${counted(otherEtag.count, "object")} of the right size with another ETag than was charged`, {
      ...list(otherEtag),
      advice:
        "to be expected after a restore that did not keep times, or a move to another store; else compare them with a backup",
    });
  }
  if (ghosts.count + wrongSize.count === 0)
    report.ok(check, `${counted(confirmed, "confirmed upload")}, each with its object`);
}

async function reportOrphans(
  report: Report,
  walk: Walk,
  { fix, reasons, removals, ...options }: ObjectsCheck & { reasons: readonly string[] },
): Promise<void> {
  const check = "NO-ORPHAN";
  const { orphans, objects } = walk;
  const { count, bytes, examples } = orphans;
  if (count === 0) {
    report.ok(check, `${counted(objects, "object")}, each named or entered for removal, or young (${walk.young})`);
    return;
  }
  const what = `${counted(count, "object")} with ${bytes} bytes that nothing names`;
  if (reasons.length > 0) {
    report.problem(check, what, {
      count,
      examples,
      advice: `nothing is entered for removal, because ${reasons.join("; and ")}`,
    });
    return;
  }
  if (!fix) {
    report.problem(check, what, {
      count,
      examples,
      advice: "`stowage doctor --fix` enters them for removal by the server",
    });
    return;
  }
  let entered = 0;
  async function enter(found: readonly Orphan[]): Promise<void> {
    const nowMs = options.now();
    const results = await Promise.all(found.map((orphan) => removals.enterFound({ ...orphan, nowMs })));
    entered += results.filter(Boolean).length;
  }
  // A second walk rather than a list kept from the first: there may be a million, and each is judged anew.
  await walkStore({ ...options, onOrphans: enter });
  report.add({ check, result: "fixed", what: `${what}; ${entered} entered for removal`, count, examples });
}

/** What an administrator can do about a store that fails as a whole. */
export function adviceOn({ failure, message }: StoreError): string {
  // The message says what to do itself.
  if (message.includes("NODE_EXTRA_CA_CERTS")) return "set it where `stowage serve` is started, then start it again";
  switch (failure) {
    case "bucket_missing":
      return "check STOWAGE_S3_BUCKET; if the bucket is lost, restore it: `stowage serve` makes one only while nothing was stored";
    case "denied":
      return "check the store's keys and what they may do; `stowage doctor storage` tries each right";
    default:
      return "see that the store runs and can be reached from here, then run this again";
  }
}

export function describeSkew(skewMs: number): string {
  const seconds = Math.round(Math.abs(skewMs) / 1_000);
  return `the store's clock is ${seconds} s ${skewMs > 0 ? "ahead of" : "behind"} this machine's`;
}
