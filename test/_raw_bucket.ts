import { Client } from "minio";
import type { RawObject, RawStore } from "./_raw_store.ts";
import type { S3Server } from "./_s3_servers.ts";

const MARKER = /^final\/[^/]+\/ledger-marker$/;

export interface RawBucket extends RawStore {
  /** Makes the bucket itself; without that it is made by whoever uses it first. */
  make: () => Promise<void>;
  put: (objectKey: string, bytes: Buffer | string) => Promise<void>;
  read: (objectKey: string) => Promise<Buffer>;
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
    make: () => client.makeBucket(bucket, region),
    put,
    read,
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
