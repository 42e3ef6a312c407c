import type { TestContext } from "node:test";
import { startTestApp, type TestApp, type TestAppOptions } from "./_app.ts";
import { rawBucket } from "./_raw_bucket.ts";
import { s3Env } from "./_s3_app.ts";
import { S3_MAKES, useS3Server } from "./_s3_servers.ts";

/** Every store, for tests that are about what each of them does. */
export const EACH_STORE = ["disk", ...S3_MAKES] as const;
export type EachStore = (typeof EACH_STORE)[number];

/** A service with this store, whatever the tests use otherwise. Null where the server is not installed. */
export async function startAppOn(
  t: TestContext,
  store: EachStore,
  { env, ...options }: TestAppOptions = {},
): Promise<TestApp | null> {
  if (store === "disk") return startTestApp(t, { ...options, env: { ...env, STOWAGE_STORE: "disk" } });
  const server = await useS3Server(t, store);
  if (server === null) return null;
  const bucket = server.newBucketName();
  const app = await startTestApp(t, { ...options, env: { ...s3Env(server, bucket), ...env } });
  return { ...app, raw: rawBucket(server, bucket) };
}
