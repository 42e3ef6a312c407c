import { createHash } from "node:crypto";
import type { ChecksumCheck } from "../../body_headers.ts";
import { AppError } from "../../errors.ts";

/** The limits on the bytes of a PUT. */
export interface BodyLimits {
  /** The exact length that must be sent; null if any up to `maxBytes` may. */
  sizeBytes: number | null;
  maxBytes: number;
  /** The SHA-256 of the bytes, in hex, as it was stated or announced; null if it was neither. */
  checksumSha256?: string | null;
  /** Computes the SHA-256 even if none was stated or announced. */
  computesSha256?: boolean;
  /** The other checksums that the sender announced; null if there are none. */
  checksums?: ChecksumCheck | null;
  /** The length that the sender announced, or null. */
  contentLength: number | null;
}

/** Checks the bytes of a PUT as they come. */
export interface BodyCheck {
  /** To be called with each chunk before it is kept. Throws `payload_too_large`. */
  accept: (chunk: Buffer) => void;
  /**
   * To be called at the end. Returns the SHA-256 of the bytes in hex, or null if there was no need to compute it. Throws
   * `bad_request` if the length or a checksum is not the one that it should be.
   */
  finish: () => string | null;
}

/** Throws `bad_request` or `payload_too_large` if the announced length can be none that is allowed. */
export function createBodyCheck(limits: BodyLimits): BodyCheck {
  const { maxBytes, checksumSha256 = null, computesSha256 = false, checksums = null, contentLength } = limits;
  if (contentLength !== null) checkLength(contentLength, limits, "announces");
  const hash = checksumSha256 === null && !computesSha256 ? null : createHash("sha256");
  let cameBytes = 0;
  return {
    accept(chunk) {
      cameBytes += chunk.length;
      if (cameBytes > maxBytes) throw tooLarge(limits);
      hash?.update(chunk);
      checksums?.update(chunk);
    },
    finish() {
      checkLength(cameBytes, limits, "has");
      if (contentLength !== null && cameBytes !== contentLength) throw brokeOff();
      const foundSha256 = hash?.digest("hex") ?? null;
      if (checksumSha256 !== null && foundSha256 !== checksumSha256) throw otherBytes(foundSha256, checksumSha256);
      checksums?.finish();
      return foundSha256;
    },
  };
}

function checkLength(bytes: number, options: BodyLimits, verb: "announces" | "has"): void {
  if (bytes > options.maxBytes) throw tooLarge(options);
  if (options.sizeBytes !== null && bytes !== options.sizeBytes) {
    throw new AppError(
      "bad_request",
      `Cannot store the upload: its size was stated as ${options.sizeBytes} bytes when it was created, and the body ${verb} ${bytes}. Send the file that was meant, or create a new upload`,
    );
  }
}

function tooLarge({ sizeBytes, maxBytes }: BodyLimits): AppError {
  return new AppError(
    "payload_too_large",
    sizeBytes === null
      ? `Cannot store the upload: this URL takes at most ${maxBytes} bytes`
      : `Cannot store the upload: its size was stated as ${sizeBytes} bytes when it was created, and the body has more. Send the file that was meant, or create a new upload`,
  );
}

function otherBytes(foundSha256: string | null, checksumSha256: string): AppError {
  return new AppError(
    "bad_request",
    `Cannot store the upload: the SHA-256 of its bytes is ${foundSha256} and not ${checksumSha256}, as was stated, and nothing of it was kept. Send the file that was meant, or create a new upload`,
  );
}

/** The body ended, or its sender went away, before all of it had come. */
function brokeOff(): AppError {
  return new AppError("bad_request", "The upload broke off before its end, and nothing of it was kept: send it again");
}
