import type { IncomingHttpHeaders } from "node:http";
import { type ChecksumCheck, promisedChecksums, refuseCodings } from "../../body_headers.ts";
import { AppError } from "../../errors.ts";
import { CHECKSUM_HEADER, checksumOfHeader } from "../checksum.ts";

/** S3 headers that ask for something which is not done here. One ends in a hyphen: it stands for all that begin so. */
const S3_REFUSED = [
  "x-amz-copy-source",
  "x-amz-decoded-content-length",
  "x-amz-object-lock-",
  "x-amz-server-side-encryption",
  "x-amz-write-offset-bytes",
];
/** The SHA-256 of the body, in hex, or one of a few words. */
const S3_PAYLOAD_HEADER = "x-amz-content-sha256";
const UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD";

/** The promises that the headers of a PUT make about its body. */
export interface PutPromises {
  /** The SHA-256 that the bytes must have, in hex; null if any may come. */
  checksumSha256: string | null;
  /** The other checksums; null if there are none. */
  checksums: ChecksumCheck | null;
}

/**
 * Reads what the headers of a PUT promise, before a byte is read. Throws `unsupported_media_type` for a body that is not the
 * file itself, and `bad_request` for a promise that cannot be kept or that contradicts the signed checksum.
 */
export function readPutPromises(headers: IncomingHttpHeaders, signedSha256: string | null): PutPromises {
  refuseForms(headers);
  refuseCodings(headers);
  for (const name of ["Content-Range", "Range"]) {
    // A client that resumes would have its part stored as if it were the whole.
    if (headers[name.toLowerCase()] === undefined) continue;
    throw new AppError("bad_request", `Cannot take a part of a file ("${name}"): send the whole file`);
  }
  for (const name of Object.keys(headers)) {
    if (S3_REFUSED.some((refused) => name === refused || (refused.endsWith("-") && name.startsWith(refused)))) {
      throw new AppError("bad_request", `Cannot do what the header ${name} asks for: send the file without it`);
    }
  }
  const { [CHECKSUM_HEADER]: sha256Header, [S3_PAYLOAD_HEADER]: payload } = headers;
  let checksumSha256 = signedSha256;
  if (sha256Header !== undefined) checksumSha256 = agree(checksumSha256, CHECKSUM_HEADER, sumOf(String(sha256Header)));
  if (payload !== undefined && payload !== UNSIGNED_PAYLOAD) {
    checksumSha256 = agree(checksumSha256, S3_PAYLOAD_HEADER, payloadSumOf(String(payload)));
  }
  return { checksumSha256, checksums: promisedChecksums(headers, { except: CHECKSUM_HEADER }) };
}

/** `curl -F` and FormData wrap the file: it would be stored with the wrapping. Many clients claim the other form type for real bytes. */
function refuseForms(headers: IncomingHttpHeaders): void {
  if (!/^\s*multipart\//i.test(headers["content-type"] ?? "")) return;
  throw new AppError(
    "unsupported_media_type",
    "Cannot store a form: send the file itself as the body, as `curl -T FILE` does, or fetch() with the File as its body",
  );
}

function sumOf(header: string): string {
  const sha256 = checksumOfHeader(header);
  if (sha256 !== null) return sha256;
  throw new AppError(
    "bad_request",
    `Cannot store the upload: the header ${CHECKSUM_HEADER} must be the SHA-256 of the bytes in base64, 44 characters`,
  );
}

function payloadSumOf(header: string): string {
  if (/^[0-9a-f]{64}$/.test(header)) return header;
  throw new AppError(
    "bad_request",
    `Cannot store the upload: the header ${S3_PAYLOAD_HEADER} must be ${UNSIGNED_PAYLOAD} or the SHA-256 of the bytes in hex`,
  );
}

/** Throws `bad_request` if another checksum was stated before. */
function agree(knownSha256: string | null, header: string, sha256: string): string {
  if (knownSha256 === null || knownSha256 === sha256) return sha256;
  throw new AppError(
    "bad_request",
    `Cannot store the upload: the header ${header} says another checksum than was stated when it was created. Send the header that create gave, or create a new upload`,
  );
}
