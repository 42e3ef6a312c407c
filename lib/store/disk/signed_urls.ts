import { createHmac, createSecretKey, timingSafeEqual } from "node:crypto";
import { AppError } from "../../errors.ts";
import { timestamp } from "../../timestamp.ts";
import type { Disposition, GetUrlOptions, PutUrlOptions } from "../objects.ts";

/** Where the objects of the embedded store are served, below the public URL. */
export const OBJECTS_PATH = "/objects/";

/** The beginning of every signed text, so that no other use of the key can ever yield the same text. */
const PURPOSE = "stowage object url 1";

const READ_AGAIN = "read the upload again to get a fresh one";
const CREATE_ANEW = "delete the upload and create a new one";

/** The parameters that a URL has, in order and without the signature. */
const FORMS = [
  { method: "PUT", names: "expires&max", whenExpired: CREATE_ANEW },
  { method: "PUT", names: "expires&size", whenExpired: CREATE_ANEW },
  { method: "PUT", names: "checksum_sha256&expires&max", whenExpired: CREATE_ANEW },
  { method: "PUT", names: "checksum_sha256&expires&size", whenExpired: CREATE_ANEW },
  { method: "GET", names: "content_type&expires&filename", whenExpired: READ_AGAIN },
  { method: "GET", names: "content_type&disposition&expires&filename", whenExpired: READ_AGAIN },
] as const;

/** The rights that a signed URL gives to its holder. */
export type UrlGrant = PutGrant | GetGrant;

export interface PutGrant {
  method: "PUT";
  objectKey: string;
  /** The exact length that may be sent; null if any up to `maxBytes` may. */
  sizeBytes: number | null;
  maxBytes: number;
  /** The SHA-256, in hex, of the only bytes that may be sent; null if any may. */
  checksumSha256: string | null;
}

export interface GetGrant {
  method: "GET";
  objectKey: string;
  contentType: string;
  filename: string;
  disposition: Disposition;
}

export interface SignedUrlsOptions {
  /**
   * The URL in front of our paths, as clients see it; may end in a path of its own, but not in a slash. Asked for each URL: a port
   * that is left to the system is known only once the server listens.
   */
  publicUrl: () => string;
  signingKey: Buffer;
  /** The limit in URLs for uploads that stated no size. */
  maxUploadBytes: number;
}

export interface SignedUrls {
  presignPut: (objectKey: string, options: PutUrlOptions) => string;
  presignGet: (objectKey: string, options: GetUrlOptions) => string;
  /**
   * Returns what the holder of this URL may do. A URL for GET serves HEAD as well: the same response without the body. Throws
   * `forbidden` if the URL was not made by us for this method, was altered in any way, or has expired.
   */
  verify: (method: string, path: string, search: string, nowMs: number) => UrlGrant;
}

/**
 * Makes and checks the embedded store's URLs: an HMAC over the method, the path and every query parameter. The path is
 * signed as we see it, below the public URL: a proxy may strip a prefix.
 */
export function createSignedUrls({ publicUrl, signingKey, maxUploadBytes }: SignedUrlsOptions): SignedUrls {
  // Made once: from plain bytes each signature would make one of its own, which takes five times as long as signing.
  const key = createSecretKey(signingKey);

  function signature(method: string, path: string, query: string): string {
    return createHmac("sha256", key).update(`${PURPOSE}\n${method}\n${path}\n${query}`).digest("base64url");
  }

  /** `query` is in the form that is signed: names in order, each value encoded. */
  function signedUrl(method: UrlGrant["method"], objectKey: string, query: string): string {
    const path = OBJECTS_PATH + objectKey;
    return `${publicUrl()}${path}?${query}&signature=${signature(method, path, query)}`;
  }

  function presignPut(objectKey: string, { sizeBytes, checksumSha256 = null, expiresAtMs }: PutUrlOptions): string {
    const checksum = checksumSha256 === null ? "" : `checksum_sha256=${checksumSha256}&`;
    const limit = sizeBytes === null ? `max=${maxUploadBytes}` : `size=${sizeBytes}`;
    return signedUrl("PUT", objectKey, `${checksum}expires=${expiresAtMs}&${limit}`);
  }

  function presignGet(objectKey: string, options: GetUrlOptions): string {
    const { contentType, filename, disposition = "attachment", expiresAtMs } = options;
    const inline = disposition === "inline" ? "&disposition=inline" : "";
    const query = `content_type=${encode(contentType)}${inline}&expires=${expiresAtMs}&filename=${encode(filename)}`;
    return signedUrl("GET", objectKey, query);
  }

  function verify(method: string, path: string, search: string, nowMs: number): UrlGrant {
    const params = new Map<string, string>();
    for (const [name, value] of new URLSearchParams(search)) {
      if (params.has(name)) throw notSigned();
      params.set(name, value);
    }
    const given = params.get("signature");
    params.delete("signature");
    const names = [...params.keys()].sort();
    // The names are checked besides the signature: what is read below is there, and nothing else is.
    const form = FORMS.find((known) => known.names === names.join("&"));
    if (form === undefined || given === undefined || !path.startsWith(OBJECTS_PATH)) throw notSigned();
    const query = names.map((name) => `${name}=${encode(params.get(name) ?? "")}`).join("&");
    if (!sameText(given, signature(form.method, path, query))) throw notSigned();
    // Only the holder of a real URL learns what it is for.
    if (form.method !== (method === "HEAD" ? "GET" : method)) throw otherMethod(form.method, method);

    const expiresAtMs = Number(params.get("expires"));
    if (nowMs >= expiresAtMs) throw expired(expiresAtMs, form.whenExpired);
    const objectKey = path.slice(OBJECTS_PATH.length);
    if (form.method === "GET") {
      const [contentType, filename] = [params.get("content_type") ?? "", params.get("filename") ?? ""];
      // Nothing else is ever signed.
      const disposition = params.has("disposition") ? "inline" : "attachment";
      return { method: "GET", objectKey, contentType, filename, disposition };
    }
    const size = params.get("size");
    const sizeBytes = size === undefined ? null : Number(size);
    const maxBytes = sizeBytes ?? Number(params.get("max"));
    return { method: "PUT", objectKey, sizeBytes, maxBytes, checksumSha256: params.get("checksum_sha256") ?? null };
  }

  return { presignPut, presignGet, verify };
}

/** Half a surrogate pair has no encoding; it becomes the replacement character, as it does wherever text is written. */
function encode(text: string): string {
  return encodeURIComponent(text.toWellFormed());
}

/** Compares in a time that does not tell where the two differ. */
function sameText(given: string, expected: string): boolean {
  const a = Buffer.from(given);
  const b = Buffer.from(expected);
  return a.length === b.length && timingSafeEqual(a, b);
}

function notSigned(): AppError {
  return new AppError(
    "forbidden",
    "Cannot accept this URL: its signature does not fit the method, the path and the parameters. Use it exactly as it was given",
  );
}

function otherMethod(signedMethod: UrlGrant["method"], method: string): AppError {
  const use = signedMethod === "PUT" ? "send the file with `curl -T FILE URL`" : "it downloads a file";
  return new AppError("forbidden", `This URL is signed for ${signedMethod} and not for ${method}: ${use}`);
}

function expired(expiresAtMs: number, advice: string): AppError {
  return new AppError("forbidden", `This URL expired at ${timestamp(expiresAtMs)}: ${advice}`);
}
