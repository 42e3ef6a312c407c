import { dirname, join } from "node:path";

/** Where in the store an object lies: what was PUT, and what was confirmed. */
export type ObjectPlace = "staging" | "final";

export const OBJECT_PLACES: readonly ObjectPlace[] = ["staging", "final"];

const UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
const OBJECT_KEY = new RegExp(`^(staging|final)/([0-9a-f]{16})/(${UUID})/([0-9a-f]{32})$`);
const FILE_NAME = new RegExp(`^(${UUID})\\.([0-9a-f]{32})$`);
const INSTALLATION_ID = /^[0-9a-f]{16}$/;

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
  if (!INSTALLATION_ID.test(installationId)) throw new TypeError(`Not an installation id: "${installationId}"`);

  function pathOf(objectKey: string): string | null {
    const [, place, installation, uploadId, random] = OBJECT_KEY.exec(objectKey) ?? [];
    if (place === undefined || uploadId === undefined || installation !== installationId) return null;
    const outer = uploadId.slice(0, OUTER_FOLDER_DIGITS);
    const inner = uploadId.slice(OUTER_FOLDER_DIGITS, OUTER_FOLDER_DIGITS + INNER_FOLDER_DIGITS);
    return join(objectsDir, place, outer, inner, `${uploadId}.${random}`);
  }

  function keyOf(place: ObjectPlace, fileName: string): string | null {
    const [, uploadId, random] = FILE_NAME.exec(fileName) ?? [];
    return uploadId === undefined ? null : `${place}/${installationId}/${uploadId}/${random}`;
  }

  return { temporaryFolder: join(objectsDir, "tmp"), folderOf: (place) => join(objectsDir, place), pathOf, keyOf };
}

/** The upload that a key of this installation names by its form, or null for any other key. */
export function uploadIdOf(objectKey: string, installationId: string): string | null {
  const [, , installation, uploadId] = OBJECT_KEY.exec(objectKey) ?? [];
  return uploadId !== undefined && installation === installationId ? uploadId : null;
}

/** The folder of an object's file and the one around it: the two that may become empty when it goes. */
export function foldersAround(path: string): [inner: string, outer: string] {
  const inner = dirname(path);
  return [inner, dirname(inner)];
}
