import { hash, randomFillSync, randomInt } from "node:crypto";
import { v7 } from "uuid";

const BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const CROCKFORD_BASE32 = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const API_KEY_SECRET_CHARS = 32;

/** The published form of a live API key. */
export const API_KEY_PATTERN = /^op_live_[0-9A-Za-z]{32}$/;

let idTimeMs = -1;
let idSequence = 0;

/**
 * A new id for a row. UUIDv7: rows that are made together lie together in the file, and deleting in the order of
 * creation was measured twice as fast as with random ids.
 */
export function newId(): string {
  const random = drawRandom(16);
  // Those of one millisecond, or of a clock that was set back, count up: ids ascend in the order in which they are made.
  const nowMs = Date.now();
  if (nowMs > idTimeMs) {
    idTimeMs = nowMs;
    idSequence = random.readUInt32BE(6) >>> 2;
  } else idSequence++;
  return v7({ random, msecs: idTimeMs, seq: idSequence });
}

/** A new live API key: 190 bits from the system's random source. */
export function newApiKey(): string {
  let secret = "";
  for (let i = 0; i < API_KEY_SECRET_CHARS; i++) secret += BASE62[randomInt(BASE62.length)];
  return `op_live_${secret}`;
}

/** The form in which an API key is stored and looked up. */
export function sha256Hex(text: string): string {
  return hash("sha256", text, "hex");
}

/** So many random bytes, as lower-case hex digits. */
export function randomHex(bytes: number): string {
  return drawRandom(bytes).toString("hex");
}

const randomPool = Buffer.alloc(4_096);
let randomPoolUsed = randomPool.length;

/**
 * Random bytes, each given out once; to be used before the next are drawn. The system is asked for many at a time: one
 * call to it costs more than all else that an id takes.
 */
function drawRandom(count: number): Buffer {
  if (randomPoolUsed + count > randomPool.length) {
    randomFillSync(randomPool);
    randomPoolUsed = 0;
  }
  randomPoolUsed += count;
  return randomPool.subarray(randomPoolUsed - count, randomPoolUsed);
}

let ulidTimeMs = -1;
let ulidTimeText = "";

/** A ULID (26 characters): 48 bits of milliseconds, 80 random bits. Names a request in responses and in the log. */
export function newRequestId(nowMs: number): string {
  if (nowMs !== ulidTimeMs) {
    ulidTimeMs = nowMs;
    ulidTimeText = "";
    for (let rest = nowMs, i = 0; i < 10; i++, rest = Math.floor(rest / 32)) {
      ulidTimeText = CROCKFORD_BASE32.charAt(rest % 32) + ulidTimeText;
    }
  }
  const random = drawRandom(10);
  let text = ulidTimeText;
  for (const half of [0, 5]) {
    const high = random.readUInt32BE(half);
    const low = random.readUInt8(half + 4);
    for (let shift = 27; shift >= 2; shift -= 5) text += CROCKFORD_BASE32.charAt((high >>> shift) & 31);
    text += CROCKFORD_BASE32.charAt(((high & 3) << 3) | (low >>> 5)) + CROCKFORD_BASE32.charAt(low & 31);
  }
  return text;
}
