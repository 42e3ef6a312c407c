import type { BigIntStats } from "node:fs";
import { dirname, join } from "node:path";
import { checkInstallationId, formatObjectKey, type ObjectPlace, parseObjectKey } from "../../books/object_keys.ts";
import { TEMPORARY_FOLDER } from "../../data_dir/layout.ts";
import type { ObjectStat } from "../objects.ts";

/**
 * How many of the id's first hex digits name the outer and the inner folder. Ids are UUIDv7, so these are bits of time:
 * an outer folder spans 2^28 ms (3.1 days) and holds up to 4,096 inner ones of 2^16 ms (65 s) each. No folder grows with
 * the number of files that are kept, and files that are removed together lie together.
 */
const OUTER_FOLDER_DIGITS = 5;
const INNER_FOLDER_DIGITS = 3;

export interface ObjectPaths {
  /** Half-written files and nothing else. */
  temporaryFolder: string;
  folderOf: (place: ObjectPlace) => string;
  /** The object's file, or null for a key that cannot be one of ours: nothing from outside becomes part of a path. */
  pathOf: (objectKey: string) => string | null;
  /** The key of the object that a file of this name in this place holds, or null for a file that is not ours. */
  keyOf: (place: ObjectPlace, fileName: string) => string | null;
}

/** Which file holds which object. The files do not carry the installation's id: they all lie in its data directory. */
export function createObjectPaths(objectsDir: string, installationId: string): ObjectPaths {
  checkInstallationId(installationId);

  function pathOf(objectKey: string): string | null {
    const key = parseObjectKey(objectKey);
    if (key?.installationId !== installationId) return null;
    const { place, uploadId, random } = key;
    const outer = uploadId.slice(0, OUTER_FOLDER_DIGITS);
    const inner = uploadId.slice(OUTER_FOLDER_DIGITS, OUTER_FOLDER_DIGITS + INNER_FOLDER_DIGITS);
    return join(objectsDir, place, outer, inner, `${uploadId}.${random}`);
  }

  function keyOf(place: ObjectPlace, fileName: string): string | null {
    const [uploadId = "", random = "", ...rest] = fileName.split(".");
    const objectKey = formatObjectKey({ place, installationId, uploadId, random });
    return rest.length > 0 || parseObjectKey(objectKey) === null ? null : objectKey;
  }

  return {
    temporaryFolder: join(objectsDir, TEMPORARY_FOLDER),
    folderOf: (place) => join(objectsDir, place),
    pathOf,
    keyOf,
  };
}

/** The folder of an object's file and the one around it: the two that may become empty when it goes. */
export function foldersAround(path: string): [inner: string, outer: string] {
  const inner = dirname(path);
  return [inner, dirname(inner)];
}

/**
 * Size and ETag of an object's file. The ETag is made of the size and the modification time in microseconds, which is set
 * once, when the object is stored, and is unique to that storing. It needs no file of its own, a hard link shares it, and
 * it survives a backup that keeps modification times (`cp -a`, `rsync -a`).
 */
export function statOfFile({ size, mtimeNs }: BigIntStats): ObjectStat {
  return { sizeBytes: Number(size), etag: `"${size.toString(16)}-${(mtimeNs / 1_000n).toString(16)}"` };
}
