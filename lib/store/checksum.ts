/** The header in which S3, and the embedded store after it, is told the SHA-256 of a PUT's bytes, in base64. */
export const CHECKSUM_HEADER = "x-amz-checksum-sha256";

/** A checksum, in hex as everywhere else, as the header has it. */
export function checksumHeaderOf(checksumSha256: string): string {
  return Buffer.from(checksumSha256, "hex").toString("base64");
}

/** The checksum that the header's value says, in hex; null if it says none. */
export function checksumOfHeader(value: string): string | null {
  const bytes = Buffer.from(value, "base64");
  // Decoding skips what is no base64: only a value that comes back as it was is one.
  return bytes.length === 32 && bytes.toString("base64") === value ? bytes.toString("hex") : null;
}
