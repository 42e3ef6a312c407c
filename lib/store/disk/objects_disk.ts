import type { Dirent } from "node:fs";
import { type FileHandle, link, open, readdir, rm, stat, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Readable } from "node:stream";
import { makeFolder } from "../../db/files.ts";
import { AppError } from "../../errors.ts";
import type { Log } from "../../log.ts";
import { type ListedObject, type ObjectStat, type ObjectStore, type PromoteOptions, StoreError } from "../objects.ts";
import { createAdmission } from "./admission.ts";
import { eachOf } from "./each_of.ts";
import { fileErrorReason, isFull, isMissing, isTaken, toStoreError } from "./file_errors.ts";
import { createFolders } from "./folders.ts";
import { checkFolder, readMarkerFile, writeMarkerFile } from "./marker.ts";
import { createIntake, type Receive } from "./object_intake.ts";
import { createObjectPaths, foldersAround, OBJECT_PLACES, type ObjectPlace } from "./object_paths.ts";
import { statOfFile } from "./object_stat.ts";
import { checkFileSystem, probeFolder, sweepFolder } from "./setup.ts";
import { createSignedUrls, type SignedUrls } from "./signed_urls.ts";
import { createDiskSpace } from "./space.ts";

/** The marker of the ledger, in the store's folder. */
const MARKER_FILE = "ledger-marker";
/** A promote is a link and an fsync; a disk that needs longer for them is not going to answer. */
const PROMOTE_MS_MAX = 30_000;
/** The names of the folders that the files are fanned out over; anything else in there is not ours. */
const FANNED_FOLDER = /^[0-9a-f]+$/;
/** A folder can be removed, being empty, just before a link is made in it. That this happens so often in a row is a defect. */
const LINK_ATTEMPTS_MAX = 10;

export interface DiskStoreOptions {
  /** The store's folder. */
  objectsDir: string;
  installationId: string;
  /** What clients see in front of our paths, without a slash at its end. A port that the system chose is known only later. */
  publicUrl: () => string;
  signingKey: Buffer;
  /** The largest upload where none was stated. */
  maxUploadBytes: number;
  /** Uploads are refused rather than leave less than this free on the disk. */
  minFreeBytes: number;
  /** What the books say of keys. Synchronous: see `createIntake`. */
  staging: Staging;
  /** Lets `prepare` remove what an earlier process left half-written. Only for the holder of the serve lock: it would take the files that another process is writing. */
  sweep: boolean;
  now: () => number;
  log: Log;
}

/** What the embedded store asks the books about the uploads that it takes in and hands out. */
export interface Staging {
  /** The workspace or person whose pending upload names this key now; null if none does. */
  ownerOf: (objectKey: string) => string | null;
  /** Whether an upload names this key now: what none names is deleted, although its file may still be here. */
  isNamed: (objectKey: string) => boolean;
  /** The bytes that lie here for an owner's unconfirmed uploads. */
  stagedBytes: (ownerId: string) => number;
  /** Counts a PUT that begins; null is an unknown length. Throws an `AppError` if the owner may not stage so many bytes. */
  beginPut: (objectKey: string, announcedBytes: number | null) => StagedPut;
}

/** A PUT as the books count it. */
export interface StagedPut {
  /** To be called before so many bytes in all are written. Throws as `beginPut`. */
  growTo: (bytes: number) => void;
  /** So many bytes are stored. */
  stored: (sizeBytes: number) => void;
  /** It has ended, well or not. */
  end: () => void;
}

/** An object's file, open for reading. Whoever opened it calls `close`, also after `stream`. */
export interface OpenObject extends ObjectStat {
  /** The bytes from `start` to `end`, both included; everything by default. To be asked for once. */
  stream: (range?: { start: number; end: number }) => Readable;
  close: () => Promise<void>;
}

/** The embedded store: besides what every store does it takes uploads in and hands objects out. */
export interface DiskStore extends ObjectStore {
  verifyUrl: SignedUrls["verify"];
  receive: Receive;
  /** Opens an object for reading. Rejects with `absent`, also if its file is there and no upload names it any more. */
  open: (objectKey: string) => Promise<OpenObject>;
}

/** The embedded store on a folder, of which nothing is asked yet. */
export function createDiskStore(options: DiskStoreOptions): DiskStore {
  const { objectsDir, installationId, staging, log } = options;
  const paths = createObjectPaths(objectsDir, installationId);
  const folders = createFolders(objectsDir);
  const urls = createSignedUrls(options);
  const markerPath = join(objectsDir, MARKER_FILE);
  // The file system's clock is this machine's, until a probe finds one that is not.
  let clockSkewMs = 0;
  let isSwept = false;
  const space = createDiskSpace({
    folder: objectsDir,
    minFreeBytes: options.minFreeBytes,
    stagedBytes: staging.stagedBytes,
  });
  const admit = createAdmission({ space, beginPut: staging.beginPut });
  const receive = createIntake({ paths, folders, admit, ownerOf: staging.ownerOf, now: options.now, log });

  /**
   * Throws `storage_unavailable` where the folder cannot be used, or its file system lacks what the store stands on: hard
   * links, and modification times in microseconds.
   */
  async function prepare({ makes }: { makes: boolean }): Promise<void> {
    try {
      if (makes) await makeFolder(objectsDir);
      else await checkFolder(objectsDir);
      for (const folder of [paths.temporaryFolder, ...OBJECT_PLACES.map(paths.folderOf)]) await folders.make(folder);
      // Later, files that are being received lie there.
      if (options.sweep && !isSwept) await sweepFolder(paths.temporaryFolder, log);
      isSwept = true;
      await checkFileSystem(paths.temporaryFolder);
    } catch (error) {
      if (error instanceof AppError || error instanceof StoreError) throw error;
      // It may have room again in a while.
      if (isFull(error)) throw toStoreError(error);
      throw new AppError(
        "storage_unavailable",
        `Cannot use "${objectsDir}" for objects: ${fileErrorReason(error)}. It must be a folder that this user may write to`,
        { cause: error },
      );
    }
  }

  async function statPath(path: string): Promise<ObjectStat | null> {
    try {
      return statOfFile(await stat(path, { bigint: true }));
    } catch (error) {
      if (isMissing(error)) return null;
      throw error;
    }
  }

  async function statObject(objectKey: string): Promise<ObjectStat | null> {
    const path = paths.pathOf(objectKey);
    return path === null ? null : statPath(path);
  }

  async function promote(
    stagingKey: string,
    finalKey: string,
    { source }: Pick<PromoteOptions, "source">,
  ): Promise<ObjectStat> {
    const stagingPath = paths.pathOf(stagingKey);
    const finalPath = paths.pathOf(finalKey);
    if (stagingPath === null) throw absent();
    if (finalPath === null) throw new StoreError("denied", "That key is not one of this store's");
    const isNew = await makeLink(stagingPath, finalPath);
    // A file never changes once it is in its place, so what the link holds is compared, not what it was made from: a PUT
    // that replaced the staged object in between is seen here.
    const promoted = await statPath(finalPath);
    if (promoted === null) throw new StoreError("unavailable", "The object was removed while it was made final");
    if (promoted.etag !== source.etag || promoted.sizeBytes !== source.sizeBytes) {
      // The final key is entered for removal by the confirm's lease: what stays here does not stay for long.
      if (isNew) await rm(finalPath, { force: true });
      throw new StoreError("changed", "The object is no longer the one that was looked at");
    }
    await folders.sync(dirname(finalPath));
    return promoted;
  }

  /** Whether the link is new: an earlier attempt may have made it. */
  async function makeLink(from: string, to: string): Promise<boolean> {
    for (let attempt = 1; ; attempt++) {
      try {
        await link(from, to);
        return true;
      } catch (error) {
        if (isTaken(error)) return false;
        // Either of the two may be missing: the staged object, or the folder for the final one.
        if (!isMissing(error) || attempt === LINK_ATTEMPTS_MAX) throw error;
        if ((await statPath(from)) === null) throw absent();
      }
      await folders.make(dirname(to));
    }
  }

  async function openObject(objectKey: string): Promise<OpenObject> {
    const path = paths.pathOf(objectKey);
    if (path === null) throw absent();
    const file = await open(path, "r");
    try {
      return { ...statOfFile(await file.stat({ bigint: true })), ...readerOf(file) };
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async function remove(objectKeys: readonly string[]): Promise<Map<string, string>> {
    const reasons = new Map<string, string>();
    const keysByFolder = new Map<string, string[]>();
    const outerFolders = new Set<string>();
    await eachOf(objectKeys, async (objectKey) => {
      const path = paths.pathOf(objectKey);
      // What cannot be in this store is not in it.
      if (path === null) return;
      try {
        await unlink(path);
      } catch (error) {
        if (!isMissing(error)) {
          reasons.set(objectKey, fileErrorReason(error));
          return;
        }
      }
      // Also where it was gone: a process that was killed may have unlinked it and not synced.
      const [inner, outer] = foldersAround(path);
      outerFolders.add(outer);
      const keys = keysByFolder.get(inner);
      if (keys === undefined) keysByFolder.set(inner, [objectKey]);
      else keys.push(objectKey);
    });
    await eachOf([...keysByFolder], async ([folder, keys]) => {
      try {
        await folders.sync(folder);
      } catch (error) {
        for (const objectKey of keys) reasons.set(objectKey, fileErrorReason(error));
      }
    });
    await folders.removeEmpty([...keysByFolder.keys(), ...outerFolders]);
    return reasons;
  }

  async function* list(prefix: string): AsyncGenerator<ListedObject> {
    for (const place of OBJECT_PLACES) {
      const ours = `${place}/${installationId}/`;
      if (!ours.startsWith(prefix) && !prefix.startsWith(ours)) continue;
      const top = paths.folderOf(place);
      for (const outer of await fannedFoldersIn(top)) {
        for (const inner of await fannedFoldersIn(join(top, outer))) {
          yield* await listFolder(place, join(top, outer, inner), prefix);
        }
      }
    }
  }

  async function listFolder(place: ObjectPlace, folder: string, prefix: string): Promise<ListedObject[]> {
    const found: ListedObject[] = [];
    await eachOf(await entriesIn(folder), async ({ name }) => {
      const objectKey = paths.keyOf(place, name);
      if (objectKey?.startsWith(prefix) !== true) return;
      try {
        const stats = await stat(join(folder, name), { bigint: true });
        if (!stats.isFile()) return;
        found.push({ objectKey, ...statOfFile(stats), modifiedAtMs: Number(stats.mtimeNs / 1_000_000n) });
      } catch (error) {
        if (!isMissing(error)) throw error;
      }
    });
    // A few files are looked at at once, and the folders' names are the first digits of the keys' ids.
    return found.sort((a, b) => (a.objectKey < b.objectKey ? -1 : 1));
  }

  async function probe(): Promise<void> {
    clockSkewMs = await probeFolder(paths.temporaryFolder, options.now);
  }

  return {
    presignPut: urls.presignPut,
    presignGet: urls.presignGet,
    verifyUrl: urls.verify,
    receive,
    open: (objectKey) =>
      orStoreError(async () => {
        if (!staging.isNamed(objectKey)) throw absent();
        try {
          return await openObject(objectKey);
        } catch (error) {
          // Deleted meanwhile, or lost with its folder: a client that is told the one for the other gives up a file that
          // may be mounted again in a minute.
          if (!isMissing(error) || !staging.isNamed(objectKey)) throw error;
          throw new StoreError("unavailable", "The file of an upload is not in the objects folder", error);
        }
      }),
    stat: (objectKey) => orStoreError(() => statObject(objectKey)),
    promote: (stagingKey, finalKey, promoteOptions) =>
      orStoreError(() => promote(stagingKey, finalKey, promoteOptions)),
    // A link takes no time that grows with the object, and one sync serves all who wait for it.
    promotesAtOnceMax: Number.POSITIVE_INFINITY,
    promoteMsMax: () => PROMOTE_MS_MAX,
    read: (objectKey) => orStoreError(async () => (await openObject(objectKey)).stream()),
    remove: (objectKeys) => orStoreError(() => remove(objectKeys)),
    list: (prefix) => orStoreErrors(list(prefix)),
    readMarker: () => orStoreError(() => readMarkerFile(markerPath)),
    writeMarker: (_key, text, { replaces }) => orStoreError(() => writeMarkerFile(markerPath, text, replaces)),
    prepare,
    probe: () => orStoreError(probe),
    clockSkewMs: () => clockSkewMs,
    close: folders.idle,
  };
}

function readerOf(file: FileHandle): Pick<OpenObject, "stream" | "close"> {
  return {
    stream: (range) => file.createReadStream({ ...range, autoClose: true }),
    close: () => file.close(),
  };
}

/** What is in a folder. A folder that is gone has nothing. */
async function entriesIn(folder: string): Promise<Dirent[]> {
  try {
    return await readdir(folder, { withFileTypes: true });
  } catch (error) {
    if (isMissing(error)) return [];
    throw error;
  }
}

/** The names of the folders that objects lie in, in order. */
async function fannedFoldersIn(folder: string): Promise<string[]> {
  // An administrator may have moved one to another disk and left a link.
  const isFolder = (entry: Dirent): boolean => entry.isDirectory() || entry.isSymbolicLink();
  const ours = (await entriesIn(folder)).filter((entry) => isFolder(entry) && FANNED_FOLDER.test(entry.name));
  return ours.map(({ name }) => name).sort();
}

async function orStoreError<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw toStoreError(error);
  }
}

async function* orStoreErrors<T>(items: AsyncIterable<T>): AsyncGenerator<T> {
  try {
    yield* items;
  } catch (error) {
    throw toStoreError(error);
  }
}

function absent(): StoreError {
  return new StoreError("absent", "There is no such object");
}
