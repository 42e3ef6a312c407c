import { createHash, randomBytes } from "node:crypto";
import { renameSync } from "node:fs";
import { type FileHandle, open, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { noPendingUpload, type Staging } from "../../books/staging.ts";
import { AppError } from "../../errors.ts";
import type { Log } from "../../log.ts";
import type { ObjectStat } from "../objects.ts";
import type { Admission, Admitted } from "./admission.ts";
import { createFairGate } from "./fair_gate.ts";
import { isMissing, toUploadError } from "./file_errors.ts";
import type { Folders } from "./folders.ts";
import { type ObjectPaths, statOfFile } from "./object_paths.ts";

/**
 * Uploads that write or sync at the same moment. The file system's calls share four threads (libuv's default), and a
 * sync may hold one for long: one thread stays free for downloads and removals.
 */
const WRITERS_MAX = 3;

/**
 * Bytes between two syncs of a file that is being written. One sync at the end of 1 GiB was measured to stall commits
 * on the same disk for 110 ms, this way 7 ms.
 */
const SYNC_EVERY_BYTES = 8 * 1024 * 1024;

/** Steps of the modification times that we set. A double holds today's seconds to a quarter of a microsecond. */
const STAMP_STEP_US = 4;

/** A folder can be removed, being empty, just before a file is put into it. That this happens so often in a row is a defect. */
const PLACE_ATTEMPTS_MAX = 10;

export interface ReceiveOptions {
  /** The exact length that must be sent; null where any up to `maxBytes` may. */
  sizeBytes: number | null;
  maxBytes: number;
  /** The SHA-256 of the bytes, in hex, as it was stated or announced; null where it was neither. */
  checksumSha256?: string | null;
  /** The length that the sender announced, or null. */
  contentLength: number | null;
  /** Whether the body's chunks belong to nobody else, so that their memory can be given back as soon as they are written. */
  ownsChunks?: boolean;
  /** Called once nothing speaks against the upload, before its first byte is read. */
  onAccept?: () => void;
}

/**
 * Stores what `body` yields under a staging key, and resolves when it would survive a power loss. Whatever goes wrong,
 * nothing of it is kept. Throws `not_found` if no pending upload names the key, at the beginning or at the end;
 * `rate_limited` if too many are under way; `payload_too_large` as soon as it is known; `bad_request` if the length or
 * the checksum is not the one that was stated or announced; `storage_limit_exceeded` or `rate_limited` if the owner may not stage so much;
 * `insufficient_storage`. What iterating the body throws passes through as it is.
 */
export type Receive = (objectKey: string, body: AsyncIterable<Buffer>, options: ReceiveOptions) => Promise<ObjectStat>;

export interface IntakeOptions {
  paths: ObjectPaths;
  folders: Folders;
  admit: Admission;
  staging: Pick<Staging, "findOwner" | "whilePending">;
  now: () => number;
  log: Log;
}

/** A PUT that may be written, and whose it is. */
interface OwnedPut extends Admitted {
  ownerId: string;
}

/** Takes uploads in: see `Receive`. */
export function createIntake({ paths, folders, admit, staging, now, log }: IntakeOptions): Receive {
  const writers = createFairGate(WRITERS_MAX);
  let lastStampUs = 0;

  return async function receive(objectKey, body, options) {
    const path = paths.pathOf(objectKey);
    if (path === null) throw noPendingUpload();
    const ownerId = await staging.findOwner(objectKey);
    const { sizeBytes, contentLength } = options;
    if (contentLength !== null) checkLength(contentLength, options, "announces");

    const temporaryPath = join(paths.temporaryFolder, randomBytes(16).toString("hex"));
    // Outside of what discards the file: a flood of refused uploads must cost no call of the file system.
    const admitted = await admitOrRefuse(objectKey, ownerId, contentLength ?? sizeBytes);
    try {
      const stored = await write(temporaryPath, body, options, { ...admitted, ownerId });
      await place(objectKey, temporaryPath, path);
      admitted.stored(stored.sizeBytes);
      return stored;
    } catch (error) {
      await discard(temporaryPath);
      throw error instanceof SenderFailed ? error.cause : toUploadError(error);
    } finally {
      admitted.end();
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

  async function write(
    temporaryPath: string,
    body: AsyncIterable<Buffer>,
    options: ReceiveOptions,
    put: OwnedPut,
  ): Promise<ObjectStat> {
    const file = await open(temporaryPath, "wx", 0o600);
    try {
      options.onAccept?.();
      await writeBody(file, body, options, put);
      // The modification time is part of the ETag, so it is ours and not the kernel's, whose clock may stand still between
      // two writes. Set before the sync: what we report must be what is found after a power loss.
      const stampSeconds = nextStampUs() / 1_000_000;
      await file.utimes(stampSeconds, stampSeconds);
      await writers(put.ownerId, () => file.sync());
      return statOfFile(await file.stat({ bigint: true }));
    } finally {
      await file.close();
    }
  }

  async function writeBody(
    file: FileHandle,
    body: AsyncIterable<Buffer>,
    options: ReceiveOptions,
    put: OwnedPut,
  ): Promise<void> {
    const { checksumSha256 = null } = options;
    const hash = checksumSha256 === null ? null : createHash("sha256");
    let writtenBytes = 0;
    let unsyncedBytes = 0;
    for await (const chunk of tellApart(body)) {
      if (writtenBytes + chunk.length > options.maxBytes) throw tooLarge(options);
      const chunkBytes = chunk.length;
      await put.take(chunkBytes);
      hash?.update(chunk);
      await writers(put.ownerId, () => writeWhole(file, chunk));
      if (options.ownsChunks === true) freeMemory(chunk);
      writtenBytes += chunkBytes;
      unsyncedBytes += chunkBytes;
      if (unsyncedBytes >= SYNC_EVERY_BYTES) {
        put.check();
        await writers(put.ownerId, () => file.datasync());
        unsyncedBytes = 0;
      }
    }
    checkLength(writtenBytes, options, "has");
    if (options.contentLength !== null && writtenBytes !== options.contentLength) throw brokeOff();
    const foundSha256 = hash?.digest("hex");
    if (foundSha256 !== undefined && foundSha256 !== checksumSha256) throw otherBytes(foundSha256, checksumSha256);
  }

  async function place(objectKey: string, temporaryPath: string, path: string): Promise<void> {
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

  /** Never twice the same in a process, and later ones are higher: two uploads of one length still differ. */
  function nextStampUs(): number {
    lastStampUs = Math.max(lastStampUs + STAMP_STEP_US, Math.floor(now()) * 1_000);
    return lastStampUs;
  }
}

/** Wraps what iterating a body threw, so that it is not taken for a failure of the file system. */
class SenderFailed extends Error {}

async function* tellApart(body: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  try {
    yield* body;
  } catch (error) {
    throw new SenderFailed("The body failed", { cause: error });
  }
}

/** A single write may be short, for instance just before the disk is full. */
async function writeWhole(file: FileHandle, chunk: Buffer): Promise<void> {
  for (let done = 0; done < chunk.length; ) {
    const { bytesWritten } = await file.write(chunk, done);
    done += bytesWritten;
  }
}

/**
 * Gives a chunk's memory back at once. The collector does not hurry with memory outside of its heap: a PUT of 1 GiB was
 * measured to grow the process by 48 MiB without this, and by 4 MiB with it.
 */
function freeMemory(chunk: Buffer): void {
  const { buffer } = chunk;
  // A chunk that is part of a larger piece of memory shares it with others.
  if (buffer instanceof ArrayBuffer && buffer.byteLength === chunk.length) buffer.transfer(0);
}

function checkLength(bytes: number, options: ReceiveOptions, verb: "announces" | "has"): void {
  if (bytes > options.maxBytes) throw tooLarge(options);
  if (options.sizeBytes !== null && bytes !== options.sizeBytes) {
    throw new AppError(
      "bad_request",
      `Cannot store the upload: its size was stated as ${options.sizeBytes} bytes when it was created, and the body ${verb} ${bytes}. Send the file that was meant, or create a new upload`,
    );
  }
}

function tooLarge({ sizeBytes, maxBytes }: ReceiveOptions): AppError {
  return new AppError(
    "payload_too_large",
    sizeBytes === null
      ? `Cannot store the upload: this URL takes at most ${maxBytes} bytes`
      : `Cannot store the upload: its size was stated as ${sizeBytes} bytes when it was created, and the body has more. Send the file that was meant, or create a new upload`,
  );
}

function otherBytes(foundSha256: string, checksumSha256: string | null): AppError {
  return new AppError(
    "bad_request",
    `Cannot store the upload: the SHA-256 of its bytes is ${foundSha256} and not ${checksumSha256}, as was stated, and nothing of it was kept. Send the file that was meant, or create a new upload`,
  );
}

/** The body ended, or its sender went away, before all of it had come. */
function brokeOff(): AppError {
  return new AppError("bad_request", "The upload broke off before its end, and nothing of it was kept: send it again");
}
