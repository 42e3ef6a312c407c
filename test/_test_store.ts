import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import type { AppOptions } from "../lib/app.ts";
import type { ObjectStore } from "../lib/store/objects.ts";
import type { TestClock } from "./_app.ts";
import type { RawBucket } from "./_raw_bucket.ts";

const STORES = ["disk", "minio", "versitygw", "garage"] as const;
type StoreName = (typeof STORES)[number];

/** The store that services under test use where the test does not say: the embedded one, or a real server. */
export const TEST_STORE: StoreName =
  STORES.find((name) => name === (process.env.STOWAGE_TEST_STORE ?? "disk")) ??
  assert.fail(`STOWAGE_TEST_STORE is "${process.env.STOWAGE_TEST_STORE}" and must be one of ${STORES.join(", ")}`);
export const IS_S3 = TEST_STORE !== "disk";

/** A test's option: it looks into the files of the embedded store, or is about what only that store does. */
export const EMBEDDED_ONLY = IS_S3 ? { skip: "it is about the embedded store" } : {};

/** The bucket that stands in for the folder of a data directory. */
export interface TestBucket {
  env: Record<string, string>;
  raw: RawBucket;
  /** What the service needs where its clock is moved: see `ownTime`. */
  inTime: (clock: TestClock) => Pick<AppOptions, "s3"> & { wrapPresigning: (objects: ObjectStore) => ObjectStore };
}

const buckets = new Map<string, Promise<TestBucket>>();

/** The bucket of a data directory, the same for every process on it; null for the embedded store. */
export function testBucket(t: TestContext, dataDir: string): Promise<TestBucket> | null {
  if (TEST_STORE === "disk") return null;
  let bucket = buckets.get(dataDir);
  if (bucket === undefined) {
    bucket = openBucket(t, TEST_STORE);
    buckets.set(dataDir, bucket);
  }
  return bucket;
}

async function openBucket(t: TestContext, make: Exclude<StoreName, "disk">): Promise<TestBucket> {
  // Loaded only where it is used: a test of the embedded store needs no S3 client.
  const { useS3Server } = await import("./_s3_servers.ts");
  const { rawBucket } = await import("./_raw_bucket.ts");
  const { ownTime, s3Env } = await import("./_s3_app.ts");
  const server = await useS3Server(t, make);
  assert.ok(server !== null, `STOWAGE_TEST_STORE is "${make}", which is not installed`);
  const name = server.newBucketName();
  const raw = rawBucket(server, name);
  // A process may be killed before it has made it, and what there is is looked at all the same.
  await raw.make();
  return { env: s3Env(server, name), raw, inTime: ownTime };
}

/** versitygw removes folders that it finds empty, also where a PUT is just making an object in one: then it answers 409. */
export function isFolderRace(status: number, text: string): boolean {
  return status === 409 && text.includes("ExistingObjectIsDirectory");
}
