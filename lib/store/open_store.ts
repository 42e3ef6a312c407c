import { randomBytes } from "node:crypto";
import type { Config } from "../config/config.ts";
import { OBJECTS_FOLDER, SIGNING_KEY_FILE } from "../data_dir/layout.ts";
import { makeSigningKey, readSigningKey, SIGNING_KEY_BYTES } from "../data_dir/signing_key.ts";
import type { Log } from "../log.ts";
import { createObjectRoutes, type ObjectRoutes } from "./disk/object_routes.ts";
import { createDiskStore, type DiskStoreOptions } from "./disk/objects_disk.ts";
import type { ObjectStore } from "./objects.ts";
import type { S3StoreOptions } from "./s3/objects_s3.ts";

export interface StoreOptions {
  config: Config;
  installationId: string;
  /** The URL of this service as clients see it. */
  publicUrl: () => string;
  staging: DiskStoreOptions["staging"];
  /** Called when the embedded store finds the disk full. */
  onFull?: DiskStoreOptions["onFull"];
  /** Called for every call to an S3 server, for metrics. */
  onS3Call?: S3StoreOptions["onCall"];
  /** For tests: shorter time-outs, and the real clock if the service's own is moved, because a server checks the time. */
  s3?: Pick<S3StoreOptions, "timeouts"> & Partial<Pick<S3StoreOptions, "now">>;
  /** Whether this process serves from the store: only then leftovers are swept. */
  serves: boolean;
  log: Log;
  now: () => number;
}

export interface OpenStore {
  objects: ObjectStore;
  /** The routes that the embedded store serves itself; null if clients speak to an S3 server. */
  objectRoutes: ObjectRoutes | null;
}

/** Opens the store that the settings name, without calling it yet. Throws an `AppError` if a setting cannot be right. */
export async function openStore(options: StoreOptions): Promise<OpenStore> {
  const { config, now, log, onS3Call } = options;
  if (config.store === "s3") {
    // Loaded only if it is used: the S3 client and what it depends on take 25 MB of memory.
    const { createS3Store } = await import("./s3/objects_s3.ts");
    const objects = createS3Store({ ...s3Options(config), onCall: onS3Call, log, now, ...options.s3 });
    return { objects, objectRoutes: null };
  }
  const objects = createDiskStore({
    ...options,
    objectsDir: `${config.dataDir}/${OBJECTS_FOLDER}`,
    signingKey: options.serves ? await keepSigningKey(config, log) : findSigningKey(config),
    maxUploadBytes: config.maxUploadBytes,
    minFreeBytes: config.minFreeBytes,
    computesSha256: config.computesChecksums,
    sweep: options.serves,
  });
  return { objects, objectRoutes: createObjectRoutes({ store: objects, now }) };
}

/** The key that signs URLs. A lost one is replaced: without it nothing could be uploaded or downloaded. */
async function keepSigningKey({ dataDir }: Config, log: Log): Promise<Buffer> {
  if (await makeSigningKey(dataDir)) {
    log.warn("signing_key_made", {
      why: `there was no ${SIGNING_KEY_FILE} in the data directory: it belongs in every backup`,
      effect: "all upload and download URLs given out before are void",
      hint: "clients ask for new URLs; nothing else is lost",
    });
  }
  return findSigningKey({ dataDir });
}

/** The key for a command, which changes nothing: if there is none, a key whose signatures nobody accepts. */
function findSigningKey({ dataDir }: Pick<Config, "dataDir">): Buffer {
  return readSigningKey(dataDir) ?? randomBytes(SIGNING_KEY_BYTES);
}

/** The settings of the S3 store. `readConfig` has checked that the required ones are there. */
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
