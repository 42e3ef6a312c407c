import { createHmac, createSecretKey, hash, type KeyObject } from "node:crypto";
import { CHECKSUM_HEADER, checksumHeaderOf } from "../checksum.ts";

/** A presigned URL cannot live longer: a limit of Signature Version 4. */
export const PRESIGN_SECONDS_MAX = 7 * 24 * 3600;

const ALGORITHM = "AWS4-HMAC-SHA256";

export interface PresignerOptions {
  /** The store as clients reach it: scheme, host, port, and a path prefix if a proxy adds one. */
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
  /** The SHA-256, in hex, of the only bytes that the store will take. The request must send it in a header. */
  checksumSha256?: string | null;
  /** Further query parameters, such as `response-content-type`. They are signed. */
  query?: Readonly<Record<string, string>>;
}

/** The parts that all URLs signed in the same second share. */
interface Signing {
  seconds: number;
  day: string;
  scope: string;
  time: string;
  /** The query up to the life of the URL. */
  parameters: string;
  key: KeyObject;
}

/**
 * Makes presigned URLs (AWS Signature Version 4 in the query) without a call to the store. The client library can sign neither a
 * length nor for an endpoint with a path prefix, and takes four times as long, because it derives the signing key for each URL
 * instead of once a day.
 */
export function createPresigner(options: PresignerOptions): (presign: PresignOptions) => string {
  const { region, bucket, accessKey, secretKey } = options;
  const endpoint = new URL(options.endpoint);
  const inHost = usesVirtualHost(options);
  const host = inHost ? `${bucket}.${endpoint.host}` : endpoint.host;
  const bucketPath = inHost ? "/" : `/${escapeUri(bucket)}/`;
  // A proxy that serves the store below a prefix removes the prefix. The store never sees it, so it is not signed.
  const base = `${endpoint.protocol}//${host}${endpoint.pathname.replace(/\/+$/, "")}`;
  let signing: Signing | null = null;

  function signingAt(seconds: number): Signing {
    if (signing?.seconds === seconds) return signing;
    const time = `${new Date(seconds * 1000).toISOString().slice(0, 19).replace(/[-:]/g, "")}Z`;
    const day = time.slice(0, 8);
    const scope = `${day}/${region}/s3/aws4_request`;
    signing = {
      ...{ seconds, day, scope, time },
      parameters:
        `X-Amz-Algorithm=${ALGORITHM}&X-Amz-Credential=${escapeUri(`${accessKey}/${scope}`)}` +
        `&X-Amz-Date=${time}&X-Amz-Expires=`,
      key: signing?.day === day ? signing.key : signingKey(day),
    };
    return signing;
  }

  function signingKey(day: string): KeyObject {
    // Made once: given plain bytes, each signature would make a key object of its own, which takes longer than signing.
    return createSecretKey([day, region, "s3", "aws4_request"].reduce(hmac, Buffer.from(`AWS4${secretKey}`)));
  }

  return function presign(options) {
    const {
      method,
      objectKey,
      signedAtMs,
      expiresAtMs,
      contentLength = null,
      checksumSha256 = null,
      query = {},
    } = options;
    // Both times are rounded down: a URL must not outlive the time that the service has promised.
    const expiresAtSeconds = Math.floor(expiresAtMs / 1000);
    // A time in the past is signed as it is (a second is the shortest life), so that a URL made late is already expired.
    const signedAtSeconds = Math.min(Math.floor(signedAtMs / 1000), expiresAtSeconds - 1);
    const expiresSeconds = Math.min(expiresAtSeconds - signedAtSeconds, PRESIGN_SECONDS_MAX);
    const { scope, time, parameters, key } = signingAt(signedAtSeconds);
    // In the order of their names, as the signature requires.
    const withLength = contentLength === null ? "host" : "content-length;host";
    const signedHeaders = checksumSha256 === null ? withLength : `${withLength};${CHECKSUM_HEADER}`;

    let queryText = `${parameters}${expiresSeconds}&X-Amz-SignedHeaders=${signedHeaders.replaceAll(";", "%3B")}`;
    // The signature is over the parameters in the order of their bytes; ours in lower case come after `X-Amz-`.
    for (const name of Object.keys(query).sort()) queryText += `&${escapeUri(name)}=${escapeUri(query[name] ?? "")}`;

    const path = bucketPath + escapePath(objectKey);
    const lengthLine = contentLength === null ? "" : `content-length:${contentLength}\n`;
    const checksumLine = checksumSha256 === null ? "" : `${CHECKSUM_HEADER}:${checksumHeaderOf(checksumSha256)}\n`;
    const headerLines = `${lengthLine}host:${host}\n${checksumLine}`;
    const canonical = `${method}\n${path}\n${queryText}\n${headerLines}\n${signedHeaders}\nUNSIGNED-PAYLOAD`;
    const toSign = `${ALGORITHM}\n${time}\n${scope}\n${hash("sha256", canonical, "hex")}`;
    const signature = createHmac("sha256", key).update(toSign).digest("hex");
    return `${base}${path}?${queryText}&X-Amz-Signature=${signature}`;
  };
}

/**
 * Whether the bucket goes into the host name. Not over TLS if its name has dots: a wildcard certificate covers one label only.
 * The client library applies the same rule.
 */
export function usesVirtualHost(options: { endpoint: string; bucket: string; virtualHost: boolean }): boolean {
  return options.virtualHost && !(options.endpoint.startsWith("https:") && options.bucket.includes("."));
}

/** An object's key for use in a URL's path: every byte is escaped except the unreserved ones and the slash. */
export function escapePath(objectKey: string): string {
  return escapeUri(objectKey).replaceAll("%2F", "/");
}

function escapeUri(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac("sha256", key).update(text).digest();
}
