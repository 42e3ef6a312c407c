import { type CryptoKey, importJWK } from "jose";
import * as z from "zod";
import { AppError } from "../errors.ts";
import type { Log } from "../log.ts";

/** What tokens may be signed with. Asymmetric only: with HMAC whoever may verify could sign too. */
export const ALGORITHMS = ["RS256", "ES256"] as const;
export type Algorithm = (typeof ALGORITHMS)[number];

/** A set is asked for anew, in the background, once it is older than this: a withdrawn key is forgotten. */
export const JWKS_FRESH_MS = 10 * 60_000;
/** A set that could not be renewed is used for this long. Beyond it, a key that the issuer withdrew would hold on and on. */
export const JWKS_STALE_MAX_MS = 24 * 60 * 60_000;
/** After an answer the issuer is left alone for this long, however many unknown keys are named meanwhile. */
export const JWKS_COOLDOWN_MS = 30_000;
/** After a failure, which a restart of the issuer may have been, it is tried again a little sooner. */
export const JWKS_RETRY_MS = 5_000;
/** Requests wait for this, so it is short. */
const TIMEOUT_MS = 5_000;
/** A key takes about 500 bytes, with its certificates 4 KiB. */
export const JWKS_BYTES_MAX = 512 * 1024;
/** Issuers publish a handful of keys. What stands behind these is not looked at. */
export const JWKS_KEYS_MAX = 100;
const KID_LENGTH_MAX = 256;
/** 8,192 bits in base64url. Verifying with a longer modulus would take milliseconds of a processor for each token. */
const RSA_MODULUS_LENGTH_MAX = 1_366;
/** 32 bits in base64url; 65537 is what everybody uses. */
const RSA_EXPONENT_LENGTH_MAX = 6;
/** RFC 7518, section 3.3. */
const RSA_BITS_MIN = 2_048;

/** Of a key only what verifying takes: whatever else is published, such as a private part, is never imported. */
const forSignatures = {
  kid: z.string().min(1).max(KID_LENGTH_MAX),
  use: z.literal("sig").optional(),
  key_ops: z
    .array(z.string())
    .refine((operations) => operations.includes("verify"))
    .optional(),
};
const publishedKey = z.discriminatedUnion("kty", [
  z.object({
    ...forSignatures,
    kty: z.literal("RSA"),
    alg: z.literal("RS256").default("RS256"),
    n: z.string().max(RSA_MODULUS_LENGTH_MAX),
    e: z.string().max(RSA_EXPONENT_LENGTH_MAX),
  }),
  z.object({
    ...forSignatures,
    kty: z.literal("EC"),
    alg: z.literal("ES256").default("ES256"),
    crv: z.literal("P-256"),
    x: z.string(),
    y: z.string(),
  }),
]);
type PublishedKey = z.output<typeof publishedKey>;

const publishedSet = z.object({ keys: z.array(z.unknown()) });

/** The issuer's keys as of one answer. As long as the issuer answers the same it stays the same object. */
export interface KeySet {
  /** Undefined where the issuer publishes no such key for this algorithm. */
  find: (algorithm: Algorithm, kid: string) => CryptoKey | undefined;
}

export interface JwksOptions {
  /** For messages: users know the issuer, not where it publishes its keys. */
  issuer: string;
  url: string;
  now: () => number;
  log: Log;
  fetch?: typeof fetch;
  timeoutMs?: number;
}

export interface Jwks {
  /** The set at hand, null where there is none. Has it renewed in the background when it is due. */
  current: () => KeySet | null;
  /**
   * A set that has the key, or else the newest there is. Asks the issuer where the set at hand lacks the key and the issuer
   * was not asked just now. Throws `storage_unavailable` where a key is lacking and the issuer cannot be asked for it.
   */
  setFor: (algorithm: Algorithm, kid: string) => Promise<KeySet>;
  /** Gives up what is being asked. */
  close: () => void;
}

/** The last time that the issuer was asked, and whether that failed. */
interface Attempt {
  endedAtMs: number;
  failed: boolean;
}

/**
 * The issuer's public keys by URL: kept, renewed, and used on while the issuer cannot be reached. One question at a time,
 * and none soon after another, so that tokens that name keys of fantasy cost the issuer nothing.
 */
export function createJwks(options: JwksOptions): Jwks {
  const { issuer, url, now, log, timeoutMs = TIMEOUT_MS } = options;
  const fetchJwks = options.fetch ?? fetch;
  const closing = new AbortController();
  let cached: { keys: ImportedKeys; text: string; answeredAtMs: number } | null = null;
  let lastAttempt: Attempt | null = null;
  let asking: Promise<void> | null = null;

  /** Never rejects: the outcome is in `cached` and `lastAttempt`. Joins the question that is open. */
  function ask(): Promise<void> {
    asking ??= askOnce().finally(() => {
      asking = null;
    });
    return asking;
  }

  async function askOnce(): Promise<void> {
    const failedBefore = lastAttempt?.failed === true;
    let failed = false;
    try {
      const signal = AbortSignal.any([AbortSignal.timeout(timeoutMs), closing.signal]);
      const text = await readJwks(fetchJwks, url, signal);
      const isNew = cached?.text !== text;
      const keys = cached?.text === text ? cached.keys : await importKeys(text);
      cached = { keys, text, answeredAtMs: now() };
      if (isNew || failedBefore) {
        const { usable, ignored } = keys;
        log[usable === 0 || ignored > 0 ? "warn" : "info"]("jwks_loaded", { url, usable, ignored });
      }
    } catch (error) {
      failed = true;
      // Once for an outage, however long it is.
      log[failedBefore ? "debug" : "warn"]("jwks_failed", { url, error, uses_older_keys: usableSet() !== null });
    }
    lastAttempt = { endedAtMs: now(), failed };
  }

  /** How long the issuer is to be left alone; 0: it may be asked. */
  function coolDownMs(): number {
    if (lastAttempt === null) return 0;
    const waitMs = lastAttempt.failed ? JWKS_RETRY_MS : JWKS_COOLDOWN_MS;
    const sinceMs = now() - lastAttempt.endedAtMs;
    // A clock that was set back must not keep the issuer unasked until it has caught up.
    return sinceMs < 0 ? 0 : Math.max(0, waitMs - sinceMs);
  }

  function usableSet(): KeySet | null {
    return ageMs() > JWKS_STALE_MAX_MS ? null : (cached?.keys.set ?? null);
  }

  function ageMs(): number {
    // A clock that was set back makes an answer from the future, which is as good as an old one.
    return cached === null ? 0 : Math.abs(now() - cached.answeredAtMs);
  }

  function current(): KeySet | null {
    const set = usableSet();
    if (set !== null && ageMs() > JWKS_FRESH_MS && coolDownMs() === 0) void ask();
    return set;
  }

  async function setFor(algorithm: Algorithm, kid: string): Promise<KeySet> {
    const atHand = current();
    if (atHand?.find(algorithm, kid) !== undefined) return atHand;
    if (coolDownMs() === 0) await ask();
    const set = usableSet();
    // After a failure a key that is not in the set at hand may be a new one: nobody here can tell.
    if (set === null || (lastAttempt?.failed === true && set.find(algorithm, kid) === undefined)) throw unreachable();
    return set;
  }

  function unreachable(): AppError {
    return new AppError(
      "storage_unavailable",
      `Cannot check this session token: the identity provider ${JSON.stringify(issuer)} does not give its keys; ask again`,
      { retryAfterSeconds: Math.max(1, Math.ceil(coolDownMs() / 1000)) },
    );
  }

  return { current, setFor, close: () => closing.abort() };
}

interface ImportedKeys {
  set: KeySet;
  usable: number;
  /** Not for our algorithms, malformed, too weak, or beyond the limit. */
  ignored: number;
}

/** The text of a JWKS. Throws where the answer is not 200, too long, or late. */
async function readJwks(fetchJwks: typeof fetch, url: string, signal: AbortSignal): Promise<string> {
  // A redirect could lead anywhere, to an address inside this network too: the URL is to be set to where the keys are.
  const response = await fetchJwks(url, { signal, redirect: "manual", headers: { Accept: "application/json" } });
  if (response.status !== 200) {
    await response.body?.cancel();
    throw new Error(`Expected status 200 from the JWKS URL, not ${response.status}`);
  }
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let text = "";
  let bytes = 0;
  // Leaving this loop cancels the rest of the body.
  for await (const chunk of response.body ?? []) {
    bytes += chunk.byteLength;
    if (bytes > JWKS_BYTES_MAX) throw new Error(`Expected a JWKS of at most ${JWKS_BYTES_MAX} bytes`);
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

/** Keys that cannot be used are left out and counted: one odd key must not lock everybody out. */
async function importKeys(text: string): Promise<ImportedKeys> {
  const { keys } = publishedSet.parse(JSON.parse(text));
  const imported = new Map<string, CryptoKey>();
  for (const candidate of keys.slice(0, JWKS_KEYS_MAX)) {
    const jwk = publishedKey.safeParse(candidate).data;
    const key = jwk === undefined ? undefined : await importKey(jwk);
    if (jwk !== undefined && key !== undefined) imported.set(`${jwk.alg} ${jwk.kid}`, key);
  }
  return {
    set: { find: (algorithm, kid) => imported.get(`${algorithm} ${kid}`) },
    usable: imported.size,
    ignored: keys.length - imported.size,
  };
}

async function importKey(jwk: PublishedKey): Promise<CryptoKey | undefined> {
  try {
    if (jwk.kty === "EC") return await importJWK({ kty: jwk.kty, crv: jwk.crv, x: jwk.x, y: jwk.y }, jwk.alg);
    const key = await importJWK({ kty: jwk.kty, n: jwk.n, e: jwk.e }, jwk.alg);
    const bits = "modulusLength" in key.algorithm ? Number(key.algorithm.modulusLength) : 0;
    return bits >= RSA_BITS_MIN ? key : undefined;
  } catch {
    return undefined; // Not a point on the curve, not base64url, and the like.
  }
}
