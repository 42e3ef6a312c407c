import { randomBytes } from "node:crypto";
import { renameSync } from "node:fs";
import { type FileHandle, open, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { AppError } from "../../errors.ts";
import type { Log } from "../../log.ts";
import type { ObjectStat } from "../objects.ts";
import { isMissing, toUploadError } from "./file_errors.ts";
import type { Folders } from "./folders.ts";
import type { ObjectPaths } from "./object_paths.ts";
import { statOfFile } from "./object_stat.ts";
import type { DiskSpace, Reservation } from "./space.ts";

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
  /** The length that the sender announced, or null. */
  contentLength: number | null;
  /** Whether the body's chunks belong to nobody else, so that their memory can be given back as soon as they are written. */
  ownsChunks?: boolean;
  /** Called once nothing speaks against the upload, before its first byte is read. */
  onAccept?: () => void;
}

/**
 * Stores what `body` yields under a staging key, and resolves when it would survive a power loss. Whatever goes wrong,
 * nothing of it is kept. Does not destroy the body, so that the sender can still be answered. Throws `not_found` where
 * no pending upload names the key, at the beginning or at the end; `payload_too_large` as soon as it is known;
 * `bad_request` where the length is not the one that was stated, or the body breaks off; `insufficient_storage`.
 */
export type Receive = (objectKey: string, body: AsyncIterable<Buffer>, options: ReceiveOptions) => Promise<ObjectStat>;

export interface IntakeOptions {
  paths: ObjectPaths;
  folders: Folders;
  space: DiskSpace;
  /** Whether a pending upload names this key now. */
  isPendingKey: (objectKey: string) => boolean;
  now: () => number;
  log: Log;
}

/** Takes uploads in: see `Receive`. */
export function createIntake({ paths, folders, space, isPendingKey, now, log }: IntakeOptions): Receive {
  const writers = createGate(WRITERS_MAX);
  let lastStampUs = 0;

  return async function receive(objectKey, body, options) {
    const path = paths.pathOf(objectKey);
    if (path === null || !isPendingKey(objectKey)) throw nothingPending();
    const { sizeBytes, contentLength } = options;
    if (contentLength !== null) checkLength(contentLength, options, "announces");

    const temporaryPath = join(paths.temporaryFolder, randomBytes(16).toString("hex"));
    let reservation: Reservation | null = null;
    try {
      reservation = space.reserve(contentLength ?? sizeBytes);
      const stored = await write(temporaryPath, body, options, reservation);
      await place(objectKey, temporaryPath, path);
      return stored;
    } catch (error) {
      await discard(temporaryPath);
      throw toUploadError(error);
    } finally {
      reservation?.release();
    }
  };

  async function write(
    temporaryPath: string,
    body: AsyncIterable<Buffer>,
    options: ReceiveOptions,
    reservation: Reservation,
  ): Promise<ObjectStat> {
    const file = await open(temporaryPath, "wx", 0o600);
    try {
      options.onAccept?.();
      await writeBody(file, body, options, reservation);
      // The modification time is part of the ETag, so it is ours and not the kernel's, whose clock may stand still between
      // two writes. Set before the sync: what we report must be what is found after a power loss.
      const stampSeconds = nextStampUs() / 1_000_000;
      await file.utimes(stampSeconds, stampSeconds);
      await writers(() => file.sync());
      return statOfFile(await file.stat({ bigint: true }));
    } finally {
      await file.close();
    }
  }

  async function writeBody(
    file: FileHandle,
    body: AsyncIterable<Buffer>,
    options: ReceiveOptions,
    reservation: Reservation,
  ): Promise<void> {
    let writtenBytes = 0;
    let unsyncedBytes = 0;
    for await (const chunk of body) {
      if (writtenBytes + chunk.length > options.maxBytes) throw tooLarge(options);
      const chunkBytes = chunk.length;
      reservation.take(chunkBytes);
      await writers(() => writeWhole(file, chunk));
      if (options.ownsChunks === true) freeMemory(chunk);
      writtenBytes += chunkBytes;
      unsyncedBytes += chunkBytes;
      if (unsyncedBytes >= SYNC_EVERY_BYTES) {
        reservation.check();
        await writers(() => file.datasync());
        unsyncedBytes = 0;
      }
    }
    checkLength(writtenBytes, options, "has");
    if (options.contentLength !== null && writtenBytes !== options.contentLength) throw brokeOff();
  }

  async function place(objectKey: string, temporaryPath: string, path: string): Promise<void> {
    const folder = dirname(path);
    for (let attempt = 1; ; attempt++) {
      // One step: nothing may come between the look at the row and the rename. A delete that commits before finds us
      // here, one that commits after enters the key for removal and finds the file.
      if (!isPendingKey(objectKey)) throw nothingPending();
      try {
        renameSync(temporaryPath, path);
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
      await rm(temporaryPath, { force: true });
    } catch (error) {
      log.warn("temporary_file_stays", { until: "next start", error });
    }
  }

  /** Never twice the same in a process, and later ones are higher: two uploads of one length still differ. */
  function nextStampUs(): number {
    lastStampUs = Math.max(lastStampUs + STAMP_STEP_US, Math.floor(now()) * 1_000);
    return lastStampUs;
  }
}

/** Lets so many pieces of work run at once; the others wait in order. */
function createGate(places: number): <T>(work: () => Promise<T>) => Promise<T> {
  const waiting: (() => void)[] = [];
  let free = places;
  return async (work) => {
    if (free > 0) free--;
    else await new Promise<void>((resolve) => waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next === undefined) free++;
      else next();
    }
  };
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

function nothingPending(): AppError {
  return new AppError(
    "not_found",
    "There is no pending upload for this URL: it was deleted, has expired, or is confirmed already. Create a new one",
  );
}

function brokeOff(cause?: unknown): AppError {
  return new AppError(
    "bad_request",
    "The upload broke off before its end, and nothing of it was kept: send it again",
    cause === undefined ? {} : { cause },
  );
}
