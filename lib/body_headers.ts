import { createHash } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { type Checksum, createCrc32, createCrc32c, createCrc64nvme } from "./crc.ts";
import { AppError } from "./errors.ts";

/**
 * Headers that say something of a request's body: its coding, and what its bytes add up to. Each is honoured or refused. A
 * client that sends one relies on it, so ignoring it would be an empty promise.
 */

interface Algorithm {
  bytes: number;
  create: () => Checksum;
}

const hash = (name: string, bytes: number): Algorithm => ({
  bytes,
  create() {
    const it = createHash(name);
    return { update: (chunk) => void it.update(chunk), digest: () => it.digest() };
  },
});

const MD5 = hash("md5", 16);
const SHA1 = hash("sha1", 20);
const SHA256 = hash("sha256", 32);
const SHA512 = hash("sha512", 64);

/** Checksum headers of S3, by what follows the prefix. */
const S3_PREFIX = "x-amz-checksum-";
const S3_ALGORITHMS: ReadonlyMap<string, Algorithm> = new Map([
  ["crc32", { bytes: 4, create: createCrc32 }],
  ["crc32c", { bytes: 4, create: createCrc32c }],
  ["crc64nvme", { bytes: 8, create: createCrc64nvme }],
  ["sha1", SHA1],
  ["sha256", SHA256],
]);
/** Beside a checksum: whether it is of the whole or of parts, and which one it is. */
const S3_TYPE_HEADER = "x-amz-checksum-type";
const S3_ALGORITHM_HEADERS = ["x-amz-sdk-checksum-algorithm", "x-amz-checksum-algorithm"];

/** The names of algorithms in `Digest` (RFC 3230), `Repr-Digest` and `Content-Digest` (RFC 9530), in lower case. */
const DIGEST_ALGORITHMS: ReadonlyMap<string, Algorithm> = new Map([
  ["md5", MD5],
  ["sha", SHA1],
  ["sha-256", SHA256],
  ["sha-512", SHA512],
]);

/** A checksum that a header promises. */
interface PromisedChecksum {
  header: string;
  algorithm: Algorithm;
  value: Buffer;
}

/** Holds a body against the checksums that were promised. */
export interface ChecksumCheck {
  update: (chunk: Buffer) => void;
  /** Throws `bad_request` if the bytes are others than were promised. To be called once. */
  finish: () => void;
}

/**
 * Reads every checksum that the headers promise of the body; null if there is none. `except`: a header that the caller checks
 * itself. Throws `bad_request` for a checksum that is malformed or that cannot be checked.
 */
export function promisedChecksums(
  headers: IncomingHttpHeaders,
  { except }: { except?: string } = {},
): ChecksumCheck | null {
  // Hardly any request has one.
  if (!hasPromise(headers)) return null;
  const promised = [...amazonChecksums(headers), ...digests(headers)].filter(({ header }) => header !== except);
  const md5 = headers["content-md5"];
  if (md5 !== undefined) promised.push(promise("Content-MD5", MD5, String(md5)));
  if (promised.length === 0) return null;
  const running = promised.map((one) => ({ ...one, checksum: one.algorithm.create() }));
  return {
    update(chunk) {
      for (const { checksum } of running) checksum.update(chunk);
    },
    finish() {
      for (const { header, checksum, value } of running) {
        const found = checksum.digest();
        if (!found.equals(value)) throw otherBytes(header, found, value);
      }
    },
  };
}

/**
 * Refuses codings that are not undone here, because the bytes would be taken for what they encode. Throws
 * `unsupported_media_type`, and `bad_request` for trailers, which nothing reads.
 */
export function refuseCodings(headers: IncomingHttpHeaders): void {
  refuseCoding("Content-Encoding", headers["content-encoding"], "identity");
  // Without "chunked" at its end the end of the body is unknown: the parser refuses that.
  const transfer = headers["transfer-encoding"];
  if (transfer !== undefined && /\bchunked\s*$/i.test(transfer)) refuseCoding("Transfer-Encoding", transfer, "chunked");
  for (const name of ["Trailer", "X-Amz-Trailer"]) {
    if (headers[name.toLowerCase()] === undefined) continue;
    throw new AppError("bad_request", `Cannot read trailers ("${name}"): send a checksum as a header`);
  }
}

function refuseCoding(header: string, value: string | undefined, understood: string): void {
  for (const coding of (value ?? "").toLowerCase().split(",")) {
    const name = coding.trim();
    if (name === "" || name === understood) continue;
    const message = `Cannot decode the body: "${header}: ${value}". Send the bytes as they are, without that header`;
    throw new AppError("unsupported_media_type", message);
  }
}

/** Whether there is any header that the functions below read. */
function hasPromise(headers: IncomingHttpHeaders): boolean {
  for (const header in headers) {
    if (header.startsWith("x-amz-") || header.endsWith("digest") || header === "content-md5") return true;
  }
  return false;
}

function* amazonChecksums(headers: IncomingHttpHeaders): Generator<PromisedChecksum> {
  const known = [...S3_ALGORITHMS.keys()].join(", ");
  for (const [header, value] of Object.entries(headers)) {
    if (!header.startsWith(S3_PREFIX) || header === S3_TYPE_HEADER || S3_ALGORITHM_HEADERS.includes(header)) continue;
    const algorithm = S3_ALGORITHMS.get(header.slice(S3_PREFIX.length));
    if (algorithm === undefined) throw uncheckable(header, `the known ones are ${known}`);
    yield promise(header, algorithm, String(value));
  }
  const type = headers[S3_TYPE_HEADER];
  if (type !== undefined && String(type).toUpperCase() !== "FULL_OBJECT") {
    throw uncheckable(S3_TYPE_HEADER, "only FULL_OBJECT is known");
  }
  for (const header of S3_ALGORITHM_HEADERS) {
    const name = headers[header];
    if (name === undefined) continue;
    const stated = S3_PREFIX + String(name).toLowerCase();
    if (headers[stated] === undefined) throw uncheckable(header, `there is no header ${stated}`);
  }
}

function* digests(headers: IncomingHttpHeaders): Generator<PromisedChecksum> {
  const known = [...DIGEST_ALGORITHMS.keys()].join(", ");
  for (const header of ["Digest", "Repr-Digest", "Content-Digest"]) {
    const value = headers[header.toLowerCase()];
    if (value === undefined) continue;
    for (const item of String(value).split(",")) {
      const equalsAt = item.indexOf("=");
      const name = item.slice(0, Math.max(0, equalsAt)).trim();
      const rest = item.slice(equalsAt + 1).trim();
      const algorithm = DIGEST_ALGORITHMS.get(name.toLowerCase());
      if (algorithm === undefined) throw uncheckable(header, `the known algorithms are ${known}`);
      // The newer two are structured fields, where bytes stand between colons.
      yield promise(header, algorithm, header === "Digest" ? rest : (/^:(.*):$/.exec(rest)?.[1] ?? ""));
    }
  }
}

function promise(header: string, algorithm: Algorithm, base64: string): PromisedChecksum {
  const value = Buffer.from(base64, "base64");
  // Decoding skips what is not base64: only a value that comes back as it was is.
  if (value.length !== algorithm.bytes || value.toString("base64") !== base64) {
    throw new AppError(
      "bad_request",
      `Cannot read the checksum in the header ${header}: it must have ${algorithm.bytes} bytes, in base64`,
    );
  }
  return { header, algorithm, value };
}

function uncheckable(header: string, why: string): AppError {
  return new AppError("bad_request", `Cannot check the header ${header}: ${why}`);
}

function otherBytes(header: string, found: Buffer, promised: Buffer): AppError {
  return new AppError(
    "bad_request",
    `The body is not what the header ${header} promises: its checksum is ${found.toString("base64")} and not ${promised.toString("base64")}. Nothing of it was kept: send it again`,
  );
}
