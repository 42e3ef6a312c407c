import { randomBytes } from "node:crypto";
import type { Config } from "../config/config.ts";
import { makeSigningKey, OBJECTS_FOLDER, readSigningKey, SIGNING_KEY_BYTES } from "../db/data_dir.ts";
import type { Log } from "../log.ts";
import { createObjectRoutes, type ObjectRoutes } from "./disk/object_routes.ts";
import { createDiskStore, type Staging } from "./disk/objects_disk.ts";
import type { ObjectStore } from "./objects.ts";
import type { S3StoreOptions } from "./s3/objects_s3.ts";

export interface StoreOptions {
  config: Config;
  installationId: string;
  /** What clients see of this service. */
  publicUrl: () => string;
  staging: Staging;
  /** Told of every call to an S3 server, for metrics. */
  onS3Call?: S3StoreOptions["onCall"];
  /** For tests: shorter time-outs, and the real clock where the service's own is moved, because a server checks the time. */
  s3?: Pick<S3StoreOptions, "timeouts"> & Partial<Pick<S3StoreOptions, "now">>;
  /** Whether this process serves from the store: only then leftovers are swept. */
  serves: boolean;
  log: Log;
  now: () => number;
}

export interface OpenStore {
  objects: ObjectStore;
  /** What the embedded store serves itself; null where clients speak to an S3 server. */
  objectRoutes: ObjectRoutes | null;
}

/** The store that the settings name, of which nothing is asked yet. Throws an `AppError` if a setting cannot be right. */
export async function openStore(options: StoreOptions): Promise<OpenStore> {
  const { config, now, log, onS3Call } = options;
  if (config.store === "s3") {
    // Loaded only where it is used: the S3 client and what it depends on take 25 MB of memory.
    const { createS3Store } = await import("./s3/objects_s3.ts");
    const objects = createS3Store({ ...s3Options(config), onCall: onS3Call, log, now, ...options.s3 });
    return { objects, objectRoutes: null };
  }
  const objects = createDiskStore({
    ...options,
    objectsDir: `${config.dataDir}/${OBJECTS_FOLDER}`,
    signingKey: options.serves ? await keepSigningKey(config, log) : lookAtSigningKey(config),
    maxUploadBytes: config.maxUploadBytes,
    minFreeBytes: config.minFreeBytes,
    sweep: options.serves,
  });
  return { objects, objectRoutes: createObjectRoutes({ store: objects, now }) };
}

/** The key that signs URLs; one that was lost is replaced, because without it nothing could be uploaded or downloaded. */
async function keepSigningKey({ dataDir }: Config, log: Log): Promise<Buffer> {
  if (await makeSigningKey(dataDir)) {
    log.warn("signing_key_made", {
      why: "there was no url_signing.key in the data directory: it belongs into each backup",
      effect: "all upload and download URLs that were given out before are void",
      hint: "clients ask for new URLs; nothing else is lost",
    });
  }
  return lookAtSigningKey({ dataDir });
}

/** A command changes nothing: without a key it signs with one that nobody accepts. */
function lookAtSigningKey({ dataDir }: Pick<Config, "dataDir">): Buffer {
  return readSigningKey(dataDir) ?? randomBytes(SIGNING_KEY_BYTES);
}

/** The S3 store's settings out of all. `readConfig` has checked that those that it needs are there. */
export function s3Options(config: Config) {
  const { s3Endpoint, s3AccessKey, s3SecretKey } = config;
  if (s3Endpoint === null || s3AccessKey === null || s3SecretKey === null) {
    throw new TypeError("The S3 store was asked for without its settings");
  }
  return {
    endpoint: s3Endpoint,
    publicEndpoint: config.s3PublicEndpoint ?? s3Endpoint,
    region: config.s3Region,
    bucket: config.s3Bucket,
    virtualHost: config.s3VirtualHost,
    accessKey: s3AccessKey,
    secretKey: s3SecretKey,
    uploadAccessKey: config.s3UploadAccessKey ?? undefined,
    uploadSecretKey: config.s3UploadSecretKey ?? undefined,
    downloadAccessKey: config.s3DownloadAccessKey ?? undefined,
    downloadSecretKey: config.s3DownloadSecretKey ?? undefined,
  };
}
