import { rmdir, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { fsyncPath, makeFolder } from "../../db/files.ts";
import { isMissing } from "./file_errors.ts";

export interface Folders {
  /** Makes a folder and those above it, up to `root`, which must be there. Their names are durable when it resolves. */
  make: (folder: string) => Promise<void>;
  /**
   * Resolves when the names in the folder, as they were at the call, survive a power loss. Where the folder itself is
   * gone, that it is gone is what survives.
   */
  sync: (folder: string) => Promise<void>;
  /** Removes those folders that are empty. Whoever puts a file into one must be ready to make it again. */
  removeEmpty: (folders: readonly string[]) => Promise<void>;
  /** Resolves when nothing is being made or removed. */
  idle: () => Promise<void>;
}

/** What happens to folders while many requests put files into them and take files out. `root` itself always stays. */
export function createFolders(root: string): Folders {
  const syncsToCome = new Map<string, Promise<void>>();
  const syncsRunning = new Map<string, Promise<void>>();

  // Folders are made and removed one after the other. Two that make neighbours at once would each find part of the
  // other's path there, and could report it as durable before the one that made it has synced it.
  let lastTurn: Promise<void> = Promise.resolve();
  function inTurn(work: () => Promise<void>): Promise<void> {
    const done = lastTurn.then(work);
    lastTurn = done.catch(() => {});
    return done;
  }

  async function make(folder: string): Promise<void> {
    // A root that is gone is a disk that is not mounted: made anew, it would hide that.
    await stat(root);
    await makeFolder(folder);
  }

  async function sync(folder: string): Promise<void> {
    // The file may lie in a folder that somebody else has made and not yet synced.
    await lastTurn;
    await syncShared(folder);
  }

  /** An fsync that begins after the call serves all who ask before it begins: under load one is made for many files. */
  function syncShared(folder: string): Promise<void> {
    const toCome = syncsToCome.get(folder);
    if (toCome !== undefined) return toCome;
    const before = syncsRunning.get(folder) ?? Promise.resolve();
    const next = before
      .catch(() => {})
      .then(() => {
        syncsToCome.delete(folder);
        const running = syncNearest(folder).finally(() => {
          if (syncsRunning.get(folder) === running) syncsRunning.delete(folder);
        });
        syncsRunning.set(folder, running);
        return running;
      });
    syncsToCome.set(folder, next);
    return next;
  }

  async function syncNearest(folder: string): Promise<void> {
    for (let path = folder; ; path = dirname(path)) {
      try {
        return await fsyncPath(path);
      } catch (error) {
        if (!isMissing(error) || path === root) throw error;
      }
    }
  }

  async function removeIfEmpty(folder: string): Promise<void> {
    try {
      await rmdir(folder);
    } catch {
      // Not empty, gone already, or not removable: an empty folder that stays harms nobody.
    }
  }

  return {
    make: (folder) => inTurn(() => make(folder)),
    sync,
    removeEmpty: (folders) =>
      inTurn(async () => {
        for (const folder of folders) await removeIfEmpty(folder);
      }),
    idle: () => lastTurn,
  };
}
