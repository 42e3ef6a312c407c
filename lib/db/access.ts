import { accessSync, constants, readdirSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { AppError } from "../errors.ts";

/** What lies in a data directory and must be readable and writable for whoever uses it. */
const WRITTEN_FILES = [
  "stowage.db",
  "stowage.db-wal",
  "stowage.db-shm",
  "stowage.db-journal",
  "stowage.reserve",
  "serve.lock",
  "serve.lock-journal",
  "check.lock",
] as const;
/** Written once, when it is made: later it may be kept from all writing. */
const READ_FILES = ["url_signing.key"] as const;
const OBJECTS = "objects";
/** Ours among the objects. What else lies there, such as the `lost+found` of a disk of its own, is nobody's concern. */
const OBJECT_FOLDERS = ["tmp", "staging", "final"] as const;
/** Folders of objects that are tried. Those below lie in thousands; doctor comes to all of them. */
const FOLDERS_TRIED_MAX = 1_000;
/** As many paths as a message names. */
const PATHS_TOLD_MAX = 3;

const { R_OK, W_OK, X_OK } = constants;

/** Who may not use what, and the command that mends it. */
export interface RightsProblem {
  message: string;
  hint: string;
}

/** Whether something is at this path. Throws `storage_unavailable` where this user may not look: that is not "no". */
export function isThere(path: string): boolean {
  try {
    statSync(path);
    return true;
  } catch (error) {
    if (isNothing(error)) return false;
    throw cannotLook(path, error);
  }
}

/** Throws `storage_unavailable` where this user may not use some part of the data directory, with who owns what. */
export function checkRights(dataDir: string): void {
  const problem = describeRights(dataDir);
  if (problem === null) return;
  throw new AppError("storage_unavailable", `Cannot use the data directory "${dataDir}": ${problem.message}`, {
    hint: problem.hint,
  });
}

/** What of the data directory this user may not use; null where it is all right, or is not there at all. */
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
  // Of one's own files the mode alone can be wrong, and changing the owner would change nothing.
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
  const folders = objectFolders(join(dataDir, OBJECTS)).map((path) => tried(path, R_OK | W_OK | X_OK));
  return [folder, ...files, ...folders].filter((found) => found !== null);
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
    // Not there, or not to be read, which trying it tells.
    return [];
  }
}

/** Null where this user may do it, or nothing is there. */
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
