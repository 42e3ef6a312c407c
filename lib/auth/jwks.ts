import { type CryptoKey, importJWK } from "jose";
import * as z from "zod";
import { AppError } from "../errors.ts";
import type { Log } from "../log.ts";

/** Accepted signature algorithms. Asymmetric only: with HMAC everyone who can verify could also sign. */
export const ALGORITHMS = ["RS256", "ES256", "EdDSA"] as const;
export type Algorithm = (typeof ALGORITHMS)[number];

/** A set older than this is refreshed in the background, so that a withdrawn key is dropped. */
export const JWKS_FRESH_MS = 10 * 60_000;
/** A set that cannot be refreshed is used for this long. Without this limit a withdrawn key could stay valid for ever. */
export const JWKS_STALE_MAX_MS = 24 * 60 * 60_000;
/** After a response the issuer gets no request for this long, however many unknown keys are named meanwhile. */
export const JWKS_COOLDOWN_MS = 30_000;
/** After a failure, perhaps a restart of the issuer, the retry comes sooner. */
export const JWKS_RETRY_MS = 5_000;
/** Requests wait for this, so it is short. */
const TIMEOUT_MS = 5_000;
/** A key takes about 500 bytes, or 4 KiB with its certificates. */
export const JWKS_BYTES_MAX = 512 * 1024;
/** Issuers publish a handful of keys. Further ones are ignored. */
export const JWKS_KEYS_MAX = 100;
const KID_LENGTH_MAX = 256;
/** 8,192 bits in base64url. Verifying with a longer modulus would take milliseconds of a processor for each token. */
const RSA_MODULUS_LENGTH_MAX = 1_366;
/** 32 bits in base64url; 65537 is what everybody uses. */
const RSA_EXPONENT_LENGTH_MAX = 6;
/** RFC 7518, section 3.3. */
const RSA_BITS_MIN = 2_048;

/** Only the fields that verifying needs: anything else that is published, such as a private part, is never imported. */
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
  z.object({
    ...forSignatures,
    kty: z.literal("OKP"),
    alg: z.literal("EdDSA").default("EdDSA"),
    crv: z.literal("Ed25519"),
    x: z.string(),
  }),
]);
type PublishedKey = z.output<typeof publishedKey>;

const publishedSet = z.object({ keys: z.array(z.unknown()) });

/** The issuer's keys as of one response. While the responses are the same it stays the same object. */
export interface KeySet {
  /** Undefined if the issuer publishes no such key for this algorithm. */
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
  /** Returns the current set, null if there is none, and starts a refresh in the background when it is due. */
  current: () => KeySet | null;
  /**
   * Returns a set that has the key, or else the newest one. Asks the issuer if the current set lacks the key and the issuer was
   * not asked just now. Throws `storage_unavailable` if a key is missing and the issuer cannot be reached.
   */
  setFor: (algorithm: Algorithm, kid: string) => Promise<KeySet>;
  /** Aborts a request that is under way. */
  close: () => void;
}

/** The last time that the issuer was asked, and whether that failed. */
interface Attempt {
  endedAtMs: number;
  failed: boolean;
}

/**
 * The issuer's public keys by URL: cached, refreshed, and still used while the issuer cannot be reached. One request at a
 * time, and none soon after another, so that tokens with invented keys cost the issuer nothing.
 */
export function createJwks(options: JwksOptions): Jwks {
  const { issuer, url, now, log, timeoutMs = TIMEOUT_MS } = options;
  const fetchJwks = options.fetch ?? fetch;
  const closing = new AbortController();
  let cached: { keys: ImportedKeys; text: string; answeredAtMs: number } | null = null;
  let lastAttempt: Attempt | null = null;
  let asking: Promise<void> | null = null;

  /** Never rejects: the outcome is in `cached` and `lastAttempt`. Joins a request that is under way. */
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
      // Logged as a warning once per outage, however long it is.
      log[failedBefore ? "debug" : "warn"]("jwks_failed", { url, error, uses_older_keys: usableSet() !== null });
    }
    lastAttempt = { endedAtMs: now(), failed };
  }

  /** How long the issuer must not be asked; 0: it may be asked now. */
  function coolDownMs(): number {
    if (lastAttempt === null) return 0;
    const waitMs = lastAttempt.failed ? JWKS_RETRY_MS : JWKS_COOLDOWN_MS;
    const sinceMs = now() - lastAttempt.endedAtMs;
    // A clock that was set back must not delay the next request until it has caught up.
    return sinceMs < 0 ? 0 : Math.max(0, waitMs - sinceMs);
  }

  function usableSet(): KeySet | null {
    return ageMs() > JWKS_STALE_MAX_MS ? null : (cached?.keys.set ?? null);
  }

  function ageMs(): number {
    // After a clock was set back a response seems to come from the future: treated like an old one.
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
    // After a failure, a key that is not in the current set may be a new one: that cannot be decided here.
    if (set === null || (lastAttempt?.failed === true && set.find(algorithm, kid) === undefined)) throw unreachable();
    return set;
  }

  function unreachable(): AppError {
    return new AppError(
      "storage_unavailable",
      `Cannot check this session token: the identity provider ${JSON.stringify(issuer)} does not give its keys; try again`,
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

/** Fetches the text of a JWKS. Throws if the response is not 200, too long, or late. */
async function readJwks(fetchJwks: typeof fetch, url: string, signal: AbortSignal): Promise<string> {
  // A redirect could lead anywhere, even to an address inside this network: the URL must be set to where the keys are.
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

/** Unusable keys are skipped and counted: one odd key must not lock everyone out. */
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
    if (jwk.kty === "OKP") return await importJWK({ kty: jwk.kty, crv: jwk.crv, x: jwk.x }, jwk.alg);
    const key = await importJWK({ kty: jwk.kty, n: jwk.n, e: jwk.e }, jwk.alg);
    const bits = "modulusLength" in key.algorithm ? Number(key.algorithm.modulusLength) : 0;
    return bits >= RSA_BITS_MIN ? key : undefined;
  } catch {
    return undefined; // Not a point on the curve, not base64url, and the like.
  }
}
