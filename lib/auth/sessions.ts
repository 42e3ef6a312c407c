import { createHash } from "node:crypto";
import { type CryptoKey, compactVerify, decodeProtectedHeader, errors } from "jose";
import { AppError } from "../errors.ts";
import type { Log } from "../log.ts";
import { ALGORITHMS, type Algorithm, createJwks, type KeySet } from "./jwks.ts";

/** Clerk's tokens take less than 1 KiB, and 4 KiB are the most that it allows. Longer ones are not looked into. */
export const TOKEN_LENGTH_MAX = 8 * 1024;
/** Clocks of different machines differ: so much is forgiven at the end of a token's life and at its start. */
export const LEEWAY_MS = 5_000;
/** A token from further ahead was issued by a clock that is wrong, and then its end is wrong as well. */
export const ISSUED_AHEAD_MS_MAX = 60_000;
/** Verified tokens that are remembered, at about 500 bytes each: a signature is checked once, not for each request. */
const REMEMBERED_MAX = 10_000;
/** OpenID Connect Core, section 2: a subject is at most 255 ASCII characters. */
const SUBJECT_PATTERN = /^[\x21-\x7e][\x20-\x7e]{0,254}$/;
/** RFC 5321 bounds both parts of an address; whether there is such a mailbox is the issuer's to know. */
const EMAIL_PATTERN = /^[^\s@\p{Cc}]{1,64}@[^\s@\p{Cc}]{1,255}$/u;
const NAME_PATTERN = /^(?!\s)[^\p{Cc}\p{Bidi_Control}]{1,200}$/u;
/** What a message quotes of a token. */
const QUOTED_LENGTH_MAX = 100;

/** Who a verified token is about. */
export interface Session {
  /** The issuer's own id of the user. */
  subject: string;
  expiresAtMs: number;
  /** Null where the token has none, or one that the issuer says is not verified. */
  email: string | null;
  name: string | null;
}

export interface SessionsOptions {
  /** Compared character by character with the token's `iss`. */
  issuer: string;
  jwksUrl: string;
  /** What `azp` may be; none: it is not looked at. */
  authorizedParties: readonly string[];
  now: () => number;
  log: Log;
  fetch?: typeof fetch;
  timeoutMs?: number;
  rememberedMax?: number;
}

export interface Sessions {
  /**
   * The session that a token stands for. Throws `unauthorized` with what is wrong with the token, or `storage_unavailable`
   * where that cannot be told because the issuer's keys cannot be had.
   */
  verify: (token: string) => Promise<Session>;
  /** Gives up asking for keys. */
  close: () => void;
}

interface Remembered {
  session: Session;
  /** The keys that it was verified with: when the issuer changes them it must be verified again. */
  keySet: KeySet;
}

/** Verifies session tokens (JWTs) of one issuer. The one importer of jose's verification. */
export function createSessions(options: SessionsOptions): Sessions {
  const { issuer, jwksUrl, authorizedParties, now, log, rememberedMax = REMEMBERED_MAX } = options;
  const jwks = createJwks({
    issuer,
    url: jwksUrl,
    now,
    log,
    ...(options.fetch === undefined ? {} : { fetch: options.fetch }),
    ...(options.timeoutMs === undefined ? {} : { timeoutMs: options.timeoutMs }),
  });
  /** By the token's hash, so that no token lies in memory for long; the least recently used first. */
  const rememberedByHash = new Map<string, Remembered>();

  async function verify(token: string): Promise<Session> {
    if (token.length > TOKEN_LENGTH_MAX) throw refused(`is longer than ${TOKEN_LENGTH_MAX} characters`);
    const hash = createHash("sha256").update(token).digest("base64");
    const remembered = recall(hash);
    if (remembered !== null) return remembered;

    const { algorithm, kid } = readHeader(token);
    // What is wrong on the face of it is refused before the issuer is asked for anything. Believed is nothing yet.
    readSession(decodePayload(token.split(".")[1] ?? ""));
    const keySet = await jwks.setFor(algorithm, kid);
    const key = keySet.find(algorithm, kid);
    if (key === undefined) {
      throw refused(`is signed with a key that ${quoted(issuer)} does not publish: get a new one`);
    }
    const payload = await verifiedPayload(token, key, algorithm);
    const session = readSession(parseObject(payload));
    remember(hash, { session, keySet });
    return session;
  }

  function recall(hash: string): Session | null {
    const remembered = rememberedByHash.get(hash);
    if (remembered === undefined) return null;
    rememberedByHash.delete(hash);
    // Beyond its end it is verified again, which says that it has expired.
    if (remembered.session.expiresAtMs <= now() || remembered.keySet !== jwks.current()) return null;
    rememberedByHash.set(hash, remembered);
    return remembered.session;
  }

  function remember(hash: string, remembered: Remembered): void {
    rememberedByHash.set(hash, remembered);
    if (rememberedByHash.size <= rememberedMax) return;
    const [oldest] = rememberedByHash.keys();
    if (oldest !== undefined) rememberedByHash.delete(oldest);
  }

  /** Checks every claim. Whether they are true is for the signature to tell. */
  function readSession(claims: Readonly<Record<string, unknown>>): Session {
    const nowMs = now();
    if (claims.iss !== issuer) throw refused(`was issued by ${quoted(claims.iss)}, not by ${quoted(issuer)}`);
    const expiresAtMs = timeClaim(claims, "exp");
    if (expiresAtMs === null) throw refused('never expires: it lacks the claim "exp"');
    if (expiresAtMs + LEEWAY_MS <= nowMs) throw refused("has expired: get a new one from the identity provider");
    const notBeforeMs = timeClaim(claims, "nbf");
    if (notBeforeMs !== null && notBeforeMs - LEEWAY_MS > nowMs) throw refused("is not valid yet: try again later");
    const issuedAtMs = timeClaim(claims, "iat");
    if (issuedAtMs !== null && issuedAtMs - ISSUED_AHEAD_MS_MAX > nowMs) {
      throw refused("was issued in the future: a clock is wrong, this server's or the identity provider's");
    }
    if (authorizedParties.length > 0) checkParty(claims.azp);
    // Clerk's mark of a user who has not finished signing in.
    if (claims.sts === "pending") throw refused("is of a session that is still pending: finish signing in");
    const subject = claims.sub;
    if (typeof subject !== "string" || !SUBJECT_PATTERN.test(subject)) {
      throw refused('names nobody: the claim "sub" must be 1 to 255 ASCII characters');
    }
    // An address that nobody verified could be anyone's: members are found by theirs.
    const email = claims.email_verified === undefined || claims.email_verified === true ? claims.email : null;
    return Object.freeze({
      subject,
      expiresAtMs,
      email: typeof email === "string" && EMAIL_PATTERN.test(email) ? email : null,
      name: typeof claims.name === "string" && NAME_PATTERN.test(claims.name) ? claims.name : null,
    });
  }

  function checkParty(azp: unknown): void {
    if (azp === undefined) throw refused('lacks the claim "azp", which this server asks for');
    if (typeof azp !== "string" || !authorizedParties.includes(azp)) {
      throw refused(`is for ${quoted(azp)}, which is not among this server's authorized parties`);
    }
  }

  return { verify, close: jwks.close };
}

/** Reads nothing but these two: keys that a token brings along (`jwk`, `jku`, `x5u`, `x5c`) are its sender's own. */
function readHeader(token: string): { algorithm: Algorithm; kid: string } {
  const header = headerOf(token);
  const algorithm = ALGORITHMS.find((name) => name === header.alg);
  if (algorithm === undefined) {
    throw refused(`names the algorithm ${quoted(header.alg)}: accepted are ${ALGORITHMS.join(" and ")}`);
  }
  if (header.crit !== undefined) throw refused('asks for extensions ("crit" in its header), and none are supported');
  if (typeof header.kid !== "string" || header.kid === "") throw refused('names no key: its header lacks a "kid"');
  return { algorithm, kid: header.kid };
}

function headerOf(token: string): Readonly<Record<string, unknown>> {
  if (token.split(".").length !== 3) throw notJwt();
  try {
    return decodeProtectedHeader(token);
  } catch {
    throw notJwt();
  }
}

/** Throws where the signature does not hold. What it gives are the very bytes that were signed. */
async function verifiedPayload(token: string, key: CryptoKey, algorithm: Algorithm): Promise<Uint8Array> {
  try {
    return (await compactVerify(token, key, { algorithms: [algorithm] })).payload;
  } catch (error) {
    if (error instanceof errors.JWSSignatureVerificationFailed) throw refused("has a signature that does not hold");
    if (error instanceof errors.JOSEError) throw notJwt();
    throw error;
  }
}

function decodePayload(segment: string): Readonly<Record<string, unknown>> {
  return parseObject(Buffer.from(segment, "base64url"));
}

function parseObject(bytes: Uint8Array): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return { ...value };
  } catch {
    // Told below.
  }
  throw notJwt();
}

/** A time that a claim gives in seconds, in milliseconds; null where there is no such claim. */
function timeClaim(claims: Readonly<Record<string, unknown>>, name: string): number | null {
  const seconds = claims[name];
  if (seconds === undefined) return null;
  const ms = typeof seconds === "number" && seconds >= 0 ? Math.floor(seconds * 1000) : Number.NaN;
  if (!Number.isSafeInteger(ms)) throw refused(`is malformed: the claim "${name}" must be a time in seconds`);
  return ms;
}

function refused(why: string): AppError {
  return new AppError("unauthorized", `This session token ${why}`);
}

function notJwt(): AppError {
  return refused("is not a JWT: send the identity provider's token, or an API key, which begins with op_live_");
}

/** Nothing in it can leave the quotes or fill a screen. */
function quoted(value: unknown): string {
  if (value === undefined) return "(none)";
  const text = typeof value === "string" ? value : (JSON.stringify(value) ?? "");
  return JSON.stringify(text.length > QUOTED_LENGTH_MAX ? `${text.slice(0, QUOTED_LENGTH_MAX)}…` : text);
}
