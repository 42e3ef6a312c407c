import { closeSync, fdatasync, fstatSync, fsync, futimesSync, open, writev } from "node:fs";
import { promisify } from "node:util";
import type { ObjectStat } from "../objects.ts";
import type { BodyMemory } from "./body_memory.ts";
import type { FairGate } from "./fair_gate.ts";
import { statOfFile } from "./stamps.ts";

/**
 * Bytes between two syncs of a file that is being written. One sync at the end of 1 GiB was measured to stall commits
 * on the same disk for 110 ms, this way 7 ms.
 */
const SYNC_EVERY_BYTES = 8 * 1024 * 1024;

/** Bytes that are written in one call, as far as there is memory to collect them: each call is a trip to another thread. */
const WRITE_BYTES = 256 * 1024;

const openFile = promisify(open);
const syncFile = promisify(fsync);
const syncData = promisify(fdatasync);

/** A file that is being written, from its beginning to its end. */
export interface FileWriter {
  /** Takes a chunk over; it is written in a while. */
  add: (chunk: Buffer) => Promise<void>;
  /**
   * Writes what is left, gives the file the stamp as its modification time, and makes both survive a power loss. Resolves
   * with what the file system has of it.
   */
  finish: (stampUs: number) => Promise<ObjectStat>;
  close: () => void;
}

export interface FileWriterOptions {
  /** In whose turn it is written, and who takes turns. */
  ownerId: string;
  gate: FairGate;
  memory: BodyMemory;
  /** Whether the chunks belong to nobody else, so that their memory can be given back as soon as they are written. */
  ownsChunks: boolean;
  /** Called before a sync in the middle of a file: throws if it should not be written any further. */
  check: () => void;
}

/** Makes a new file and writes to it. The file's own calls that cannot wait for the disk are made at once, not on a thread. */
export async function createFileWriter(path: string, options: FileWriterOptions): Promise<FileWriter> {
  const { ownerId, gate, memory, ownsChunks, check } = options;
  const fd = await openFile(path, "wx", 0o600);
  let waiting: Buffer[] = [];
  let waitingBytes = 0;
  let unsyncedBytes = 0;

  async function write(): Promise<void> {
    const chunks = waiting;
    unsyncedBytes += waitingBytes;
    waiting = [];
    waitingBytes = 0;
    if (chunks.length === 0) return;
    await gate(ownerId, () => writeWhole(fd, chunks));
    memory.release();
    if (ownsChunks) for (const chunk of chunks) freeMemory(chunk);
    if (unsyncedBytes < SYNC_EVERY_BYTES) return;
    check();
    await gate(ownerId, () => syncData(fd));
    unsyncedBytes = 0;
  }

  return {
    async add(chunk) {
      if (chunk.length === 0) return;
      waiting.push(chunk);
      waitingBytes += chunk.length;
      if (!memory.take(chunk.length) || waitingBytes >= WRITE_BYTES) await write();
    },
    async finish(stampUs) {
      await write();
      // Before the sync: what we report must be what is found after a power loss.
      futimesSync(fd, stampUs / 1_000_000, stampUs / 1_000_000);
      await gate(ownerId, () => syncFile(fd));
      return statOfFile(fstatSync(fd, { bigint: true }));
    },
    close: () => closeSync(fd),
  };
}

/** A single write may be short, for instance just before the disk is full. */
function writeWhole(fd: number, chunks: readonly Buffer[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const write = (rest: readonly Buffer[]): void => {
      writev(fd, rest, (error, bytesWritten) => {
        if (error !== null) return reject(error);
        const left = restAfter(rest, bytesWritten);
        if (left.length === 0) resolve();
        else write(left);
      });
    };
    write(chunks);
  });
}

function restAfter(chunks: readonly Buffer[], writtenBytes: number): Buffer[] {
  let skipBytes = writtenBytes;
  return chunks.flatMap((chunk) => {
    const skipped = Math.min(skipBytes, chunk.length);
    skipBytes -= skipped;
    return skipped === chunk.length ? [] : [chunk.subarray(skipped)];
  });
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
