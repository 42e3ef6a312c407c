import { createHash } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { Client } from "minio";
import type { ListedObject, ObjectStat, StoreCall, StoreFailure } from "../objects.ts";
import { responseOf, S3NoResponseError, S3ResponseError, toStoreError } from "./errors.ts";
import { escapePath } from "./signing.ts";
import { createS3Transport, readText } from "./transport.ts";
import { childText, escapeXml, parseXml, type XmlElement } from "./xml.ts";

/** The longest XML response: a page of 1,000 keys of 1,024 bytes, each byte escaped, has below 5 MB. */
const XML_BYTES_MAX = 16 * 1024 * 1024;

/** How long the calls may take, each as a whole. */
export interface S3Timeouts {
  /** A call that moves no data. */
  callMs: number;
  /** A page of a listing, or a multi-object delete: 1,000 keys took MinIO 0.8 s, a loaded server takes far longer. */
  manyMs: number;
  /** Between two pieces of an object that is read. */
  readIdleMs: number;
}

export interface S3ClientOptions {
  /** The store as this process reaches it: scheme, host, port. */
  endpoint: URL;
  region: string;
  bucket: string;
  accessKey: string;
  secretKey: string;
  virtualHost: boolean;
  timeouts: S3Timeouts;
  socketsMax?: number | undefined;
  copySocketsMax?: number | undefined;
  onResponse: (askedAtMs: number, date: string | undefined) => void;
  onCall: (call: StoreCall) => void;
  now: () => number;
}

export interface ListPage {
  objects: ListedObject[];
  /** The token that requests the next page; null on the last one. */
  nextToken: string | null;
}

export interface CopyOptions {
  source: ObjectStat;
  contentType: string;
  timeoutMs: number;
  /** Called before the call is repeated because its first attempt was sent and got no response. */
  onRepeat: () => void;
}

export type S3Client = ReturnType<typeof createS3Client>;

/**
 * The S3 calls that the store needs, one request each, on top of the `minio` client. The client signs and addresses requests,
 * the transport sets limits, and responses that matter are read here. Every call rejects with a `StoreError`.
 *
 * If a response's headers or body matter, the call goes through the client's `makeRequestAsync`, which is marked internal (its
 * version is pinned for that). The client itself takes an empty or foreign response to a multi-object delete for "all removed",
 * reads a listing that was cut short as if it were whole, and drops the ETag of a copy if only the body has it.
 */
export function createS3Client(options: S3ClientOptions) {
  const { endpoint, region, bucket, timeouts, onCall } = options;
  const secure = endpoint.protocol === "https:";
  const transport = createS3Transport({ ...options, secure });
  const client = new Client({
    endPoint: endpoint.hostname.replace(/^\[|\]$/g, ""),
    port: endpoint.port === "" ? (secure ? 443 : 80) : Number(endpoint.port),
    useSSL: secure,
    accessKey: options.accessKey,
    secretKey: options.secretKey,
    // Without a region each bucket is asked for its own first.
    region,
    pathStyle: !options.virtualHost,
    // `http.request` has a second form, which the client never uses.
    transport: { request: transport.request as typeof import("node:http").request },
    transportAgent: transport.agent,
    retryOptions: { disableRetry: true },
  });

  interface Call {
    operation: string;
    /** Completes "Cannot ...". */
    doing: string;
    status?: number;
    timeoutMs?: number;
    streams?: boolean;
    isBulk?: boolean;
    onRepeat?: () => void;
  }

  async function run<T>({ operation, doing, ...call }: Call, work: () => Promise<T>): Promise<T> {
    const startedAtMs = performance.now();
    let failure: StoreFailure | null = null;
    try {
      return await transport.call({ status: 200, timeoutMs: timeouts.callMs, ...call }, work);
    } catch (error) {
      const storeError = toStoreError(doing, error);
      failure = storeError.failure;
      throw storeError;
    } finally {
      onCall({ operation, durationMs: performance.now() - startedAtMs, failure });
    }
  }

  /** Null if the response is a 404 without a reason, as most servers send to HEAD: the object or the bucket is missing. */
  function head(objectKey: string): Promise<ObjectStat | null> {
    return run({ operation: "stat", doing: "stat the object" }, async () => {
      try {
        const { size, etag } = await client.statObject(bucket, objectKey);
        return checkedStat(size, etag);
      } catch (error) {
        const response = responseOf(error);
        if (response?.status === 404 && response.code === "") return null;
        throw error;
      }
    });
  }

  /** The object's bytes, once the response has begun. `isBulk` if there may be many. */
  function get(objectKey: string, { isBulk }: { isBulk: boolean }): Promise<IncomingMessage> {
    return run({ operation: "read", doing: "read the object", streams: true, isBulk }, async () => {
      const response = await client.makeRequestAsync({ method: "GET", bucketName: bucket, objectName: objectKey });
      if (response.headers.etag === undefined) {
        response.destroy();
        throw new S3NoResponseError("the response has no ETag, so it is not the object");
      }
      return response;
    });
  }

  function put(objectKey: string, body: Buffer, contentType: string): Promise<ObjectStat> {
    return run({ operation: "put", doing: "store the object" }, async () => {
      const { etag } = await client.putObject(bucket, objectKey, body, body.length, { "content-type": contentType });
      return checkedStat(body.length, etag);
    });
  }

  /** Like `put`, but only in place of the object with this ETag; null: only if there is no object. */
  function putIf(
    objectKey: string,
    body: Buffer,
    { contentType, replaces }: { contentType: string; replaces: string | null },
  ): Promise<void> {
    return run({ operation: "put", doing: "store the object" }, async () => {
      const response = await client.makeRequestAsync(
        {
          method: "PUT",
          bucketName: bucket,
          objectName: objectKey,
          headers: {
            "content-type": contentType,
            ...(replaces === null ? { "if-none-match": "*" } : { "if-match": replaces }),
          },
        },
        body,
      );
      await readText(response, XML_BYTES_MAX);
      if (response.headers.etag === undefined)
        throw new S3NoResponseError("the response does not say the object's ETag");
    });
  }

  /** Copies inside the store if the source is still the one that was stat'ed. Resolves with the ETag, empty if none is named. */
  function copy(sourceKey: string, targetKey: string, { source, contentType, ...call }: CopyOptions): Promise<string> {
    return run({ operation: "copy", doing: "copy the object", isBulk: true, ...call }, async () => {
      const response = await client.makeRequestAsync({
        method: "PUT",
        bucketName: bucket,
        objectName: targetKey,
        headers: {
          "x-amz-copy-source": escapePath(`${bucket}/${sourceKey}`),
          "x-amz-copy-source-if-match": source.etag,
          // REPLACE: our content type, and nothing of what the client sent along with its PUT.
          "x-amz-metadata-directive": "REPLACE",
          "content-type": contentType,
        },
      });
      const result = await readXml(response, "CopyObjectResult");
      return quoted(childText(result, "ETag") ?? response.headers.etag ?? "");
    });
  }

  function remove(objectKey: string): Promise<void> {
    // A store sends 204 even if there was no object. A 200 does not come from a store.
    return run({ operation: "remove", doing: "remove the object", status: 204 }, () =>
      client.removeObject(bucket, objectKey),
    );
  }

  /** Removes up to 1,000 objects; resolves with the reason for each that is still there. */
  function removeMany(objectKeys: readonly string[]): Promise<Map<string, string>> {
    const call = { operation: "remove_many", doing: "remove objects", timeoutMs: timeouts.manyMs };
    return run(call, async () => {
      const entries = objectKeys.map((key) => `<Object><Key>${escapeXml(key)}</Key></Object>`).join("");
      const body = Buffer.from(
        `<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Quiet>true</Quiet>${entries}</Delete>`,
      );
      const response = await client.makeRequestAsync(
        {
          method: "POST",
          bucketName: bucket,
          query: "delete",
          headers: {
            "content-type": "application/xml",
            "content-md5": createHash("md5").update(body).digest("base64"),
          },
        },
        body,
      );
      return failedKeys(await readXml(response, "DeleteResult"), objectKeys);
    });
  }

  function listPage(prefix: string, token: string | null, keysMax: number): Promise<ListPage> {
    const timeoutMs = keysMax === 1 ? timeouts.callMs : timeouts.manyMs;
    const call = { operation: "list", doing: "list the bucket", timeoutMs };
    return run(call, async () => {
      const parameters = [
        "encoding-type=url",
        "list-type=2",
        `max-keys=${keysMax}`,
        `prefix=${encodeURIComponent(prefix)}`,
      ];
      if (token !== null) parameters.push(`continuation-token=${encodeURIComponent(token)}`);
      const query = parameters.sort().join("&");
      const page = parsePage(
        await readXml(await client.makeRequestAsync({ method: "GET", bucketName: bucket, query }), "ListBucketResult"),
      );
      // A store that ignores the prefix would show other installations' objects as ours.
      if (page.objects.some(({ objectKey }) => !objectKey.startsWith(prefix))) {
        throw new S3NoResponseError("the listing has keys that were not asked for");
      }
      return page;
    });
  }

  function makeBucket(): Promise<void> {
    return run({ operation: "make_bucket", doing: `create the bucket "${bucket}"` }, () =>
      client.makeBucket(bucket, region),
    );
  }

  /** `Enabled`, `Suspended`, or empty if versions were never kept. */
  function versioning(): Promise<string> {
    return run({ operation: "versioning", doing: "ask for the bucket's versioning" }, async () => {
      const response = await client.makeRequestAsync({ method: "GET", bucketName: bucket, query: "versioning" });
      return childText(await readXml(response, "VersioningConfiguration"), "Status") ?? "";
    });
  }

  return { head, get, put, putIf, copy, remove, removeMany, listPage, makeBucket, versioning, close: transport.close };
}

async function readXml(response: IncomingMessage, rootName: string): Promise<XmlElement> {
  const root = parseXml((await readText(response, XML_BYTES_MAX)).trimStart());
  if (root.name === rootName) return root;
  // A server may send status 200 before the work is done, so an error may follow it.
  if (root.name === "Error") throw errorIn(root);
  throw new S3NoResponseError(`the response is a "${root.name}" document instead of "${rootName}"`);
}

function parsePage(root: XmlElement): ListPage {
  const isEscaped = childText(root, "EncodingType") === "url";
  const objects: ListedObject[] = [];
  for (const element of root.children) {
    if (element.name !== "Contents") continue;
    const rawKey = childText(element, "Key") ?? "";
    const objectKey = isEscaped ? decodeURIComponent(rawKey.replaceAll("+", " ")) : rawKey;
    const stat = checkedStat(Number(childText(element, "Size") ?? "NaN"), childText(element, "ETag") ?? "");
    const modifiedAtMs = Date.parse(childText(element, "LastModified") ?? "");
    if (objectKey === "" || Number.isNaN(modifiedAtMs))
      throw new S3NoResponseError("the listing has an incomplete entry");
    objects.push({ objectKey, modifiedAtMs, ...stat });
  }
  const isTruncated = childText(root, "IsTruncated");
  const nextToken = childText(root, "NextContinuationToken");
  if (isTruncated === "false") return { objects, nextToken: null };
  // If a page that does not say so were taken for the last one, every object after it would seem lost.
  if (isTruncated !== "true" || nextToken === null || nextToken === "") {
    throw new S3NoResponseError("the listing does not say whether it goes on");
  }
  return { objects, nextToken };
}

/** Only keys with an error in the `DeleteResult` are still there: the request asked for no mention of the others. */
function failedKeys(result: XmlElement, objectKeys: readonly string[]): Map<string, string> {
  const failed = new Map<string, string>();
  const asked = new Set(objectKeys);
  for (const element of result.children) {
    if (element.name !== "Error") continue;
    const key = childText(element, "Key") ?? "";
    const error = errorIn(element);
    // It is unknown which of our keys this is about, so it counts for all.
    if (!asked.has(key)) throw error;
    if (error.code !== "NoSuchKey") failed.set(key, toStoreError("remove the object", error).message);
  }
  return failed;
}

function errorIn(element: XmlElement): S3ResponseError {
  return new S3ResponseError(200, childText(element, "Code") ?? "", childText(element, "Message") ?? "");
}

function checkedStat(sizeBytes: number, etag: string): ObjectStat {
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0 || etag === "") {
    throw new S3NoResponseError("the response does not say the object's size and ETag");
  }
  return { sizeBytes, etag: quoted(etag) };
}

/** An ETag with the quotes that HTTP requires, whether or not the server or the client library left them. */
function quoted(etag: string): string {
  const bare = etag.replace(/^"|"$/g, "");
  return bare === "" ? "" : `"${bare}"`;
}
