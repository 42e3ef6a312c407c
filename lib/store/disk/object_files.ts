import type { Dirent } from "node:fs";
import { type FileHandle, link, open, readdir, rm, stat, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Readable } from "node:stream";
import { OBJECT_PLACES, type ObjectPlace } from "../../books/object_keys.ts";
import { type ListedObject, type ObjectStat, type PromoteOptions, StoreError } from "../objects.ts";
import { eachOf } from "./each_of.ts";
import { fileErrorReason, isMissing, isTaken } from "./file_errors.ts";
import type { Folders } from "./folders.ts";
import { foldersAround, type ObjectPaths } from "./object_paths.ts";
import { statOfFile } from "./stamps.ts";

/** The names of the folders that the files are fanned out over; anything else in there is not ours. */
const FANNED_FOLDER = /^[0-9a-f]+$/;
/** A folder can be removed, being empty, just before a link is made in it. That this happens so often in a row is a defect. */
const LINK_ATTEMPTS_MAX = 10;

/** An object, open for reading. Call `close` on it in any case, also after `stream`. */
export interface OpenFile extends ObjectStat {
  /** The bytes from `start` to `end`, both included; everything by default. To be asked for once. */
  stream: (range?: { start: number; end: number }) => Readable;
  close: () => Promise<void>;
}

/** The objects that are files of their own. Keys that cannot be this store's have none. */
export interface ObjectFiles {
  stat: (objectKey: string) => Promise<ObjectStat | null>;
  open: (objectKey: string) => Promise<OpenFile>;
  /** See `ObjectStore`. */
  promote: (stagingKey: string, finalKey: string, { source }: Pick<PromoteOptions, "source">) => Promise<ObjectStat>;
  remove: (objectKeys: readonly string[]) => Promise<Map<string, string>>;
  list: (prefix: string) => AsyncGenerator<ListedObject>;
}

export interface ObjectFilesOptions {
  paths: ObjectPaths;
  folders: Folders;
  installationId: string;
}

export function createObjectFiles({ paths, folders, installationId }: ObjectFilesOptions): ObjectFiles {
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

  async function openObject(objectKey: string): Promise<OpenFile> {
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
    for (const objectKey of objectKeys) {
      const path = paths.pathOf(objectKey);
      // A key that is not one of this store's is not in it.
      if (path === null) continue;
      const [inner, outer] = foldersAround(path);
      outerFolders.add(outer);
      const keys = keysByFolder.get(inner);
      if (keys === undefined) keysByFolder.set(inner, [objectKey]);
      else keys.push(objectKey);
    }
    // A folder that cannot be used keeps its own keys and no others. One step after the other: each has few calls at once.
    function fail(folder: string, error: unknown): void {
      for (const objectKey of keysByFolder.get(folder) ?? []) reasons.set(objectKey, fileErrorReason(error));
    }
    const present: string[] = [];
    await eachOf([...keysByFolder.keys()], async (folder) => {
      try {
        // If only small objects were kept there is no folder.
        if ((await statPath(folder)) !== null) present.push(folder);
      } catch (error) {
        fail(folder, error);
      }
    });
    const keys = present.flatMap((folder) => keysByFolder.get(folder) ?? []);
    await eachOf(keys, (objectKey) => unlinkOne(objectKey, reasons));
    await eachOf([...keysByFolder.keys()], async (folder) => {
      try {
        // Even if nothing was there: a process that was killed may have unlinked it and not synced.
        await folders.sync(folder);
      } catch (error) {
        fail(folder, error);
      }
    });
    await folders.removeEmpty([...keysByFolder.keys(), ...outerFolders]);
    return reasons;
  }

  async function unlinkOne(objectKey: string, reasons: Map<string, string>): Promise<void> {
    try {
      await unlink(paths.pathOf(objectKey) ?? "");
    } catch (error) {
      if (!isMissing(error)) reasons.set(objectKey, fileErrorReason(error));
    }
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

  return { stat: statObject, open: openObject, promote, remove, list };
}

function readerOf(file: FileHandle): Pick<OpenFile, "stream" | "close"> {
  return {
    stream: (range) => file.createReadStream({ ...range, autoClose: true }),
    close: () => file.close(),
  };
}

/** Lists a folder. One that is gone is empty. */
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

export function absent(): StoreError {
  return new StoreError("absent", "There is no such object");
}
