import type { AppOptions } from "../lib/app.ts";
import type { ObjectStore } from "../lib/store/objects.ts";
import type { TestClock } from "./_app.ts";
import type { S3Server } from "./_s3_servers.ts";

/** The settings with which a service uses this bucket; `endpoint` is how it reaches the server itself. */
export function s3Env(server: S3Server, bucket: string, endpoint = server.endpoint): Record<string, string> {
  return {
    STOWAGE_STORE: "s3",
    STOWAGE_S3_ENDPOINT: endpoint,
    STOWAGE_S3_PUBLIC_ENDPOINT: server.endpoint,
    STOWAGE_S3_REGION: server.region,
    STOWAGE_S3_BUCKET: bucket,
    STOWAGE_S3_ACCESS_KEY: server.accessKey,
    STOWAGE_S3_SECRET_KEY: server.secretKey,
  };
}

/**
 * A service may live in another time than the real server that it uses: requests are signed by the real clock, and a URL
 * that is good for so long by the service's clock is good for as long by the server's.
 */
export function ownTime(
  clock: TestClock,
  timeouts?: NonNullable<AppOptions["s3"]>["timeouts"],
): Pick<AppOptions, "s3"> & { wrapPresigning: (objects: ObjectStore) => ObjectStore } {
  const toReal = (atMs: number): number => atMs - clock.now() + Date.now();
  return {
    // Not `Date.now` itself: a test may replace it.
    s3: { now: () => Date.now(), timeouts },
    wrapPresigning: (objects) => ({
      ...objects,
      presignPut: (key, options) =>
        objects.presignPut(key, {
          ...options,
          expiresAtMs: toReal(options.expiresAtMs),
          signedAtMs: toReal(options.signedAtMs ?? clock.now()),
        }),
      presignGet: (key, options) => objects.presignGet(key, { ...options, expiresAtMs: toReal(options.expiresAtMs) }),
    }),
  };
}
