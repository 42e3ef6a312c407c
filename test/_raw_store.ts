import assert from "node:assert/strict";
import { statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import type Database from "better-sqlite3";
import { Client } from "minio";
import { checkBooks, checkObjects, rawDiskObjects, rawTemporaryFiles } from "./_books.ts";
import type { S3Server } from "./_s3_servers.ts";

/** An object as it lies in the store, found and read without our own store's code. */
export interface RawObject {
  objectKey: string;
  sizeBytes: number;
  /** With its quotes, as it is charged. */
  etag: string;
  read: () => Promise<Buffer>;
}

export interface RawStore {
  /** Everything that is there, but for the marker of the ledger. */
  objects: () => Promise<RawObject[]>;
  /** The names of what is half-written. */
  halfWritten: () => string[];
}

const MARKER = /^final\/[^/]+\/ledger-marker$/;

export function rawDiskStore(dataDir: string, sql: Database.Database): RawStore {
  const installationId = installationOf(sql);
  return {
    objects: async () =>
      rawDiskObjects(dataDir, installationId).map(({ objectKey, path }) => {
        const { size, mtimeNs } = statSync(path, { bigint: true });
        const etag = `"${size.toString(16)}-${(mtimeNs / 1000n).toString(16)}"`;
        return { objectKey, sizeBytes: Number(size), etag, read: () => readFile(path) };
      }),
    halfWritten: () => rawTemporaryFiles(dataDir),
  };
}

export interface RawBucket extends RawStore {
  put: (objectKey: string, bytes: Buffer | string) => Promise<void>;
  remove: (objectKey: string) => Promise<void>;
  /** Takes the bucket away with all that is in it. Resolves with what brings both back. */
  vanish: () => Promise<() => Promise<void>>;
}

/** A bucket, seen by a client of its own that shares nothing with the service's. */
export function rawBucket({ endpoint, region, accessKey, secretKey }: S3Server, bucket: string): RawBucket {
  const { hostname, port } = new URL(endpoint);
  const client = new Client({ endPoint: hostname, port: Number(port), useSSL: false, region, accessKey, secretKey });

  async function all(): Promise<RawObject[]> {
    const found: RawObject[] = [];
    for await (const { name, size, etag } of client.listObjectsV2(bucket, "", true)) {
      found.push({ objectKey: name, sizeBytes: size, etag: `"${etag}"`, read: () => read(name) });
    }
    return found;
  }

  async function read(objectKey: string): Promise<Buffer> {
    const chunks: Buffer[] = [];
    for await (const chunk of await client.getObject(bucket, objectKey)) chunks.push(chunk);
    return Buffer.concat(chunks);
  }

  async function put(objectKey: string, bytes: Buffer | string): Promise<void> {
    await client.putObject(bucket, objectKey, bytes);
  }

  return {
    objects: async () => (await all()).filter(({ objectKey }) => !MARKER.test(objectKey)),
    halfWritten: () => [],
    put,
    remove: (objectKey) => client.removeObject(bucket, objectKey),
    async vanish() {
      const kept: { objectKey: string; bytes: Buffer }[] = [];
      for (const { objectKey } of await all()) {
        kept.push({ objectKey, bytes: await read(objectKey) });
        await client.removeObject(bucket, objectKey);
      }
      await client.removeBucket(bucket);
      return async () => {
        await client.makeBucket(bucket, region);
        for (const { objectKey, bytes } of kept) await put(objectKey, bytes);
      };
    },
  };
}

/**
 * Checks what the raw database and the raw store say together: BOOKS, ONCE, ROW-FIRST, NO-ORPHAN, and NO-GHOST down to the
 * size and ETag that were charged. Nothing may be under way in the store. `alone` may stand without a row or an entry.
 */
export async function checkRaw(sql: Database.Database, store: RawStore, alone: readonly string[] = []): Promise<void> {
  checkBooks(sql);
  const standsAlone = new Set(alone);
  const objects = (await store.objects()).filter(({ objectKey }) => !standsAlone.has(objectKey));
  checkObjects(
    sql,
    objects.map(({ objectKey }) => objectKey),
  );
  const found = new Map(objects.map((object) => [object.objectKey, object]));
  for (const { objectKey, sizeBytes, etag } of charged(sql)) {
    const object = found.get(objectKey);
    assert.deepEqual(
      [object?.sizeBytes, object?.etag],
      [sizeBytes, etag],
      `NO-GHOST: the object of ${objectKey} is the one that was charged`,
    );
  }
}

/** What should be left when nothing is left to do: the objects of confirmed uploads, no entry, nothing half-written. */
export async function checkRawDrained(sql: Database.Database, store: RawStore): Promise<void> {
  await checkRaw(sql, store);
  const entries = sql.prepare("SELECT object_key, attempts, last_error FROM object_removals").all();
  assert.deepEqual(entries, [], "nothing is left to be removed");
  const pending = sql.prepare("SELECT object_key FROM uploads WHERE status = 'pending'").pluck().all();
  const keys = (await store.objects()).map(({ objectKey }) => objectKey).filter((key) => !pending.includes(key));
  const confirmed = charged(sql).map(({ objectKey }) => objectKey);
  assert.deepEqual(keys.sort(), confirmed.sort(), "the objects left are exactly the confirmed ones");
  assert.deepEqual(store.halfWritten(), [], "nothing half-written is left");
}

export function installationOf(sql: Database.Database): string {
  return sql.prepare<[], string>("SELECT id FROM installation").pluck().get() ?? assert.fail();
}

function charged(sql: Database.Database) {
  return sql
    .prepare<[], { objectKey: string; sizeBytes: number; etag: string }>(
      "SELECT object_key AS objectKey, size_bytes AS sizeBytes, etag FROM uploads WHERE status = 'uploaded'",
    )
    .all();
}
