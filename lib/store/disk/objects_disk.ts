import { join } from "node:path";
import { Readable } from "node:stream";
import { OBJECT_PLACES } from "../../books/object_keys.ts";
import type { Staging } from "../../books/staging.ts";
import { MARKER_FILE } from "../../data_dir/layout.ts";
import { AppError } from "../../errors.ts";
import { makeFolder } from "../../files.ts";
import type { Log } from "../../log.ts";
import { type ListedObject, type ObjectStat, type ObjectStore, type PromoteOptions, StoreError } from "../objects.ts";
import { createAdmission } from "./admission.ts";
import { fileErrorReason, isFull, isMissing, toStoreError } from "./file_errors.ts";
import { createFolders } from "./folders.ts";
import { checkFolder, readMarkerFile, writeMarkerFile } from "./marker.ts";
import { mergeListings } from "./merge_listings.ts";
import { absent, createObjectFiles, type OpenFile } from "./object_files.ts";
import { createIntake, type Receive } from "./object_intake.ts";
import { createObjectPaths } from "./object_paths.ts";
import { checkFileSystem, probeFolder, sweepFolder } from "./setup.ts";
import { createSignedUrls, type SignedUrls } from "./signed_urls.ts";
import { createSmallObjects, SMALL_BYTES_MAX } from "./small_objects.ts";
import { createDiskSpace } from "./space.ts";
import { createStagedChecksums } from "./staged_checksums.ts";

/** A promote is a link and an fsync, or a row; a disk that needs longer for them is not going to respond. */
const PROMOTE_MS_MAX = 30_000;

export interface DiskStoreOptions {
  /** The store's folder. */
  objectsDir: string;
  installationId: string;
  /** The URL in front of our paths, as clients see it, without a slash at its end. A port that the system chose is known only later. */
  publicUrl: () => string;
  signingKey: Buffer;
  /** The largest upload if no size was stated. */
  maxUploadBytes: number;
  /** Uploads are refused rather than leave less than this free on the disk. */
  minFreeBytes: number;
  staging: Pick<
    Staging,
    "findOwner" | "whilePending" | "isNamed" | "checkPending" | "statusOf" | "beginPut" | "stagedBytes"
  >;
  /** Lets `prepare` remove what an earlier process left half-written. Only for the holder of the serve lock: it would take the files that another process is writing. */
  sweep: boolean;
  /** Called when the disk is full: even to remove a small object takes some room. */
  onFull?: (() => void) | undefined;
  /** Larger objects are files of their own. */
  smallBytesMax?: number;
  /** Whether the SHA-256 of every upload is computed, even if nobody stated it. */
  computesSha256?: boolean;
  now: () => number;
  log: Log;
}

/** An object, open for reading. Call `close` on it in any case, also after `stream`. */
export interface OpenObject extends OpenFile {
  /** All of it, if it is small; a large one has to be streamed. */
  bytes: Buffer | null;
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
  const files = createObjectFiles({ paths, folders, installationId });
  const small = createSmallObjects({
    ...{ objectsDir, serves: options.sweep, onFull: options.onFull, staging, log },
    holdRoom: space.hold,
  });
  const checksums = createStagedChecksums();
  const takeIn = createIntake({
    smallBytesMax: options.smallBytesMax ?? SMALL_BYTES_MAX,
    computesSha256: options.computesSha256 ?? false,
    ...{ paths, folders, small, removeFiles: files.remove, admit, staging, now: options.now, log },
  });

  /**
   * Throws `storage_unavailable` if the folder cannot be used, or its file system lacks what the store is built on: hard
   * links, and modification times in microseconds.
   */
  async function prepare({ makes, hasPart = false }: { makes: boolean; hasPart?: boolean }): Promise<void> {
    try {
      if (makes) await makeFolder(objectsDir);
      else await checkFolder(objectsDir);
      for (const folder of [paths.temporaryFolder, ...OBJECT_PLACES.map(paths.folderOf)]) await folders.make(folder);
      // Later, files that are being received lie there.
      if (options.sweep && !isSwept) await sweepFolder(paths.temporaryFolder, log);
      isSwept = true;
      await checkFileSystem(paths.temporaryFolder);
      small.prepare({ makes: !hasPart });
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

  async function receive(...args: Parameters<Receive>): Promise<ObjectStat> {
    const stored = await takeIn(...args);
    checksums.note(args[0], stored);
    return stored;
  }

  async function statObject(objectKey: string): Promise<ObjectStat | null> {
    const stat = small.stat(objectKey) ?? (await files.stat(objectKey));
    return stat === null ? null : checksums.addTo(objectKey, stat);
  }

  async function promote(stagingKey: string, finalKey: string, { source }: PromoteOptions): Promise<ObjectStat> {
    if (paths.pathOf(finalKey) === null) throw new StoreError("denied", "That key is not one of this store's");
    return (
      (await small.promote(stagingKey, finalKey, source)) ?? (await files.promote(stagingKey, finalKey, { source }))
    );
  }

  async function openObject(objectKey: string): Promise<OpenObject> {
    const object = small.read(objectKey);
    return object === null ? { ...(await files.open(objectKey)), bytes: null } : openBytes(object);
  }

  async function remove(objectKeys: readonly string[]): Promise<Map<string, string>> {
    if (small.isLost()) return new Map(objectKeys.map((objectKey) => [objectKey, "the file of small objects is lost"]));
    const rows = await small.remove(objectKeys);
    // Most objects are a row and nothing else: files are touched only if one may lie there as well, or nothing was found.
    return await files.remove(objectKeys.filter((objectKey) => rows.get(objectKey)?.fileBeside !== false));
  }

  /** A row counts before a file under the same key. */
  function list(prefix: string): AsyncIterable<ListedObject> {
    return mergeListings(small.list(prefix), files.list(prefix));
  }

  async function probe(): Promise<void> {
    small.probe();
    clockSkewMs = await probeFolder(paths.temporaryFolder, options.now);
  }

  return {
    presignPut: urls.presignPut,
    presignGet: urls.presignGet,
    verifyUrl: urls.verify,
    receive,
    open: (objectKey) =>
      orStoreError(async () => {
        if (!(await staging.isNamed(objectKey))) throw absent();
        try {
          return await openObject(objectKey);
        } catch (error) {
          // Deleted meanwhile, or lost with its folder: a client that is told the one for the other gives up a file that
          // may be mounted again in a minute.
          if (!isMissing(error) || !(await staging.isNamed(objectKey))) throw error;
          throw new StoreError("unavailable", "The file of an upload is not in the objects folder", error);
        }
      }),
    stat: (objectKey) => orStoreError(() => statObject(objectKey)),
    promote: (stagingKey, finalKey, promoteOptions) =>
      orStoreError(() => promote(stagingKey, finalKey, promoteOptions)),
    sealing: { canSeal: small.canSeal, seal: small.seal },
    part: {
      readMark: () => orStoreError(small.part.readMark),
      writeMark: (mark) => orStoreError(() => small.part.writeMark(mark)),
    },
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
    async close() {
      await folders.idle();
      await small.close();
    },
  };
}

function openBytes({ bytes, ...stat }: ObjectStat & { bytes: Buffer }): OpenObject {
  return {
    ...stat,
    bytes,
    stream: ({ start, end } = { start: 0, end: bytes.length - 1 }) => Readable.from([bytes.subarray(start, end + 1)]),
    close: async () => {},
  };
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
