import { randomBytes } from "node:crypto";
import { readdirSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import type { TestContext } from "node:test";
import { newId, newObjectKey } from "../lib/ids.ts";
import { createLog } from "../lib/log.ts";
import {
  createDiskStore,
  type DiskStore,
  type DiskStoreOptions,
  type Staging,
} from "../lib/store/disk/objects_disk.ts";
import type { ObjectStat } from "../lib/store/objects.ts";

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
  /** Every file below the store's folder, half-written ones included. */
  files: () => string[];
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
        contentLength: null,
      }),
    async text(objectKey) {
      const chunks: Buffer[] = [];
      for await (const chunk of await store.read(objectKey)) chunks.push(chunk);
      return Buffer.concat(chunks).toString();
    },
    pathOf(objectKey) {
      const [place = "", , uploadId = "", random = ""] = objectKey.split("/");
      return join(objectsDir, place, uploadId.slice(0, 5), uploadId.slice(5, 8), `${uploadId}.${random}`);
    },
    files: () =>
      readdirSync(objectsDir, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => join(entry.parentPath, entry.name).slice(objectsDir.length + 1))
        .sort(),
  };
}

/** One owner's uploads, as far as a store sees them. */
export function stagingOf(isPending: (objectKey: string) => boolean, ownerId = "owner"): Staging {
  return uncounted((objectKey) => (isPending(objectKey) ? ownerId : null));
}

/** As if nobody were bounded in what they stage. */
export function uncounted(ownerOf: Staging["ownerOf"]): Staging {
  const put = { growTo: () => {}, stored: () => {}, end: () => {} };
  return { ownerOf, isNamed: () => true, stagedBytes: () => 0, beginPut: () => put };
}

/** The final key for the upload of a staging key. */
export function finalKeyFor(stagingKey: string): string {
  return newObjectKey("final", INSTALLATION_ID, stagingKey.split("/")[2] ?? "");
}
