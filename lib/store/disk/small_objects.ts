import { sealedKeyOf, stagingKeyOfSealed } from "../../books/object_keys.ts";
import { noPendingUpload, type Staging } from "../../books/staging.ts";
import { isSqliteError, whyUnusable } from "../../sqlite/sqlite_errors.ts";
import { type ListedObject, type ObjectStat, type Sealing, StoreError } from "../objects.ts";
import { noSpace } from "./file_errors.ts";
import { absent } from "./object_files.ts";
import type { SmallFileOptions } from "./small_file.ts";
import { createSmallPlace, type SmallPlace } from "./small_place.ts";
import type { OpenRows, Row } from "./small_rows.ts";
import { statOf } from "./stamps.ts";

/**
 * Up to this size an object is a row in the file of small objects; a larger one is a file of its own. Measured with whole
 * lives, 32 clients, on a machine with other work, in ms of CPU a life as rows and as files: 1.4 and 2.8 at 1 KiB, 2.0 and
 * 2.6 at 16 KiB, 2.4 and 3.4 at 64 KiB. Each byte of a row is written twice, to the log and to the file, and in memory until
 * it is committed: the gain shrinks with the size.
 */
export const SMALL_BYTES_MAX = 64 * 1024;

/** Rows of a listing that are read at once. */
const PAGE_ROWS = 1_000;

/**
 * Objects that are removed in one transaction, during which nobody else gets a turn. Measured with bodies of 64 KiB, on a
 * machine with other work: 4 ms for 128, 26 ms for 500, 44 ms for 1,000; without the commit, which takes 2 to 20 ms.
 */
const REMOVED_AT_ONCE = 128;

/** How long a sealed object keeps its staging key: many are renamed in one write, and those that are deleted soon never. */
const RENAME_AFTER_MS = 200;

export interface SmallObject extends ObjectStat {
  bytes: Buffer;
}

/** The result of removing one key. */
export interface RemovedRow {
  /** A file may lie under the same key: it has to go too. */
  fileBeside: boolean;
}

/**
 * The small objects of the embedded store, as rows in a file of SQLite's own. A row counts before any file under the same
 * key. Everything that is reported as done survives a power loss. Before the file was made there is no small object.
 *
 * An object that a confirm has sealed keeps its staging key until it is renamed, a moment later or, after a crash, much
 * later. From the commit of the confirm on it is found and listed under its final key only.
 */
export interface SmallObjects extends Sealing, Pick<SmallPlace, "prepare" | "probe" | "isLost" | "part"> {
  stat: (objectKey: string) => ObjectStat | null;
  read: (objectKey: string) => SmallObject | null;
  /**
   * Stores an object, in the place of one under the same key. Resolves with whether a file may lie under the key by now.
   * Throws `not_found` if no pending upload names the key at the moment of the write: a removal that is asked for when the
   * upload is gone finds the row.
   */
  put: (
    objectKey: string,
    bytes: Buffer,
    options: { stampUs: number; hasFile: () => boolean },
  ) => Promise<{ fileBeside: boolean }>;
  /** To be called before a file is put under a key: a row under it is then marked. False if there is none. */
  noteFile: (objectKey: string) => Promise<boolean>;
  /** Removes the row under a key whose place a file takes. Throws `not_found` if no pending upload names the key by then. */
  replaceByFile: (objectKey: string) => Promise<void>;
  /** Removes the rows under these keys, and resolves with those that there were. */
  remove: (objectKeys: readonly string[]) => Promise<Map<string, RemovedRow>>;
  /**
   * Copies the object to another key, if it is the one that is meant. Null if there is none. Rejects with `changed`, and with
   * `insufficient_storage` if the disk has no room for the copy.
   */
  promote: (stagingKey: string, finalKey: string, source: ObjectStat) => Promise<ObjectStat | null>;
  /** In the order of the keys' bytes. */
  list: (prefix: string) => Iterable<ListedObject>;
  close: () => Promise<void>;
}

export interface SmallObjectsOptions extends SmallFileOptions {
  staging: Pick<Staging, "checkPending" | "statusOf">;
  /** Promises room on the disk for a copy: see `DiskSpace.hold`. */
  holdRoom: (bytes: number) => () => void;
}

export function createSmallObjects(options: SmallObjectsOptions): SmallObjects {
  const { staging, holdRoom, log } = options;
  const toRename = new Set<string>();
  let renaming: NodeJS.Timeout | null = null;
  const place = createSmallPlace(options);
  const { rows } = place;

  async function inFile<T>(work: (rows: OpenRows) => Promise<T>, otherwise: T): Promise<T> {
    const open = rows();
    return open === null ? otherwise : await work(open);
  }

  /** Whether a confirmed upload names the object under this staging key by its final key. */
  function isSealed(stagingKey: string): boolean {
    return staging.statusOf(sealedKeyOf(stagingKey)) === "uploaded";
  }

  /** The result of `find` for a key, or for the staging key that a sealed object still has. */
  function ofObject<T>(objectKey: string, find: (heldKey: string) => T | undefined): T | undefined {
    const found = find(objectKey);
    if (found !== undefined) return found;
    const stagingKey = stagingKeyOfSealed(objectKey);
    return stagingKey !== null && isSealed(stagingKey) ? find(stagingKey) : undefined;
  }

  function renameSoon(stagingKey: string): void {
    toRename.add(stagingKey);
    renaming ??= setTimeout(() => {
      renaming = null;
      renameSealed().catch((error: unknown) => log.warn("sealed_objects_not_renamed", { error }));
    }, RENAME_AFTER_MS).unref();
  }

  /** Gives sealed objects their final keys. Nobody waits for it: they are found under them already. */
  async function renameSealed(): Promise<void> {
    const keys = [...toRename];
    toRename.clear();
    await inFile(async ({ file, rename }) => {
      await file.write(() => {
        for (const key of keys) if (isSealed(key)) rename.run({ stagingKey: key, finalKey: sealedKeyOf(key) });
      });
    }, undefined);
  }

  /** Removes rows in one transaction, and adds them to `removed`. */
  async function removeSlice(objectKeys: readonly string[], removed: Map<string, RemovedRow>): Promise<void> {
    await inFile(async ({ file, remove, rename, deleteBody }) => {
      function removeObject(objectKey: string): Row | undefined {
        const stagingKey = stagingKeyOfSealed(objectKey);
        if (stagingKey === null) {
          // Under this key there is nothing left to remove but the name.
          if (!isSealed(objectKey)) return remove.get(objectKey);
          rename.run({ stagingKey: objectKey, finalKey: sealedKeyOf(objectKey) });
          return undefined;
        }
        const row = remove.get(objectKey);
        // Never what a pending upload waits for, whoever entered the final key.
        return row ?? (staging.statusOf(stagingKey) === "pending" ? undefined : remove.get(stagingKey));
      }
      await file.write(() => {
        for (const objectKey of objectKeys) {
          const row = removeObject(objectKey);
          if (row === undefined) continue;
          deleteBody.run(row.bodyId);
          removed.set(objectKey, { fileBeside: row.fileBeside === 1 });
        }
      });
    }, undefined);
  }

  function* listUnder(prefix: string): Generator<ListedObject> {
    const stagingPrefix = stagingKeyOfSealed(prefix);
    if (stagingPrefix !== null) return yield* merged(rowsUnder(prefix), sealedRowsUnder(stagingPrefix));
    for (const row of rowsUnder(prefix)) {
      if (!isSealed(row.objectKey)) yield row;
      // Left by a crash.
      else if (options.serves) renameSoon(row.objectKey);
    }
  }

  /** Objects that are final already and still have their staging keys: few, unless very many were confirmed just now. */
  function* sealedRowsUnder(stagingPrefix: string): Generator<ListedObject> {
    for (const row of rowsUnder(stagingPrefix)) {
      if (isSealed(row.objectKey)) yield { ...row, objectKey: sealedKeyOf(row.objectKey) };
    }
  }

  function* rowsUnder(prefix: string): Generator<ListedObject> {
    // To be above every key that begins with it, and below any other: keys are ASCII, and a prefix ends in a slash.
    const end = `${prefix}\x7f`;
    for (let after = prefix; ; ) {
      const page = rows()?.page.all({ after, end, limit: PAGE_ROWS }) ?? [];
      for (const { objectKey, sizeBytes, stampUs } of page) {
        yield { objectKey, ...statOf(sizeBytes, stampUs), modifiedAtMs: Math.floor(stampUs / 1_000) };
      }
      if (page.length < PAGE_ROWS) return;
      after = page.at(-1)?.objectKey ?? end;
    }
  }

  return {
    prepare: place.prepare,
    probe: place.probe,
    isLost: place.isLost,
    part: place.part,
    stat(objectKey) {
      const row = ofObject(objectKey, (key) => rows()?.find.get(key));
      return row === undefined ? null : statOf(row.sizeBytes, row.stampUs);
    },
    read(objectKey) {
      const row = ofObject(objectKey, (key) => rows()?.read.get(key));
      return row === undefined ? null : { ...statOf(row.sizeBytes, row.stampUs), bytes: row.bytes };
    },
    canSeal(stagingKey) {
      const row = rows()?.find.get(stagingKey);
      // A file beside it has to be removed with the staging key.
      return row?.fileBeside === 0;
    },
    seal(stagingKey, source) {
      const row = rows()?.find.get(stagingKey);
      if (row === undefined) throw absent();
      checkIsSame(row, source);
      if (row.fileBeside !== 0) throw changed();
      renameSoon(stagingKey);
    },
    async put(objectKey, bytes, { stampUs, hasFile }) {
      const open = rows();
      if (open === null) throw new StoreError("unavailable", "The file of small objects is not there");
      return await orNoSpace(
        open.file.write(() => {
          // Since the PUT was let in the upload may have been deleted, or confirmed and its object sealed.
          staging.checkPending(objectKey);
          const before = open.find.get(objectKey);
          if (before !== undefined) open.deleteBody.run(before.bodyId);
          const fileBeside = before?.fileBeside === 1 || hasFile();
          const { lastInsertRowid: bodyId } = open.insertBody.run(bytes);
          open.upsert.run({ objectKey, bodyId, sizeBytes: bytes.length, stampUs, fileBeside: fileBeside ? 1 : 0 });
          return { fileBeside };
        }),
      );
    },
    noteFile: (objectKey) =>
      inFile(async ({ file, find, noteFile }) => {
        if (find.get(objectKey) === undefined) return false;
        return await file.writeStatement(() => noteFile.run(objectKey).changes > 0);
      }, false),
    replaceByFile: (objectKey) =>
      inFile(async ({ file, remove, deleteBody }) => {
        await file.write(() => {
          // A confirm has copied the row, or the upload is deleted: whoever removes the row comes to the file as well.
          if (staging.statusOf(objectKey) !== "pending") throw noPendingUpload();
          const row = remove.get(objectKey);
          if (row !== undefined) deleteBody.run(row.bodyId);
        });
      }, undefined),
    async remove(objectKeys) {
      const removed = new Map<string, RemovedRow>();
      for (let start = 0; start < objectKeys.length; start += REMOVED_AT_ONCE) {
        await removeSlice(objectKeys.slice(start, start + REMOVED_AT_ONCE), removed);
      }
      return removed;
    },
    promote: (stagingKey, finalKey, source) =>
      inFile(async ({ file, find, copyBody, upsert }) => {
        if (find.get(stagingKey) === undefined && find.get(finalKey) === undefined) return null;
        // The room that the disk keeps free is for deletes and for the next start.
        const giveBack = find.get(finalKey) === undefined ? holdRoom(source.sizeBytes) : null;
        const promoting = file.write(() => {
          // An earlier attempt may have made it.
          const made = find.get(finalKey);
          const row = made ?? find.get(stagingKey);
          if (row === undefined) return null;
          const { sizeBytes, stampUs } = row;
          const stat = checkIsSame(row, source);
          if (made === undefined) {
            const { lastInsertRowid: bodyId } = copyBody.run(row.bodyId);
            upsert.run({ objectKey: finalKey, bodyId, sizeBytes, stampUs, fileBeside: 0 });
          }
          return stat;
        });
        return await orNoSpace(promoting).finally(() => giveBack?.());
      }, null),
    list: (prefix) => listUnder(prefix),
    async close() {
      if (renaming !== null) clearTimeout(renaming);
      // An object that was not renamed is found under its final key all the same.
      await renameSealed().catch((error: unknown) => log.warn("sealed_objects_not_renamed", { error }));
      await place.close();
    },
  };
}

/** Two listings in the order of their keys as one. An object that is renamed meanwhile may be in both: it is listed once. */
function* merged(first: Iterator<ListedObject>, second: Iterator<ListedObject>): Generator<ListedObject> {
  let [a, b] = [first.next(), second.next()];
  let lastKey = "";
  for (;;) {
    const isFirst = a.done !== true && (b.done === true || a.value.objectKey <= b.value.objectKey);
    const next = isFirst ? a : b;
    if (next.done === true) return;
    if (next.value.objectKey !== lastKey) yield next.value;
    lastKey = next.value.objectKey;
    if (isFirst) a = first.next();
    else b = second.next();
  }
}

/** Throws `changed` if the row is not the object that was stat'ed. */
function checkIsSame({ sizeBytes, stampUs }: Row, source: ObjectStat): ObjectStat {
  const stat = statOf(sizeBytes, stampUs);
  if (stat.etag !== source.etag || sizeBytes !== source.sizeBytes) throw changed();
  return stat;
}

function changed(): StoreError {
  return new StoreError("changed", "The object is no longer the one that was looked at");
}

/** A full disk refuses the object, as it does a file. */
async function orNoSpace<T>(done: Promise<T>): Promise<T> {
  try {
    return await done;
  } catch (error) {
    const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
    if (isSqliteError(cause, "SQLITE_FULL")) throw noSpace(cause);
    throw whyUnusable(cause) === null
      ? error
      : new StoreError("unavailable", "The small objects cannot be used", cause);
  }
}
