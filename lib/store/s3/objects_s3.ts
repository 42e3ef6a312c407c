import { invalidField } from "../../errors.ts";
import type { Log } from "../../log.ts";
import { type ListedObject, type ObjectStat, type ObjectStore, type StoreCall, StoreError } from "../objects.ts";
import { createS3Bucket, type S3Bucket } from "./bucket.ts";
import { createS3Client, type S3Client, type S3ClientOptions, type S3Timeouts } from "./client.ts";
import { createS3Marker } from "./marker.ts";
import { createS3Promote } from "./promote.ts";
import { watchedBody } from "./reading.ts";
import { createRemove } from "./removal.ts";
import { usesVirtualHost } from "./signing.ts";
import { COPY_SOCKETS_MAX } from "./transport.ts";
import { createS3Urls, type S3Keys } from "./urls.ts";

/** Keys in one page of a listing; S3 gives no more. */
const PAGE_KEYS_MAX = 1_000;
/** An object may appear between a HEAD that did not find it and a listing that did; then a second HEAD finds it. */
const STAT_ATTEMPTS_MAX = 2;
/** The store keeps a response's date in whole seconds; on average it was half a second later. */
const DATE_ROUNDING_MS = 500;

const TIMEOUTS: S3StoreTimeouts = { callMs: 10_000, manyMs: 60_000, readIdleMs: 30_000, copyMs: 30_000 };

export interface S3StoreTimeouts extends S3Timeouts {
  /** For a copy of no bytes; it grows by 1 s for every 50 MB. */
  copyMs: number;
}

export interface S3StoreOptions extends S3Keys {
  /** The store as this process reaches it. A full URL, without a path. */
  endpoint: string;
  /** The store as clients reach it; goes into URLs. May have a path prefix that a proxy takes away. */
  publicEndpoint: string;
  region: string;
  bucket: string;
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
export interface S3Store extends ObjectStore, Pick<S3Bucket, "keepsVersions"> {
  /** Stores a small object of our own. */
  put: (objectKey: string, body: string, contentType: string) => Promise<ObjectStat>;
}

/** Connects to an S3 store; asks it nothing yet. Throws `validation_error` if an endpoint is none. */
export function createS3Store(options: S3StoreOptions): S3Store {
  const { region, bucket, virtualHost = false, copySocketsMax = COPY_SOCKETS_MAX, log, now } = options;
  const endpoint = checkedEndpoint("STOWAGE_S3_ENDPOINT", options.endpoint);
  const publicEndpoint = checkedEndpoint("STOWAGE_S3_PUBLIC_ENDPOINT", options.publicEndpoint);
  // The client library cannot put a prefix in front of what it signed.
  if (endpoint.pathname !== "/") throw invalidField("STOWAGE_S3_ENDPOINT", "must not have a path");
  const timeouts = { ...TIMEOUTS, ...options.timeouts };
  let clockSkewMs: number | null = null;
  const client = connect({
    ...{ endpoint, region, bucket, accessKey: options.accessKey, secretKey: options.secretKey, timeouts, now },
    virtualHost: usesVirtualHost({ endpoint: options.endpoint, bucket, virtualHost }),
    ...{ socketsMax: options.socketsMax, copySocketsMax },
    onCall: options.onCall ?? (() => {}),
    onResponse(askedAtMs, date) {
      const dateMs = Date.parse(date ?? "");
      if (!Number.isNaN(dateMs)) clockSkewMs = dateMs + DATE_ROUNDING_MS - (askedAtMs + now()) / 2;
    },
  });

  async function stat(objectKey: string): Promise<ObjectStat | null> {
    for (let attempt = 1; attempt <= STAT_ATTEMPTS_MAX; attempt++) {
      try {
        const found = await client.head(objectKey);
        if (found !== null) return found;
      } catch (error) {
        if (error instanceof StoreError && error.failure === "absent") return null;
        throw error;
      }
      // "Not found" without a reason may as well mean the bucket, or a proxy that does not know the path. A listing tells.
      const { objects } = await client.listPage(objectKey, null, 1);
      if (objects[0]?.objectKey !== objectKey) return null;
    }
    throw new StoreError("unavailable", "Cannot stat the object: the store lists it and says that it is not there");
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

  return {
    ...createS3Urls({ ...options, publicEndpoint, virtualHost }),
    ...createS3Promote({ client, stat, timeouts }),
    ...createS3Marker(client, timeouts),
    ...createS3Bucket({ client, endpoint, region, bucket, log }),
    stat,
    list,
    sealing: null,
    promotesAtOnceMax: copySocketsMax,
    read: async (objectKey) => watchedBody(await client.get(objectKey, { isBulk: true }), timeouts.readIdleMs),
    remove: createRemove({ client, log }),
    close: async () => client.close(),
    put: (objectKey, body, contentType) => client.put(objectKey, Buffer.from(body), contentType),
    clockSkewMs: () => clockSkewMs,
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
function connect(options: S3ClientOptions): S3Client {
  try {
    return createS3Client(options);
  } catch (error) {
    throw invalidField("STOWAGE_S3_ENDPOINT", error instanceof Error ? error.message : String(error));
  }
}
