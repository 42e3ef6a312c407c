import assert from "node:assert/strict";
import { join } from "node:path";
import type { TestContext } from "node:test";
import type { S3StoreTimeouts } from "../lib/store/s3/objects_s3.ts";
import { initDataDir, type Owner, startTestApp, type TestApp, temporaryFolder, testConfig } from "./_app.ts";
import { type FaultProxy, startFaultProxy } from "./_fault_proxy.ts";
import { DAY_MS, stillClock } from "./_faulty_app.ts";
import { type Hooks, hookedStore } from "./_matrix_hooks.ts";
import { type RawBucket, rawBucket } from "./_raw_bucket.ts";
import { checkRawDrained, type RawStore } from "./_raw_store.ts";
import { ownTime, s3Env } from "./_s3_app.ts";
import { S3_MAKES, type S3Make, type S3Server } from "./_s3_servers.ts";

export const STORES = ["disk", ...S3_MAKES] as const;
export type StoreName = "disk" | S3Make;

/** What outlives a process: a data directory and, on S3, a bucket with the proxy in front of its server. */
export interface Site {
  dataDir: string;
  owner: Owner;
  /** Settings beside those of the data directory. */
  env: Record<string, string>;
  s3: { proxy: FaultProxy; bucket: RawBucket } | null;
}

export interface Rig extends Site {
  its: TestApp;
  hooks: Hooks;
  raw: RawStore;
  /** The fate of an upload: its status, or undefined where its row is gone. */
  statusOf: (id: string) => unknown;
  /** Lets two days go by with all that happens in them, and checks that nothing is left to do. */
  drain: () => Promise<void>;
}

/** Makes a data directory with a workspace and, for S3, a bucket of its own behind a proxy. */
export async function openSite(
  t: TestContext,
  server: S3Server | null,
  bucketName = server?.newBucketName() ?? "",
): Promise<Site> {
  const dataDir = join(await temporaryFolder(t), "data");
  const owner = await initDataDir(testConfig(dataDir), 1_000_000);
  if (server === null) return { dataDir, owner, env: {}, s3: null };
  const proxy = await startFaultProxy(t, server.endpoint);
  const env = s3Env(server, bucketName, proxy.url);
  return { dataDir, owner, env, s3: { proxy, bucket: rawBucket(server, bucketName) } };
}

export interface RigOptions {
  timeouts?: Partial<S3StoreTimeouts> | undefined;
  cleansInBackground?: boolean;
}

/** Starts the service on it, in this process, with clocks that stand still. */
export async function openRig(t: TestContext, site: Site, options: RigOptions = {}): Promise<Rig> {
  const { dataDir, owner, env, s3 } = site;
  const { timeouts, cleansInBackground = false } = options;
  const hooks: Hooks = {};
  const clock = stillClock();
  const { wrapPresigning, s3: s3Options } = ownTime(clock, timeouts);
  const its = await startTestApp(t, {
    ...{ dataDir, owner, env, clock, cleansInBackground },
    ...(s3 === null ? {} : { s3: s3Options }),
    wrapStore: (objects) => hookedStore(hooks, s3 === null ? objects : wrapPresigning(objects)),
  });
  const raw = s3?.bucket ?? its.raw;

  async function drain(): Promise<void> {
    const { cleaner } = its.app;
    for (let day = 0; day < 2; day++) {
      for (let pass = 0; pass < 2; pass++) await cleaner.runOnce();
      clock.advance(DAY_MS + 3_600_000);
      await cleaner.lookForLateArrivals();
      await cleaner.runOnce();
    }
    await checkRawDrained(its.sql, raw);
  }

  return {
    ...{ ...site, its, hooks, raw, drain },
    statusOf: (id) => its.sql.prepare("SELECT status FROM uploads WHERE id = ?").pluck().get(id),
  };
}

/** Waits, but not for ever: a moment that never comes is a failure. */
export async function soon<T>(work: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new assert.AssertionError({ message: `Never came: ${what}` })), 20_000);
  });
  return await Promise.race([work, late]).finally(() => clearTimeout(timer));
}
