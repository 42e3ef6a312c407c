import { crc32 } from "node:zlib";

/** A checksum of bytes that come in chunks. */
export interface Checksum {
  update: (chunk: Buffer) => void;
  /** Big-endian, as checksums are written. To be called once. */
  digest: () => Buffer;
}

/** Polynomials with their bits reversed. */
const CRC32C_POLYNOMIAL = 0x82f63b78;
const CRC64NVME_POLYNOMIAL = 0x9a6c9329ac4bc9b5n;

/** CRC-32 as in ZIP and Ethernet. */
export function createCrc32(): Checksum {
  let crc = 0;
  return {
    update(chunk) {
      crc = crc32(chunk, crc);
    },
    digest: () => bytesOf([crc]),
  };
}

/** CRC-32C (Castagnoli). */
export function createCrc32c(): Checksum {
  const { low: table } = tables(CRC32C_POLYNOMIAL);
  let crc = -1;
  return {
    update(chunk) {
      for (const byte of chunk) crc = (table[(crc ^ byte) & 0xff] ?? 0) ^ (crc >>> 8);
    },
    digest: () => bytesOf([~crc]),
  };
}

/** CRC-64/NVME. In two halves: bitwise operators know 32 bits. */
export function createCrc64nvme(): Checksum {
  const table = tables(CRC64NVME_POLYNOMIAL);
  let [high, low] = [-1, -1];
  return {
    update(chunk) {
      for (const byte of chunk) {
        const index = (low ^ byte) & 0xff;
        low = ((low >>> 8) | (high << 24)) ^ (table.low[index] ?? 0);
        high = (high >>> 8) ^ (table.high[index] ?? 0);
      }
    },
    digest: () => bytesOf([~high, ~low]),
  };
}

interface Tables {
  low: Int32Array;
  high: Int32Array;
}

const tablesByPolynomial = new Map<bigint, Tables>();

/** The CRC of each byte by itself. Made when it is first asked for. */
function tables(polynomial: number | bigint): Tables {
  const known = tablesByPolynomial.get(BigInt(polynomial));
  if (known !== undefined) return known;
  const made = { low: new Int32Array(256), high: new Int32Array(256) };
  for (let byte = 0; byte < 256; byte++) {
    let crc = BigInt(byte);
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1n) === 1n ? (crc >> 1n) ^ BigInt(polynomial) : crc >> 1n;
    made.low[byte] = Number(crc & 0xffffffffn);
    made.high[byte] = Number(crc >> 32n);
  }
  tablesByPolynomial.set(BigInt(polynomial), made);
  return made;
}

function bytesOf(words: readonly number[]): Buffer {
  const bytes = Buffer.alloc(words.length * 4);
  for (const [i, word] of words.entries()) bytes.writeInt32BE(word | 0, i * 4);
  return bytes;
}
