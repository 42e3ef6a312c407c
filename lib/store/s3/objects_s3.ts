import { create as contentDisposition } from "content-disposition";
import { placePrefix } from "../../books/object_keys.ts";
import { orAfter } from "../../deadline.ts";
import { invalidField } from "../../errors.ts";
import type { Log } from "../../log.ts";
import {
  type ListedObject,
  type ObjectStat,
  type ObjectStore,
  type PromoteOptions,
  type StoreCall,
  type StoredMarker,
  StoreError,
  type StoreFailure,
  typeWithoutScripts,
} from "../objects.ts";
import { createS3Client, type S3Client, type S3ClientOptions, type S3Timeouts } from "./client.ts";
import { responseOf, S3NoResponseError, toStoreError, UncertainStoreError } from "./errors.ts";
import { watchedBody } from "./reading.ts";
import { createRemove } from "./removal.ts";
import { createPresigner, usesVirtualHost } from "./signing.ts";
import { COPY_SOCKETS_MAX, readText } from "./transport.ts";

/** Keys in one page of a listing; S3 gives no more. */
const PAGE_KEYS_MAX = 1_000;
/** An object may come between a HEAD that did not find it and a listing that did; then a second look finds it. */
const LOOKS_MAX = 2;
/** Far more than the marker has; what is longer is not ours. */
const MARKER_BYTES_MAX = 64 * 1024;
const MARKER_TYPE = "application/json";
/** The store keeps a response's date in whole seconds; on average it was half a second later. */
const DATE_ROUNDING_MS = 500;

/** Measured: MinIO copies 1 GiB in 3 s, versitygw in 4.4 s. A tenth of that speed is still in time. */
const COPY_BYTES_PER_MS = 50_000;
const TIMEOUTS: S3StoreTimeouts = { callMs: 10_000, manyMs: 60_000, readIdleMs: 30_000, copyMs: 30_000 };

export interface S3StoreTimeouts extends S3Timeouts {
  /** For a copy of no bytes; it grows by 1 s for every 50 MB. */
  copyMs: number;
}

export interface S3StoreOptions {
  /** The store as this process reaches it. A full URL, without a path. */
  endpoint: string;
  /** The store as clients reach it; goes into URLs. May have a path prefix that a proxy takes away. */
  publicEndpoint: string;
  region: string;
  bucket: string;
  accessKey: string;
  secretKey: string;
  /**
   * Keys that sign the URLs instead of the main pair. On some servers a presigned PUT can be made to copy any object that
   * its key may read, so the upload key should be allowed `s3:PutObject` below `staging/` and nothing else.
   */
  uploadAccessKey?: string | undefined;
  uploadSecretKey?: string | undefined;
  downloadAccessKey?: string | undefined;
  downloadSecretKey?: string | undefined;
  /** The bucket in the host name. By default it is in the path, which servers on one's own machine need. */
  virtualHost?: boolean | undefined;
  log: Log;
  now: () => number;
  timeouts?: Partial<S3StoreTimeouts> | undefined;
  /** Connections at once for calls that move no data. */
  socketsMax?: number | undefined;
  /** Connections at once for copies and reads. */
  copySocketsMax?: number | undefined;
  /** Told of every call to the store, for metrics. */
  onCall?: ((call: StoreCall) => void) | undefined;
}

/** A bucket on any S3-compatible server. */
export interface S3Store extends ObjectStore {
  /** Stores a small object of our own. */
  put: (objectKey: string, body: string, contentType: string) => Promise<ObjectStat>;
  /** Whether removed objects leave versions behind, or null where the store does not say. */
  keepsVersions: () => Promise<boolean | null>;
}

/** Connects to an S3 store; asks it nothing yet. Throws `validation_error` where an endpoint cannot be one. */
export function createS3Store(options: S3StoreOptions): S3Store {
  const { region, bucket, accessKey, secretKey, virtualHost = false, log, now } = options;
  const { copySocketsMax = COPY_SOCKETS_MAX } = options;
  const endpoint = checkedEndpoint("STOWAGE_S3_ENDPOINT", options.endpoint);
  const publicEndpoint = checkedEndpoint("STOWAGE_S3_PUBLIC_ENDPOINT", options.publicEndpoint);
  // The client library cannot put a prefix in front of what it signed.
  if (endpoint.pathname !== "/") throw invalidField("STOWAGE_S3_ENDPOINT", "must not have a path");
  const timeouts = { ...TIMEOUTS, ...options.timeouts };

  let clockSkewMs: number | null = null;
  /** Whether the server knows conditional writes, as far as it has not said that it does not. */
  let knowsConditions = true;
  const client = connected({
    endpoint,
    region,
    bucket,
    accessKey,
    secretKey,
    timeouts,
    now,
    virtualHost: usesVirtualHost({ endpoint: options.endpoint, bucket, virtualHost }),
    socketsMax: options.socketsMax,
    copySocketsMax,
    onCall: options.onCall ?? (() => {}),
    onResponse(askedAtMs, date) {
      const dateMs = Date.parse(date ?? "");
      if (!Number.isNaN(dateMs)) clockSkewMs = dateMs + DATE_ROUNDING_MS - (askedAtMs + now()) / 2;
    },
  });

  const signer = { endpoint: publicEndpoint.href, region, bucket, virtualHost };
  const mainKey = { accessKey, secretKey };
  const { uploadAccessKey, uploadSecretKey, downloadAccessKey, downloadSecretKey } = options;
  const presignUpload = createPresigner({ ...signer, ...keyPair("UPLOAD", uploadAccessKey, uploadSecretKey, mainKey) });
  const presignDownload = createPresigner({
    ...signer,
    ...keyPair("DOWNLOAD", downloadAccessKey, downloadSecretKey, mainKey),
  });

  function copyMsMax(sizeBytes: number): number {
    return timeouts.copyMs + Math.ceil(sizeBytes / COPY_BYTES_PER_MS);
  }

  async function stat(objectKey: string): Promise<ObjectStat | null> {
    for (let attempt = 1; attempt <= LOOKS_MAX; attempt++) {
      try {
        const found = await client.head(objectKey);
        if (found !== null) return found;
      } catch (error) {
        if (error instanceof StoreError && error.failure === "absent") return null;
        throw error;
      }
      // "Not found" without a reason may as well be the bucket, or a proxy that does not know the path. A listing tells.
      const { objects } = await client.listPage(objectKey, null, 1);
      if (objects[0]?.objectKey !== objectKey) return null;
    }
    throw new StoreError("unavailable", "Cannot look at the object: the store lists it and says that it is not there");
  }

  async function promote(stagingKey: string, finalKey: string, options: PromoteOptions): Promise<ObjectStat> {
    const { source, contentType } = options;
    let mayHaveHappened = false;
    const onRepeat = () => {
      mayHaveHappened = true;
    };
    try {
      const timeoutMs = copyMsMax(source.sizeBytes);
      const etag = await client.copy(stagingKey, finalKey, { source, contentType, timeoutMs, onRepeat });
      mayHaveHappened = true;
      if (etag !== "") return { sizeBytes: source.sizeBytes, etag };
      const copied = await client.head(finalKey);
      if (copied?.sizeBytes !== source.sizeBytes) throw new S3NoResponseError("the copy is not there, or not whole");
      return copied;
    } catch (error) {
      const failed = toStoreError("copy the object", error);
      mayHaveHappened ||= !failed.isRefusal;
      const failure = await failureOfCopy(stagingKey, source, failed);
      if (failure === failed.failure && !mayHaveHappened) throw failed;
      throw new (mayHaveHappened ? UncertainStoreError : StoreError)(failure, failed.message, failed);
    }
  }

  /** What a copy that failed comes to. Servers answer all sorts of things while its source changes or goes. */
  async function failureOfCopy(stagingKey: string, source: ObjectStat, failed: StoreError): Promise<StoreFailure> {
    if (failed.failure === "denied" || failed.failure === "bucket_missing") return failed.failure;
    try {
      const staged = await orAfter(timeouts.callMs, stat(stagingKey), () => {
        throw new S3NoResponseError(`no response within ${timeouts.callMs} ms`);
      });
      if (staged === null) return "absent";
      return staged.etag === source.etag ? "unavailable" : "changed";
    } catch {
      return "unavailable";
    }
  }

  async function* list(prefix: string): AsyncGenerator<ListedObject> {
    if (!prefix.endsWith("/")) throw new Error(`A prefix must end in a slash, or it matches others' keys: "${prefix}"`);
    let token: string | null = null;
    do {
      const page = await client.listPage(prefix, token, PAGE_KEYS_MAX);
      yield* page.objects;
      if (page.nextToken !== null && page.nextToken === token) {
        throw new StoreError("unavailable", "Cannot list the bucket: the store gives the same page again and again");
      }
      token = page.nextToken;
    } while (token !== null);
  }

  async function readMarker(markerKey: string): Promise<StoredMarker | null> {
    try {
      const response = await client.get(markerKey, { isBulk: false });
      const text = await readText(watchedBody(response, timeouts.readIdleMs), MARKER_BYTES_MAX);
      return { text, etag: response.headers.etag ?? "" };
    } catch (error) {
      const failed = toStoreError("read the ledger's marker", error);
      if (failed.failure === "absent") return null;
      throw failed;
    }
  }

  async function writeMarker(
    markerKey: string,
    text: string,
    { replaces }: { replaces: string | null },
  ): Promise<void> {
    const body = Buffer.from(text);
    if (knowsConditions) {
      try {
        await client.putIf(markerKey, body, { contentType: MARKER_TYPE, replaces });
        return;
      } catch (error) {
        const failed = toStoreError("write the ledger's marker", error);
        // Gone is another than the one that was read, too.
        if (failed.failure === "absent") throw new StoreError("changed", failed.message, failed);
        if (responseOf(failed)?.status !== 501) throw failed;
        // What was read just before is all that is known then.
        knowsConditions = false;
      }
    }
    await client.put(markerKey, body, MARKER_TYPE);
  }

  /** A listing, because its response has a reason where it fails: HEAD says the same for a wrong secret and a wrong clock. */
  async function probe(): Promise<void> {
    await client.listPage(placePrefix("staging"), null, 1);
  }

  async function prepare({ makes }: { makes: boolean }): Promise<void> {
    try {
      await probe();
    } catch (error) {
      if (!makes || toStoreError("use the bucket", error).failure !== "bucket_missing") throw error;
      await makeBucket();
    }
    const keeps = await keepsVersions();
    if (keeps) {
      log.warn("bucket_keeps_versions", {
        bucket,
        hint: "removed objects stay as old versions and take up room: use a bucket without versioning, or a lifecycle rule that expires old versions",
      });
    }
  }

  async function makeBucket(): Promise<void> {
    try {
      await client.makeBucket();
      log.info("bucket_created", { bucket });
    } catch (error) {
      // Another process may have made it meanwhile: what counts is whether it can be used.
      if (await isUsable()) return;
      const failed = toStoreError("create the bucket", error);
      const response = responseOf(failed);
      if (response === null || response.status >= 500) throw failed;
      const failure = failed.failure === "denied" ? "denied" : "bucket_missing";
      const command = `aws s3 mb s3://${bucket} --region ${region} --endpoint-url ${endpoint.origin}`;
      throw new StoreError(failure, `${failed.message}. Create it yourself: ${command}`, failed);
    }
  }

  function isUsable(): Promise<boolean> {
    return probe().then(
      () => true,
      () => false,
    );
  }

  async function keepsVersions(): Promise<boolean | null> {
    // Not every server knows the question, and not every key may ask it.
    return await client.versioning().then(
      (status) => status !== "",
      () => null,
    );
  }

  return {
    presignPut(objectKey, { sizeBytes, checksumSha256 = null, expiresAtMs, signedAtMs = Number.POSITIVE_INFINITY }) {
      // The content type is not signed: promote sets the one that counts, and a client that sends another would be refused.
      const options = { expiresAtMs, contentLength: sizeBytes, checksumSha256 };
      // Never in the future, which the server would refuse.
      return presignUpload({ method: "PUT", objectKey, signedAtMs: Math.min(now(), signedAtMs), ...options });
    },
    presignGet: (objectKey, { contentType, filename, disposition = "attachment", expiresAtMs }) =>
      presignDownload({
        method: "GET",
        objectKey,
        signedAtMs: now(),
        expiresAtMs,
        query: {
          "response-cache-control": "private, no-store",
          "response-content-disposition": contentDisposition(filename, { type: disposition }),
          "response-content-type": disposition === "inline" ? typeWithoutScripts(contentType) : contentType,
        },
      }),
    stat,
    promote,
    sealing: null,
    part: null,
    // The copy, a look at it where its response had no ETag, and one at the source where either failed.
    promotesAtOnceMax: copySocketsMax,
    promoteMsMax: (sizeBytes) => copyMsMax(sizeBytes) + 2 * timeouts.callMs,
    read: async (objectKey) => watchedBody(await client.get(objectKey, { isBulk: true }), timeouts.readIdleMs),
    remove: createRemove({ client, log }),
    list,
    readMarker,
    writeMarker,
    prepare,
    probe,
    close: async () => client.close(),
    put: (objectKey, body, contentType) => client.put(objectKey, Buffer.from(body), contentType),
    clockSkewMs: () => clockSkewMs,
    keepsVersions,
  };
}

function checkedEndpoint(setting: string, text: string): URL {
  if (!URL.canParse(text))
    throw invalidField(setting, `"${text}" is no URL; it looks like https://s3.example.com:9000`);
  const url = new URL(text);
  if (url.protocol !== "http:" && url.protocol !== "https:")
    throw invalidField(setting, "must begin with http:// or https://");
  if (url.username !== "" || url.password !== "" || url.search !== "" || url.hash !== "") {
    throw invalidField(
      setting,
      "must have a scheme, a host, and a port or path at most; keys have settings of their own",
    );
  }
  return url;
}

/** The client library has rules of its own for a host; it does not know which setting it came from. */
function connected(options: S3ClientOptions): S3Client {
  try {
    return createS3Client(options);
  } catch (error) {
    throw invalidField("STOWAGE_S3_ENDPOINT", error instanceof Error ? error.message : String(error));
  }
}

interface KeyPair {
  accessKey: string;
  secretKey: string;
}

function keyPair(use: string, accessKey: string | undefined, secretKey: string | undefined, main: KeyPair): KeyPair {
  if (accessKey !== undefined && secretKey !== undefined) return { accessKey, secretKey };
  if (accessKey === undefined && secretKey === undefined) return main;
  throw invalidField(`STOWAGE_S3_${use}_ACCESS_KEY`, `set STOWAGE_S3_${use}_SECRET_KEY along with it, or neither`);
}
