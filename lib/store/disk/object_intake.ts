import { randomBytes } from "node:crypto";
import { renameSync, statSync } from "node:fs";
import { unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { noPendingUpload, type Staging } from "../../books/staging.ts";
import type { Log } from "../../log.ts";
import type { ObjectStat } from "../objects.ts";
import type { Admission, Admitted } from "./admission.ts";
import { type BodyLimits, createBodyCheck } from "./body_check.ts";
import { type BodyMemory, createBodyMemory } from "./body_memory.ts";
import { createFairGate } from "./fair_gate.ts";
import { isMissing, toUploadError } from "./file_errors.ts";
import { createFileWriter } from "./file_writer.ts";
import type { Folders } from "./folders.ts";
import { createKeyTurns } from "./key_turns.ts";
import type { ObjectPaths } from "./object_paths.ts";
import { readSmallBody } from "./small_body.ts";
import type { SmallObjects } from "./small_objects.ts";
import { createStamps, statOf, statOfFile } from "./stamps.ts";

/**
 * Files that are written or synced at the same moment. The file system's calls share four threads (libuv's default), and a
 * sync may hold one for long: one thread stays free for downloads and removals.
 */
const WRITERS_MAX = 3;

/** A folder can be removed, being empty, just before a file is put into it. That this happens so often in a row is a defect. */
const PLACE_ATTEMPTS_MAX = 10;

export interface ReceiveOptions extends BodyLimits {
  /** Whether the body's chunks belong to nobody else, so that their memory can be given back as soon as they are written. */
  ownsChunks?: boolean;
  /** Called once nothing speaks against the upload, before its first byte is read. */
  onAccept?: () => void;
  /**
   * Called with the object under the key, or null, before the body is read and again just before it takes that place. Throws
   * to refuse it.
   */
  checkReplaced?: ((current: ObjectStat | null) => void) | undefined;
}

/**
 * Stores what `body` yields under a staging key, and resolves when it would survive a power loss. Whatever goes wrong,
 * nothing of it is kept. Throws `not_found` if no pending upload names the key, at the beginning or at the end;
 * `rate_limited` if too many are under way; `payload_too_large` as soon as it is known; `bad_request` if the length or
 * a checksum is not the one that was stated or announced; `storage_limit_exceeded` or `rate_limited` if the owner may not stage so much;
 * `insufficient_storage`. An error of the body itself passes through as it is.
 */
export type Receive = (objectKey: string, body: AsyncIterable<Buffer>, options: ReceiveOptions) => Promise<ObjectStat>;

export interface IntakeOptions {
  /** Larger objects are files of their own; below 0, all are. */
  smallBytesMax: number;
  paths: ObjectPaths;
  folders: Folders;
  small: SmallObjects;
  /** Removes the files under these keys, and resolves with the reason for each that may still be there. */
  removeFiles: (objectKeys: readonly string[]) => Promise<Map<string, string>>;
  admit: Admission;
  staging: Pick<Staging, "findOwner" | "whilePending">;
  /** Whether the SHA-256 of every upload is computed, even if nobody stated it. */
  computesSha256: boolean;
  now: () => number;
  log: Log;
}

/** A PUT that may be written. */
interface AdmittedPut extends Pick<Admitted, "check"> {
  objectKey: string;
  /** Where its file goes, if it becomes one. */
  path: string;
  ownerId: string;
  ownsChunks: boolean;
  memory: BodyMemory;
  /** Throws if the object must not take its place. */
  checkReplaced: () => void;
}

/**
 * Takes uploads in: see `Receive`. A body that is known to be small becomes a row, any other a file. Under one key there may be both
 * for a moment, or after a crash: then the row is what counts.
 */
export function createIntake(parts: IntakeOptions): Receive {
  const { smallBytesMax, paths, folders, small, removeFiles, admit, staging, computesSha256, now, log } = parts;
  const writers = createFairGate(WRITERS_MAX);
  const nextStampUs = createStamps(now);
  const inTurn = createKeyTurns();
  const takeMemory = createBodyMemory();

  return async function receive(objectKey, body, options) {
    const path = paths.pathOf(objectKey);
    if (path === null) throw noPendingUpload();
    const ownerId = await staging.findOwner(objectKey);
    const check = createBodyCheck({ ...options, computesSha256 });
    const lengthBytes = options.contentLength ?? options.sizeBytes;
    // Outside of what discards a file: a flood of refused uploads must cost no call of the file system.
    const admitted = await admitOrRefuse(objectKey, ownerId, lengthBytes);
    const memory = takeMemory();
    const ownsChunks = options.ownsChunks === true;
    const checkReplaced = (): void => options.checkReplaced?.(currentStat(objectKey, path));
    const put = { objectKey, path, ownerId, ownsChunks, memory, check: admitted.check, checkReplaced };
    const chunks = bytesOf(body, (chunk) => {
      check.accept(chunk);
      return admitted.take(chunk.length);
    });
    try {
      checkReplaced();
      const stored = await store();
      admitted.stored(stored.sizeBytes);
      return stored;
    } catch (error) {
      throw error instanceof SenderFailed ? error.cause : toUploadError(error);
    } finally {
      memory.release();
      admitted.end();
      await chunks.return(undefined);
    }

    async function store(): Promise<ObjectStat> {
      const isSmall = lengthBytes !== null && lengthBytes <= smallBytesMax;
      if (!isSmall || !memory.take(lengthBytes)) {
        return await storeFile(put, { chunks, finish: check.finish, onAccept: options.onAccept });
      }
      options.onAccept?.();
      const bytes = await readSmallBody(chunks, lengthBytes);
      const checksumSha256 = check.finish();
      return withChecksum(await storeRow(put, bytes), checksumSha256);
    }
  };

  async function admitOrRefuse(objectKey: string, ownerId: string, announcedBytes: number | null): Promise<Admitted> {
    try {
      return await admit(objectKey, ownerId, announcedBytes);
    } catch (error) {
      // It asks the file system how much is free.
      throw toUploadError(error);
    }
  }

  function currentStat(objectKey: string, path: string): ObjectStat | null {
    const row = small.stat(objectKey);
    if (row !== null) return row;
    const file = statSync(path, { bigint: true, throwIfNoEntry: false });
    return file === undefined ? null : statOfFile(file);
  }

  function storeRow({ objectKey, path, checkReplaced }: AdmittedPut, bytes: Buffer): Promise<ObjectStat> {
    const stampUs = nextStampUs();
    return inTurn(objectKey, async () => {
      checkReplaced();
      const hasFile = (): boolean => statSync(path, { throwIfNoEntry: false }) !== undefined;
      const { fileBeside } = await small.put(objectKey, bytes, { stampUs, hasFile });
      // Whatever was under this key before.
      if (fileBeside) await removeFile(objectKey);
      return statOf(bytes.length, stampUs);
    });
  }

  async function removeFile(objectKey: string): Promise<void> {
    const reason = (await removeFiles([objectKey])).get(objectKey);
    // The row counts, and whoever removes it comes to the file as well.
    if (reason !== undefined) log.warn("replaced_file_stays", { until: "its upload is removed", reason });
  }

  async function storeFile(put: AdmittedPut, body: FileBody): Promise<ObjectStat> {
    const temporaryPath = join(paths.temporaryFolder, randomBytes(16).toString("hex"));
    try {
      const stored = await writeFile(temporaryPath, put, body);
      await inTurn(put.objectKey, async () => {
        put.checkReplaced();
        // A row under this key counts until it is gone, and is marked: whoever removes it comes to the file as well.
        const hasRow = await small.noteFile(put.objectKey);
        await place(put, temporaryPath);
        if (hasRow) await small.replaceByFile(put.objectKey);
      });
      return stored;
    } catch (error) {
      await discard(temporaryPath);
      throw error;
    }
  }

  async function writeFile(temporaryPath: string, put: AdmittedPut, body: FileBody): Promise<ObjectStat> {
    const file = await createFileWriter(temporaryPath, { ...put, gate: writers });
    try {
      body.onAccept?.();
      for await (const chunk of body.chunks) await file.add(chunk);
      const checksumSha256 = body.finish();
      // The modification time is part of the ETag, so it is ours and not the kernel's, whose clock may stand still between
      // two writes.
      return withChecksum(await file.finish(nextStampUs()), checksumSha256);
    } finally {
      file.close();
    }
  }

  async function place({ objectKey, path }: AdmittedPut, temporaryPath: string): Promise<void> {
    const folder = dirname(path);
    for (let attempt = 1; ; attempt++) {
      try {
        await staging.whilePending(objectKey, () => renameSync(temporaryPath, path));
        break;
      } catch (error) {
        if (!isMissing(error) || attempt === PLACE_ATTEMPTS_MAX) throw error;
      }
      await folders.make(folder);
    }
    await folders.sync(folder);
  }

  async function discard(temporaryPath: string): Promise<void> {
    try {
      await unlink(temporaryPath);
    } catch (error) {
      if (!isMissing(error)) log.warn("temporary_file_stays", { until: "next start", error });
    }
  }
}

/** A body that is written to a file. */
interface FileBody {
  chunks: AsyncIterable<Buffer>;
  /** To be called when all has come. Returns its SHA-256 if that was computed. Throws if it is not what it should be. */
  finish: () => string | null;
  /** Called once there is a file to write to. */
  onAccept?: (() => void) | undefined;
}

function withChecksum(stat: ObjectStat, checksumSha256: string | null): ObjectStat {
  return checksumSha256 === null ? stat : { ...stat, checksumSha256 };
}

/** Wraps what iterating a body threw, so that it is not taken for a failure of the file system. */
class SenderFailed extends Error {}

/** A body's chunks, each looked at before it goes on. */
async function* bytesOf(body: AsyncIterable<Buffer>, accept: (chunk: Buffer) => Promise<void>): AsyncGenerator<Buffer> {
  const chunks = body[Symbol.asyncIterator]();
  try {
    for (;;) {
      const { value, done } = await nextOf(chunks);
      if (done === true) return;
      await accept(value);
      yield value;
    }
  } finally {
    await chunks.return?.();
  }
}

async function nextOf(chunks: AsyncIterator<Buffer>): Promise<IteratorResult<Buffer>> {
  try {
    return await chunks.next();
  } catch (error) {
    throw new SenderFailed("The body failed", { cause: error });
  }
}
