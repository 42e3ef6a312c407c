import type { Audit, ConfirmedRow } from "../books/audit.ts";
import { installationPrefix, markerKey, type ObjectPlace, uploadIdOfKey } from "../books/object_keys.ts";
import { eachOf } from "../store/disk/each_of.ts";
import type { ListedObject, ObjectStat, ObjectStore } from "../store/objects.ts";
import { addTo, createTally, type Tally } from "./report.ts";

/** Objects, and rows, that are held at once. */
const BATCH_MAX = 1_000;
/** Suspects that are checked a second time, one by one. If there are more, the whole store is wrong anyway. */
const SECOND_CHECKS_MAX = 1_000;
/** Comes after every id. */
const LAST_ID = "g";

/** An object that no row names, and that is too old for a PUT or a copy that is still under way. */
export interface Orphan {
  objectKey: string;
  uploadId: string;
  sizeBytes: number;
}

/** The objects in the store compared with the rows of the database. */
export interface Walk {
  objects: number;
  bytes: number;
  /** Objects that are entered for removal, by place. */
  entered: { staging: Tally; final: Tally };
  /** NO-ORPHAN. */
  orphans: Tally;
  /** Objects that no row names, but that are young: a PUT or a copy may be under way. */
  young: number;
  /** Objects under our prefixes whose keys do not have the form of ours. */
  foreign: Tally;
  confirmed: number;
  /** Confirmed uploads whose object is there, whatever its size. */
  found: number;
  /** NO-GHOST. */
  ghosts: Tally;
  wrongSize: Tally;
  /** Objects of the right size with another ETag than was charged. */
  otherEtag: Tally;
}

export interface WalkOptions {
  objects: Pick<ObjectStore, "list" | "stat">;
  audit: Pick<Audit, "listConfirmed" | "isNamed" | "isEntered">;
  installationId: string;
  /** An object that no row names is an orphan if it is older than this. */
  graceMs: number;
  now: () => number;
  /** Called with each batch of orphans. */
  onOrphans?: (orphans: readonly Orphan[]) => Promise<void>;
}

/** The listing cannot be relied on, so nothing may be concluded from it. */
export class ListingError extends Error {
  override readonly name = "ListingError";
}

/**
 * Compares the whole store with all confirmed uploads, both in the order of their ids, a batch at a time. Changes that happen
 * meanwhile are not mistaken for faults. Throws a `ListingError` if the listing proves to be incomplete, and the store's own
 * `StoreError`.
 */
export async function walkStore(options: WalkOptions): Promise<Walk> {
  const { objects, audit, installationId, graceMs, now, onOrphans } = options;
  const startedAtMs = now();
  const marker = markerKey(installationId);
  let secondChecks = 0;
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

  async function walkPlace(place: ObjectPlace): Promise<void> {
    const prefix = installationPrefix(place, installationId);
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
      // It belongs to another installation, or the store ignores the prefix.
      if (!objectKey.startsWith(prefix) || objectKey === marker) continue;
      const uploadId = uploadIdOfKey(objectKey);
      if (uploadId === null) {
        addTo(walk.foreign, objectKey, object.sizeBytes);
        continue;
      }
      if (objectKey <= last.objectKey) throw new ListingError("the store does not list its keys in order");
      // The objects of one upload stay in one batch.
      if (batch.length >= BATCH_MAX && uploadId !== last.uploadId) await flush(last.uploadId);
      batch.push({ ...object, uploadId });
      last = { objectKey, uploadId };
      walk.objects++;
      walk.bytes += object.sizeBytes;
    }
    await flush(LAST_ID);
  }

  /** NO-GHOST, for the uploads between two ids. `batch` holds all objects that were listed between them. */
  async function compareRows(batch: readonly ListedOurs[], after: string, through: string): Promise<void> {
    const listed = new Map(batch.map((object) => [object.objectKey, object]));
    for (let from = after; ; ) {
      const rows = await audit.listConfirmed(from, through, BATCH_MAX);
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

  /** Judges uploads whose objects were not listed. They may have been confirmed or deleted after the listing passed them. */
  async function judgeMissing(rows: readonly ConfirmedRow[]): Promise<void> {
    const isNew = ({ confirmedAtMs }: ConfirmedRow): boolean => confirmedAtMs >= startedAtMs;
    const stats = await statAgain(rows.filter((row) => isNew(row) || secondChecks++ < SECOND_CHECKS_MAX));
    for (const row of rows) {
      const stat = stats.get(row.objectKey) ?? null;
      if (stat !== null && !isNew(row)) {
        throw new ListingError(`the store has "${row.objectKey}" and does not list it: its listing ends too early`);
      }
      if (stat !== null) compare(row, stat);
      else if (await audit.isNamed(row.uploadId, row.objectKey)) {
        addTo(walk.ghosts, `${row.uploadId} (${row.objectKey}, ${row.sizeBytes} bytes)`, row.sizeBytes);
      } else walk.confirmed--;
    }
  }

  async function judgeUnnamed(place: ObjectPlace, batch: readonly ListedOurs[]): Promise<void> {
    const orphans: Orphan[] = [];
    const suspects: ListedOurs[] = [];
    const oldBeforeMs = startedAtMs - graceMs;
    for (const object of batch) {
      if (await audit.isNamed(object.uploadId, object.objectKey)) continue;
      if (await audit.isEntered(object.objectKey)) addTo(walk.entered[place], object.objectKey, object.sizeBytes);
      else if (object.modifiedAtMs > oldBeforeMs) walk.young++;
      else suspects.push(object);
    }
    const stats = await statAgain(suspects.filter(() => secondChecks++ < SECOND_CHECKS_MAX));
    for (const { objectKey, uploadId, sizeBytes } of suspects) {
      // Since it was listed, its upload may have been deleted and its removal completed.
      if (stats.get(objectKey) === null) continue;
      addTo(walk.orphans, `${objectKey} (${sizeBytes} bytes)`, sizeBytes);
      orphans.push({ objectKey, uploadId, sizeBytes });
    }
    if (orphans.length > 0) await onOrphans?.(orphans);
  }

  /** Asks the store for single objects; null stands for those that are not there. */
  async function statAgain(suspects: readonly { objectKey: string }[]): Promise<Map<string, ObjectStat | null>> {
    const stats = new Map<string, ObjectStat | null>();
    await eachOf(suspects, async ({ objectKey }) => void stats.set(objectKey, await objects.stat(objectKey)));
    return stats;
  }
}

interface ListedOurs extends ListedObject {
  uploadId: string;
}
