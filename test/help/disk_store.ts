import { randomBytes } from "node:crypto";
import { readdirSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { type TestContext, test } from "node:test";
import { newObjectKey } from "../../lib/books/object_keys.ts";
import { noPendingUpload } from "../../lib/books/staging.ts";
import { newId } from "../../lib/ids.ts";
import { createLog } from "../../lib/log.ts";
import { createDiskStore, type DiskStore, type DiskStoreOptions } from "../../lib/store/disk/objects_disk.ts";
import type { ObjectStat } from "../../lib/store/objects.ts";
import { rawPathIn, rawRows } from "./raw_objects.ts";

export const INSTALLATION_ID = "0123456789abcdef";

export interface TestStore {
  store: DiskStore;
  objectsDir: string;
  options: DiskStoreOptions;
  /** The keys that a pending upload names: the test's stand-in for the rows. */
  pending: Set<string>;
  /** A fresh staging key that is pending. */
  newPendingKey: () => string;
  put: (objectKey: string, bytes: string | Buffer) => Promise<ObjectStat>;
  text: (objectKey: string) => Promise<string>;
  /** Where an object's file must be, written down a second time. */
  pathOf: (objectKey: string) => string;
  /** Every file below the store's folder, half-written ones included, but for the file of small objects. */
  files: () => string[];
  /** The keys of all small objects that are rows, in order. */
  rows: () => string[];
  /** Files and rows together. */
  everything: () => string[];
}

/** A store on a folder of its own, removed after the test. */
export async function openTestStore(t: TestContext, changes: Partial<DiskStoreOptions> = {}): Promise<TestStore> {
  const dataDir = await mkdtemp(join(tmpdir(), "stowage_test_"));
  t.after(() => rm(dataDir, { recursive: true, force: true }));
  const pending = new Set<string>();
  const options: DiskStoreOptions = {
    objectsDir: join(dataDir, "objects"),
    installationId: INSTALLATION_ID,
    publicUrl: () => "http://127.0.0.1:8000",
    signingKey: randomBytes(32),
    maxUploadBytes: 1024 * 1024,
    minFreeBytes: 0,
    staging: stagingOf((objectKey) => pending.has(objectKey)),
    sweep: true,
    now: Date.now,
    log: createLog({ level: "silent", write: () => {} }),
    ...changes,
  };
  const store = createDiskStore(options);
  await store.prepare({ makes: true });
  t.after(() => store.close());
  const { objectsDir } = options;

  const files = (): string[] =>
    readdirSync(objectsDir, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name).slice(objectsDir.length + 1))
      .filter((path) => !path.startsWith("small.db"))
      .sort();
  const rows = (): string[] => rawRows(objectsDir).map(({ objectKey }) => objectKey);

  return {
    store,
    objectsDir,
    options,
    pending,
    newPendingKey() {
      const objectKey = newObjectKey("staging", INSTALLATION_ID, newId());
      pending.add(objectKey);
      return objectKey;
    },
    put: (objectKey, bytes) =>
      store.receive(objectKey, Readable.from([Buffer.from(bytes)]), {
        sizeBytes: null,
        maxBytes: options.maxUploadBytes,
        contentLength: Buffer.byteLength(bytes),
      }),
    async text(objectKey) {
      const chunks: Buffer[] = [];
      for await (const chunk of await store.read(objectKey)) chunks.push(chunk);
      return Buffer.concat(chunks).toString();
    },
    pathOf: (objectKey) => rawPathIn(objectsDir, objectKey),
    files,
    rows,
    everything: () => [...files(), ...rows()],
  };
}

/** One owner's uploads, as far as a store sees them. */
export function stagingOf(isPending: (objectKey: string) => boolean, ownerId = "owner"): DiskStoreOptions["staging"] {
  return uncounted((objectKey) => (isPending(objectKey) ? ownerId : null));
}

/** As if nobody were bounded in what they stage. */
export function uncounted(ownerOf: (objectKey: string) => string | null): DiskStoreOptions["staging"] {
  const findOwner = async (objectKey: string): Promise<string> => {
    const ownerId = ownerOf(objectKey);
    if (ownerId === null) throw noPendingUpload();
    return ownerId;
  };
  return {
    findOwner,
    checkPending(objectKey) {
      if (ownerOf(objectKey) === null) throw noPendingUpload();
    },
    statusOf: (objectKey) => (ownerOf(objectKey) === null ? null : "pending"),
    async whilePending(objectKey, place) {
      if (ownerOf(objectKey) === null) throw noPendingUpload();
      return place();
    },
    isNamed: async () => true,
    stagedBytes: () => 0,
    beginPut: async () => ({ growTo: async () => {}, stored: () => {}, end: () => {} }),
  };
}

/** The final key for the upload of a staging key. */
export function finalKeyFor(stagingKey: string): string {
  return newObjectKey("final", INSTALLATION_ID, stagingKey.split("/")[2] ?? "");
}

/** All objects as files of their own, as they were before there was a file of small ones. */
export const AS_FILES: Partial<DiskStoreOptions> = { smallBytesMax: -1 };

/** Registers a test twice: with small objects as rows, and with all objects as files. */
export function testBoth(
  name: string,
  body: (t: TestContext, open: (changes?: Partial<DiskStoreOptions>) => Promise<TestStore>) => Promise<void>,
): void {
  for (const [kind, as] of [
    ["rows", {}],
    ["files", AS_FILES],
  ] as const) {
    test(`${name} (${kind})`, (t) => body(t, (changes = {}) => openTestStore(t, { ...as, ...changes })));
  }
}
