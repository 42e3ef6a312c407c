import { markerKeyOf } from "../operations/ledger_marker.ts";
import { eachOf } from "../store/disk/each_of.ts";
import { uploadIdOf } from "../store/disk/object_paths.ts";
import type { ListedObject, ObjectStat, ObjectStore } from "../store/objects.ts";
import type { ConfirmedRow, DoctorQueries } from "./queries.ts";
import { addTo, createTally, type Tally } from "./report.ts";

/** Objects, and rows, that are held at a time. */
const BATCH_MAX = 1_000;
/** Suspects that are looked at once more, one by one. Beyond that many something is wrong with the whole store anyway. */
const SECOND_LOOKS_MAX = 1_000;
/** Comes after every id. */
const LAST_ID = "g";

/** An object that nothing names, and old enough to be nobody's. */
export interface Orphan {
  objectKey: string;
  uploadId: string;
  sizeBytes: number;
}

/** What the store holds beside what the database says. */
export interface Walk {
  objects: number;
  bytes: number;
  /** Objects that are entered for removal, by place: they are on their way out. */
  entered: { staging: Tally; final: Tally };
  /** NO-ORPHAN. */
  orphans: Tally;
  /** Objects that nothing names yet, or any more: a PUT or a copy may be under way. */
  young: number;
  /** Under our prefixes, and not of the form that ours have. */
  foreign: Tally;
  confirmed: number;
  /** Confirmed uploads whose object is there, of whatever size. */
  found: number;
  /** NO-GHOST. */
  ghosts: Tally;
  wrongSize: Tally;
  /** Of the right size, and with another ETag than was charged. */
  otherEtag: Tally;
}

export interface WalkOptions {
  objects: Pick<ObjectStore, "list" | "stat">;
  queries: DoctorQueries;
  installationId: string;
  /** An object that nothing names is an orphan once it is older than this. */
  graceMs: number;
  now: () => number;
  /** Told of each batch of orphans as they are found. */
  onOrphans?: (orphans: readonly Orphan[]) => Promise<void>;
}

/** The listing cannot be relied on: nothing may be concluded from it. */
export class ListingError extends Error {
  override readonly name = "ListingError";
}

/**
 * Goes through the whole store and all confirmed uploads side by side, both in the order of their ids, a batch at a time.
 * What happens meanwhile beside it is not mistaken for a fault. Rejects with a `ListingError` where the listing shows
 * itself to be incomplete, and with the store's own error.
 */
export async function walkStore(options: WalkOptions): Promise<Walk> {
  const { objects, queries, installationId, graceMs, now, onOrphans } = options;
  const startedAtMs = now();
  const markerKey = markerKeyOf(installationId);
  let secondLooks = 0;
  const walk: Walk = {
    objects: 0,
    bytes: 0,
    entered: { staging: createTally(), final: createTally() },
    orphans: createTally(),
    young: 0,
    foreign: createTally(),
    confirmed: 0,
    found: 0,
    ghosts: createTally(),
    wrongSize: createTally(),
    otherEtag: createTally(),
  };

  await walkPlace("staging");
  await walkPlace("final");
  return walk;

  async function walkPlace(place: "staging" | "final"): Promise<void> {
    const prefix = `${place}/${installationId}/`;
    let batch: ListedOurs[] = [];
    let after = "";
    let last = { objectKey: "", uploadId: "" };

    async function flush(through: string): Promise<void> {
      if (place === "final") await compareRows(batch, after, through);
      await judgeUnnamed(place, batch);
      batch = [];
      after = through;
    }

    for await (const object of objects.list(prefix)) {
      const { objectKey } = object;
      // Not ours to judge: another installation's, or what a store that ignores the prefix adds.
      if (!objectKey.startsWith(prefix) || objectKey === markerKey) continue;
      const uploadId = uploadIdOf(objectKey, installationId);
      if (uploadId === null) {
        addTo(walk.foreign, objectKey, object.sizeBytes);
        continue;
      }
      if (objectKey <= last.objectKey) throw new ListingError("the store does not list its keys in order");
      // Between two ids, never between two objects of one upload.
      if (batch.length >= BATCH_MAX && uploadId !== last.uploadId) await flush(last.uploadId);
      batch.push({ ...object, uploadId });
      last = { objectKey, uploadId };
      walk.objects++;
      walk.bytes += object.sizeBytes;
    }
    await flush(LAST_ID);
  }

  /** NO-GHOST, for the uploads between two ids. `batch` holds all objects that were listed there. */
  async function compareRows(batch: readonly ListedOurs[], after: string, through: string): Promise<void> {
    const listed = new Map(batch.map((object) => [object.objectKey, object]));
    for (let from = after; ; ) {
      const rows = queries.confirmedBetween(from, through, BATCH_MAX);
      const missing: ConfirmedRow[] = [];
      for (const row of rows) {
        walk.confirmed++;
        const object = listed.get(row.objectKey);
        if (object === undefined) missing.push(row);
        else compare(row, object);
      }
      await judgeMissing(missing);
      const end = rows.at(-1);
      if (end === undefined || rows.length < BATCH_MAX) return;
      from = end.uploadId;
    }
  }

  function compare(row: ConfirmedRow, { sizeBytes, etag }: { sizeBytes: number; etag: string }): void {
    walk.found++;
    if (sizeBytes !== row.sizeBytes) {
      addTo(walk.wrongSize, `${row.uploadId} has ${sizeBytes} bytes, ${row.sizeBytes} were charged (${row.objectKey})`);
    } else if (etag !== row.etag) addTo(walk.otherEtag, `${row.uploadId} (${row.objectKey})`);
  }

  /** Uploads whose objects were not listed. They may have been confirmed, or deleted, after their place was passed. */
  async function judgeMissing(rows: readonly ConfirmedRow[]): Promise<void> {
    const isNew = ({ confirmedAtMs }: ConfirmedRow): boolean => confirmedAtMs >= startedAtMs;
    const stats = await lookAgain(rows.filter((row) => isNew(row) || secondLooks++ < SECOND_LOOKS_MAX));
    for (const row of rows) {
      const stat = stats.get(row.objectKey) ?? null;
      if (stat !== null && !isNew(row)) {
        throw new ListingError(`the store has "${row.objectKey}" and does not list it: its listing ends too early`);
      }
      if (stat !== null) compare(row, stat);
      else if (queries.names(row.uploadId, row.objectKey)) {
        addTo(walk.ghosts, `${row.uploadId} (${row.objectKey}, ${row.sizeBytes} bytes)`, row.sizeBytes);
      } else walk.confirmed--;
    }
  }

  async function judgeUnnamed(place: "staging" | "final", batch: readonly ListedOurs[]): Promise<void> {
    const orphans: Orphan[] = [];
    const suspects: ListedOurs[] = [];
    const oldBeforeMs = startedAtMs - graceMs;
    for (const object of batch) {
      if (queries.names(object.uploadId, object.objectKey)) continue;
      if (queries.isEntered(object.objectKey)) addTo(walk.entered[place], object.objectKey, object.sizeBytes);
      else if (object.modifiedAtMs > oldBeforeMs) walk.young++;
      else suspects.push(object);
    }
    const stats = await lookAgain(suspects.filter(() => secondLooks++ < SECOND_LOOKS_MAX));
    for (const { objectKey, uploadId, sizeBytes } of suspects) {
      // Its upload may have been deleted, and its removal settled, since it was listed.
      if (stats.get(objectKey) === null) continue;
      addTo(walk.orphans, `${objectKey} (${sizeBytes} bytes)`, sizeBytes);
      orphans.push({ objectKey, uploadId, sizeBytes });
    }
    if (orphans.length > 0) await onOrphans?.(orphans);
  }

  /** What the store says of single objects now; null for those that are not there. */
  async function lookAgain(suspects: readonly { objectKey: string }[]): Promise<Map<string, ObjectStat | null>> {
    const stats = new Map<string, ObjectStat | null>();
    await eachOf(suspects, async ({ objectKey }) => void stats.set(objectKey, await objects.stat(objectKey)));
    return stats;
  }
}

interface ListedOurs extends ListedObject {
  uploadId: string;
}
