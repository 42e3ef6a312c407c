import type { Removals } from "../books/removals.ts";
import type { StorePlace } from "../books/stores.ts";
import { SMALL_OBJECTS_FILE } from "../data_dir/layout.ts";
import { compareMarker, contestedReason, type MarkerParts, type MarkerVerdict } from "../operations/ledger_marker.ts";
import { WHAT_TO_DO } from "../operations/store_complaints.ts";
import { SMALL_BYTES_MAX } from "../store/disk/small_objects.ts";
import { type ObjectStore, StoreError } from "../store/objects.ts";
import { describePlace } from "../store/place.ts";
import { counted, type Report, type Tally } from "./report.ts";
import { ListingError, type Orphan, type Walk, type WalkOptions, walkStore } from "./walk.ts";

/** If the clocks differ by more than this, the age of an object is unknown. */
export const CLOCK_SKEW_MS_MAX = 5 * 60_000;
/** A larger share of the objects is never entered for removal: so many orphans have another cause. */
const FIX_PERCENT_MAX = 5;
const OLDER_DATABASE = "the database is older than the store";
/** This many may be entered whatever their share: in a small store one object is more than a few percent. */
const FIX_OBJECTS_MIN = 10;

/**
 * Checks that this is the store that holds the objects, that it can be used, and that its clock agrees with ours. Resolves
 * with reasons against a fix, or with null if there is nothing to compare.
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
      reasons.push("the clocks differ, so the age of an object is not known");
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

/** Reports what the marker says about the database and about other copies of it. Returns reasons against a fix. */
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

export interface ObjectsCheck extends Pick<WalkOptions, "objects" | "audit" | "installationId" | "graceMs" | "now"> {
  removals: Removals;
  /** The store that the settings name. */
  place: StorePlace;
  fix: boolean;
  /** Why nothing may be entered for removal, whatever the comparison finds. */
  reasonsAgainstFix: readonly string[];
}

/** NO-ORPHAN and NO-GHOST. With `fix` it enters orphans in the outbox; it never touches an upload's row. */
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
  reportGhosts(report, walk, {
    isOlder: options.reasonsAgainstFix.includes(OLDER_DATABASE),
    place: options.place,
  });
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

/** Why the orphans that a walk has found are doubtful. */
function reasonsIn({ orphans, objects, entered, confirmed, found }: Walk): string[] {
  const reasons: string[] = [];
  if ((confirmed > 0 && found === 0) || isTooMany(confirmed - found, confirmed)) {
    reasons.push(`${confirmed - found} of ${confirmed} confirmed uploads have no object: is this the right store`);
  }
  // A long outbox must not make many orphans look like few.
  const staying = objects - entered.staging.count - entered.final.count;
  if (isTooMany(orphans.count, staying)) {
    reasons.push(`${orphans.count} of ${staying} objects would go, more than ${FIX_PERCENT_MAX} percent`);
  }
  return reasons;
}

/** Whether so many have another cause than the one that a repair is for. */
export function isTooMany(some: number, all: number): boolean {
  return some > FIX_OBJECTS_MIN && some * 100 > all * FIX_PERCENT_MAX;
}

/** How objects that are missing are brought back. */
const RESTORE = {
  disk: `restore the objects under these keys from a backup. Those of up to ${SMALL_BYTES_MAX} bytes lie in objects/${SMALL_OBJECTS_FILE},
which can only be restored with the rest of the data directory. A larger one is a file: the key
final/I/AAAAABBB-…/R is objects/final/AAAAA/BBB/AAAAABBB-….R; copy it back with its time (cp -p).`,
  s3: "restore the objects under these keys from the bucket's backup.",
} as const satisfies Record<StorePlace["kind"], string>;

function reportGhosts(report: Report, walk: Walk, { isOlder, place }: { isOlder: boolean; place: StorePlace }): void {
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
    // One finding without a list: the store is wrong, not each upload.
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
  const advice = `${RESTORE[place.kind]} What cannot be restored is lost:
its upload can be deleted like any other (DELETE /api/v1/uploads/ID), which gives the bytes back`;
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
  const what = `${counted(count, "orphaned object")} (${counted(bytes, "byte")})`;
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
  async function enter(batch: readonly Orphan[]): Promise<void> {
    const nowMs = options.now();
    const results = await Promise.all(batch.map((orphan) => removals.enterFound({ ...orphan, nowMs })));
    entered += results.filter(Boolean).length;
  }
  // A second walk instead of a list from the first: there may be a million orphans, and each is judged anew.
  await walkStore({ ...options, onOrphans: enter });
  report.add({ check, result: "fixed", what: `${what}; ${entered} entered for removal`, count, examples });
}

/** Advice for a store that fails as a whole. */
export function adviceOn({ failure, message, hint }: StoreError): string {
  if (hint !== null) return hint;
  // The message itself says what to do.
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
