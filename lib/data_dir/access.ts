import { accessSync, constants, readdirSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { OBJECT_PLACES } from "../books/object_keys.ts";
import { AppError } from "../errors.ts";
import { OBJECTS_FOLDER, READ_FILES, TEMPORARY_FOLDER, WRITTEN_FILES } from "./layout.ts";

/**
 * The service's own folders among the objects. Anything else there, such as the `lost+found` of a separate disk, does not
 * matter.
 */
const OBJECT_FOLDERS: readonly string[] = [TEMPORARY_FOLDER, ...OBJECT_PLACES];
/** Folders of objects that are tried. Those below lie in thousands; doctor comes to all of them. */
const FOLDERS_TRIED_MAX = 1_000;
/** As many paths as a message names. */
const PATHS_TOLD_MAX = 3;

const { R_OK, W_OK, X_OK } = constants;

/** The paths that this user may not use, and the command that repairs it. */
export interface RightsProblem {
  message: string;
  hint: string;
}

/** Whether something is at this path. Throws `storage_unavailable` if this user may not find out: that is not a "no". */
export function isThere(path: string): boolean {
  try {
    statSync(path);
    return true;
  } catch (error) {
    if (isNothing(error)) return false;
    throw cannotLook(path, error);
  }
}

/** Throws `storage_unavailable`, naming paths and owners, if this user may not use some part of the data directory. */
export function checkRights(dataDir: string): void {
  const problem = describeRights(dataDir);
  if (problem === null) return;
  throw new AppError("storage_unavailable", `Cannot use the data directory "${dataDir}": ${problem.message}`, {
    hint: problem.hint,
  });
}

/** The part of the data directory that this user may not use; null if there is none, or if the directory is missing. */
export function describeRights(dataDir: string): RightsProblem | null {
  return describeRefused(refusedPaths(dataDir), dataDir);
}

function describeRefused(refused: readonly Refused[], dataDir: string): RightsProblem | null {
  const [first] = refused;
  if (first === undefined) return null;
  if (refused.some(({ isReadOnlyDisk }) => isReadOnlyDisk)) {
    return {
      message: `the disk of "${first.path}" is mounted read-only`,
      hint: "see why (`dmesg`; a disk that fails is often remounted so), and mount it for writing",
    };
  }
  const told = refused.slice(0, PATHS_TOLD_MAX).map(({ path }) => `"${path}" ${ownerOf(path)}`);
  const more = refused.length - told.length;
  const user = process.getuid?.();
  // If the user owns the files, only their mode can be wrong, and changing the owner would change nothing.
  if (refused.every(({ path }) => isOwnedBy(path, user))) {
    const paths = refused.map(({ path }) => `"${path}"`).slice(0, PATHS_TOLD_MAX);
    return {
      message: `user ${user} may not use ${told.join(", ")}${more > 0 ? ` and ${more} more` : ""}`,
      hint: `give its owner the right again: chmod u+rwX ${paths.join(" ")}`,
    };
  }
  const isAbove = first.path !== dataDir && !first.path.startsWith(`${dataDir}/`);
  return {
    message: `user ${user} may not use ${told.join(", ")}${more > 0 ? ` and ${more} more` : ""}`,
    hint: isAbove
      ? `as its owner or as root: chmod o+x "${first.path}"; or set STOWAGE_DATA_DIR to a folder that user ${user} can reach`
      : `as root: chown -R ${user}:${process.getgid?.()} "${dataDir}"; or run as the user that owns it`,
  };
}

interface Refused {
  path: string;
  isReadOnlyDisk: boolean;
}

function refusedPaths(dataDir: string): Refused[] {
  const above = firstClosedAbove(dataDir);
  if (above !== null) return [{ path: above, isReadOnlyDisk: false }];
  const folder = tried(dataDir, R_OK | W_OK | X_OK);
  if (folder !== null && !folder.isReadOnlyDisk) return [folder];
  const files = [
    ...WRITTEN_FILES.map((name) => tried(join(dataDir, name), R_OK | W_OK)),
    ...READ_FILES.map((name) => tried(join(dataDir, name), R_OK)),
  ];
  const folders = objectFolders(join(dataDir, OBJECTS_FOLDER)).map((path) => tried(path, R_OK | W_OK | X_OK));
  // Folders first: nothing is known about the contents of a closed one.
  return [folder, ...folders, ...files].filter((found) => found !== null);
}

/** The first folder on the way that this user may not pass through. */
function firstClosedAbove(path: string): string | null {
  const parent = dirname(path);
  if (parent === path) return null;
  return firstClosedAbove(parent) ?? (tried(parent, X_OK) === null ? null : parent);
}

/** The folders of objects down to the second level, as far as they can be read. */
function objectFolders(top: string): string[] {
  // A file in its place is for the store to tell.
  if (isFile(top)) return [];
  const ours = OBJECT_FOLDERS.map((name) => join(top, name));
  return [top, ...ours, ...ours.flatMap(foldersIn)].slice(0, FOLDERS_TRIED_MAX);
}

function foldersIn(folder: string): string[] {
  try {
    const entries = readdirSync(folder, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map(({ name }) => join(folder, name));
  } catch {
    // It is missing, or cannot be read, which trying it shows.
    return [];
  }
}

/** Null if this user may do it, or if nothing is there. */
function tried(path: string, mode: number): Refused | null {
  try {
    accessSync(path, mode);
    return null;
  } catch (error) {
    if (isNothing(error)) return null;
    return { path, isReadOnlyDisk: codeOf(error) === "EROFS" };
  }
}

function isFile(path: string): boolean {
  try {
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

function ownerOf(path: string): string {
  try {
    const { uid, gid, mode } = statSync(path);
    return `(of user ${named(uid)}, group ${named(gid)}, mode ${(mode & 0o777).toString(8)})`;
  } catch {
    return "(whose owner it may not even ask for)";
  }
}

function isOwnedBy(path: string, user: number | undefined): boolean {
  try {
    return statSync(path).uid === user;
  } catch {
    return false;
  }
}

function named(id: number): string {
  return id === 0 ? "0, root" : String(id);
}

function cannotLook(path: string, cause: unknown): AppError {
  const closed = firstClosedAbove(path);
  const problem = closed === null ? null : describeRefused([{ path: closed, isReadOnlyDisk: false }], dirname(path));
  return new AppError(
    "storage_unavailable",
    `Cannot look for "${path}": ${problem?.message ?? (cause instanceof Error ? cause.message : String(cause))}`,
    { hint: problem?.hint ?? "see that this user may use the folder, and that its disk works", cause },
  );
}

function isNothing(error: unknown): boolean {
  return codeOf(error) === "ENOENT" || codeOf(error) === "ENOTDIR";
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";
}
