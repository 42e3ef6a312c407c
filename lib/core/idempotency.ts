import type { Db } from "../db/db.ts";
import { AppError, invalidField } from "../errors.ts";
import { sha256Hex } from "../ids.ts";
import { createPlaces } from "./places.ts";
import type { Principal } from "./principals.ts";

/** How long a success is kept for requests that repeat it. */
const KEPT_MS = 24 * 60 * 60_000;
/** Expired rows that go in one transaction. */
const EXPIRY_BATCH = 500;
/** Visible ASCII: what every client and proxy passes on as it is. */
const KEY_PATTERN = /^[\x21-\x7e]{1,255}$/;

/** A request that came with an Idempotency-Key: it may be sent again and is done once. */
export interface RepeatableRequest {
  /** The API key's id, or for a session the user's: the same key of another caller is another key. */
  callerId: string;
  idempotencyKey: string;
  /** Of all that is asked for. */
  requestSha256: string;
  /** What a success of it is answered with. */
  status: number;
}

export interface IdempotencyOptions {
  /** For what the cleaner asks for. */
  background: Db;
  now: () => number;
  /** How many keys of each caller are remembered at once. */
  keysMax: number;
}

/** What a request with this key has done. */
interface Done {
  uploadId: string;
  /** Where the bytes of a new upload were to be PUT; null for confirm and delete. */
  stagingKey: string | null;
  requestSha256: string;
}

export type Idempotency = ReturnType<typeof createIdempotency>;

/**
 * Remembers what requests with an Idempotency-Key have done, in the transaction that does it: so one of two that come at once
 * does it, and after a crash either both the deed and the memory are there or neither is. Failures are not remembered.
 */
export function createIdempotency(db: Db, { background, now, keysMax }: IdempotencyOptions) {
  const selectDone = db.prepare<RepeatableRequest & { nowMs: number }, Done>(`
    SELECT upload_id AS uploadId, staging_key AS stagingKey, request_sha256 AS requestSha256
      FROM idempotency_keys
     WHERE caller_id = :callerId AND idempotency_key = :idempotencyKey AND expires_at_ms > :nowMs`);
  // What it replaces has expired: `find` has just said so.
  const insertDone = db.prepare<
    RepeatableRequest & { uploadId: string; stagingKey: string | null; expiresAtMs: number }
  >(`
    INSERT OR REPLACE INTO idempotency_keys (caller_id, idempotency_key, request_sha256, status, upload_id, staging_key, expires_at_ms)
    VALUES (:callerId, :idempotencyKey, :requestSha256, :status, :uploadId, :stagingKey, :expiresAtMs)`);
  const countKept = db.prepare<{ callerId: string; nowMs: number }, { kept: number }>(`
    SELECT count(*) AS kept FROM idempotency_keys WHERE caller_id = :callerId AND expires_at_ms > :nowMs`);
  const selectExpired = db.prepare<[number], { found: number }>(`
    SELECT 1 AS found FROM idempotency_keys WHERE expires_at_ms <= ? LIMIT 1`);
  const deleteExpired = db.prepare<{ nowMs: number; limit: number }>(`
    DELETE FROM idempotency_keys
     WHERE (caller_id, idempotency_key) IN (SELECT caller_id, idempotency_key FROM idempotency_keys
                                             WHERE expires_at_ms <= :nowMs ORDER BY expires_at_ms LIMIT :limit)`);

  const places = createPlaces({
    max: keysMax,
    count: (callerId, nowMs) => countKept.get({ callerId, nowMs })?.kept ?? 0,
    now,
  });

  /** What the request has done before; undefined where nothing. Throws `validation_error` where its key came with another request. */
  function find(request: RepeatableRequest): Done | undefined {
    const done = selectDone.get({ ...request, nowMs: now() });
    if (done !== undefined && done.requestSha256 !== request.requestSha256) {
      throw invalidKey("it came with another request before: send a new key with each new request");
    }
    return done;
  }

  /**
   * Remembers what the request has done; again is no error. Runs inside the write that does it. Throws as `find`, and
   * `rate_limited` for a create if the caller has as many keys as are remembered. A confirm or delete is then not remembered
   * and done all the same: done twice, neither does more than once, and refusing it would keep bytes that are to go.
   */
  function remember(request: RepeatableRequest, uploadId: string, stagingKey: string | null = null): void {
    if (find(request) !== undefined) return;
    if (!places.take(request.callerId)) {
      if (stagingKey === null) return;
      throw tooManyKeys(keysMax);
    }
    insertDone.run({ ...request, uploadId, stagingKey, expiresAtMs: now() + KEPT_MS });
  }

  /** Remembers a success that there was nothing to do for. */
  function note(request: RepeatableRequest, uploadId: string): Promise<void> {
    return db.writeStatement(() => remember(request, uploadId));
  }

  /** Removes expired rows, up to a batch of them. Resolves with whether more are left. */
  async function expire(nowMs: number): Promise<boolean> {
    if (selectExpired.get(nowMs) === undefined) return false;
    await background.writeStatement(() => deleteExpired.run({ nowMs, limit: EXPIRY_BATCH }));
    return selectExpired.get(nowMs) !== undefined;
  }

  return { find, remember, note, expire };
}

/**
 * The request as one that may be repeated; null where it has no key. `asked`: method, path and body, as they were understood.
 * Throws `validation_error` for a key that is none.
 */
export function repeatable(
  { apiKeyId, userId, workspaceId }: Principal,
  header: string | string[] | undefined,
  { status, asked }: { status: number; asked: readonly unknown[] },
): RepeatableRequest | null {
  if (header === undefined) return null;
  if (typeof header !== "string" || !KEY_PATTERN.test(header)) {
    throw invalidKey("must have 1 to 255 characters, all of them visible ASCII");
  }
  return {
    callerId: apiKeyId ?? userId,
    idempotencyKey: header,
    // A session's header selects the workspace: with another one, the same words ask for something else.
    requestSha256: sha256Hex(JSON.stringify([workspaceId, ...asked])),
    status,
  };
}

function tooManyKeys(keysMax: number): AppError {
  return new AppError(
    "rate_limited",
    `You have sent creates, confirms and deletes with ${keysMax} different Idempotency-Keys within 24 hours, which is the most ` +
      "that are remembered: create without one, or wait until the oldest are forgotten",
    { retryAfterSeconds: 60 },
  );
}

function invalidKey(message: string) {
  return invalidField("Idempotency-Key", message);
}
