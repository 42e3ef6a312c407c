import { createHmac, hash } from "node:crypto";

/** A presigned URL cannot live longer: a limit of Signature Version 4. */
export const PRESIGN_SECONDS_MAX = 7 * 24 * 3600;

const ALGORITHM = "AWS4-HMAC-SHA256";

export interface PresignerOptions {
  /** Where clients reach the store: scheme, host, port, and a path prefix if a proxy adds one. */
  endpoint: string;
  region: string;
  bucket: string;
  accessKey: string;
  secretKey: string;
  /** The bucket in the host name instead of the path. */
  virtualHost: boolean;
}

export interface PresignOptions {
  method: "GET" | "PUT" | "HEAD" | "DELETE";
  objectKey: string;
  signedAtMs: number;
  expiresAtMs: number;
  /** The only length that the store will take. Null leaves the length open. */
  contentLength?: number | null;
  /** Further query parameters, such as `response-content-type`. They are signed. */
  query?: Readonly<Record<string, string>>;
}

/**
 * Makes presigned URLs (AWS Signature Version 4 in the query), without asking the store anything. The client library
 * can sign neither a length nor for an endpoint with a path prefix, and takes four times as long: it derives the
 * signing key for each URL, where one a day is enough.
 */
export function createPresigner(options: PresignerOptions): (presign: PresignOptions) => string {
  const { region, bucket, accessKey, secretKey } = options;
  const endpoint = new URL(options.endpoint);
  const inHost = usesVirtualHost(options);
  const host = inHost ? `${bucket}.${endpoint.host}` : endpoint.host;
  const bucketPath = inHost ? "/" : `/${escapeUri(bucket)}/`;
  // A proxy that serves the store below a prefix takes it away, so that the store never sees it: it is not signed.
  const base = `${endpoint.protocol}//${host}${endpoint.pathname.replace(/\/+$/, "")}`;
  let keyDay = "";
  let key: Buffer = Buffer.alloc(0);

  function signingKey(day: string): Buffer {
    if (day === keyDay) return key;
    key = [day, region, "s3", "aws4_request"].reduce(hmac, Buffer.from(`AWS4${secretKey}`));
    keyDay = day;
    return key;
  }

  return function presign({ method, objectKey, signedAtMs, expiresAtMs, contentLength = null, query = {} }) {
    // Rounded down both: a URL that outlives what the service promised would be a hole.
    const expiresAtSeconds = Math.floor(expiresAtMs / 1000);
    // The past is signed as such (a second is the shortest life), so that an expired URL is made expired.
    const signedAtSeconds = Math.min(Math.floor(signedAtMs / 1000), expiresAtSeconds - 1);
    const expiresSeconds = Math.min(expiresAtSeconds - signedAtSeconds, PRESIGN_SECONDS_MAX);
    const time = `${new Date(signedAtSeconds * 1000).toISOString().slice(0, 19).replace(/[-:]/g, "")}Z`;
    const day = time.slice(0, 8);
    const scope = `${day}/${region}/s3/aws4_request`;
    const signedHeaders = contentLength === null ? "host" : "content-length;host";

    const parameters = [
      `X-Amz-Algorithm=${ALGORITHM}`,
      `X-Amz-Credential=${escapeUri(`${accessKey}/${scope}`)}`,
      `X-Amz-Date=${time}`,
      `X-Amz-Expires=${expiresSeconds}`,
      `X-Amz-SignedHeaders=${escapeUri(signedHeaders)}`,
    ];
    // The signature is over the parameters in the order of their bytes; ours in lower case come after `X-Amz-`.
    for (const name of Object.keys(query).sort()) parameters.push(`${escapeUri(name)}=${escapeUri(query[name] ?? "")}`);
    const queryText = parameters.join("&");

    const path = bucketPath + escapePath(objectKey);
    const headerLines = `${contentLength === null ? "" : `content-length:${contentLength}\n`}host:${host}\n`;
    const canonical = `${method}\n${path}\n${queryText}\n${headerLines}\n${signedHeaders}\nUNSIGNED-PAYLOAD`;
    const toSign = `${ALGORITHM}\n${time}\n${scope}\n${hash("sha256", canonical, "hex")}`;
    const signature = createHmac("sha256", signingKey(day)).update(toSign).digest("hex");
    return `${base}${path}?${queryText}&X-Amz-Signature=${signature}`;
  };
}

/**
 * Whether the bucket goes into the host name. Not over TLS where the bucket has dots: a wildcard certificate covers
 * one label only. The client library decides alike.
 */
export function usesVirtualHost(options: { endpoint: string; bucket: string; virtualHost: boolean }): boolean {
  return options.virtualHost && !(options.endpoint.startsWith("https:") && options.bucket.includes("."));
}

/** An object's key as it stands in a URL's path: every byte escaped but the unreserved ones and the slash. */
export function escapePath(objectKey: string): string {
  return escapeUri(objectKey).replaceAll("%2F", "/");
}

function escapeUri(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac("sha256", key).update(text).digest();
}
