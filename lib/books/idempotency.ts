import { AppError, invalidField } from "../errors.ts";
import { sha256Hex } from "../ids.ts";
import type { Principal } from "./principals.ts";

/** How long a success is remembered for requests that repeat it. */
export const IDEMPOTENCY_KEPT_MS = 24 * 60 * 60_000;
/** Visible ASCII: every client and proxy passes it on unchanged. */
const KEY_PATTERN = /^[\x21-\x7e]{1,255}$/;

/**
 * The memory of requests that came with an Idempotency-Key. The verbs of `Uploads` write it in the transaction that does
 * what was asked. So one of two requests that come at once does it, and after a crash either both the change and the
 * memory are there or neither is. Failures are not remembered.
 */
export interface Idempotency {
  /**
   * Forgets successes that are older than `IDEMPOTENCY_KEPT_MS`, a batch of them, and resolves with whether more are left.
   * To be called only while the clock is trusted.
   */
  expire: (nowMs: number) => Promise<boolean>;
}

/** A request that came with an Idempotency-Key: it may be sent again, and is carried out once. */
export interface RepeatableRequest {
  /** The API key's id, or for a session the user's: two callers may use the same key. */
  callerId: string;
  idempotencyKey: string;
  /** A hash of everything that is asked for: the same key with another request is refused. */
  requestSha256: string;
}

/**
 * The request as a repeatable one, or null if it has no Idempotency-Key. `asked`: method, path and body, as they were
 * understood. Throws `validation_error` if the header is not a valid key.
 */
export function repeatable(
  { apiKeyId, userId, workspaceId }: Principal,
  header: string | string[] | undefined,
  asked: readonly unknown[],
): RepeatableRequest | null {
  if (header === undefined) return null;
  if (typeof header !== "string" || !KEY_PATTERN.test(header)) {
    throw invalidKey("must have 1 to 255 characters, all of them visible ASCII");
  }
  return {
    callerId: apiKeyId ?? userId,
    idempotencyKey: header,
    // A session's header selects the workspace: with another workspace the same words ask for something else.
    requestSha256: sha256Hex(JSON.stringify([workspaceId, ...asked])),
  };
}

export function usedForAnotherRequest(): AppError {
  return invalidKey("it came with another request before: send a new key with each new request");
}

export function tooManyKeys(keysMax: number): AppError {
  return new AppError(
    "rate_limited",
    `You have sent creates, confirms and deletes with ${keysMax} different Idempotency-Keys within 24 hours, which is the most ` +
      "that are remembered: create without one, or wait until the oldest are forgotten",
    { retryAfterSeconds: 60 },
  );
}

function invalidKey(message: string): AppError {
  return invalidField("Idempotency-Key", message);
}
