import {
  IDEMPOTENCY_KEPT_MS,
  type Idempotency,
  type RepeatableRequest,
  tooManyKeys,
  usedForAnotherRequest,
} from "../idempotency.ts";
import type { Db } from "./db/db.ts";
import { createPlaces } from "./places.ts";

/** Expired rows that go in one transaction. */
const EXPIRY_BATCH = 500;

/** The effect of an earlier request with this key. */
interface Done {
  uploadId: string;
  /** The key that the bytes of a new upload were to be PUT to; null for confirm and delete. */
  stagingKey: string | null;
}

export type IdempotencyMemory = ReturnType<typeof createIdempotencyMemory>;

/** The part that the verbs of uploads read and write inside their own transactions. */
export function createIdempotencyMemory(db: Db, { now, keysMax }: { now: () => number; keysMax: number }) {
  const selectDone = db.prepare<RepeatableRequest & { nowMs: number }, Done & { requestSha256: string }>(`
    SELECT upload_id AS uploadId, staging_key AS stagingKey, request_sha256 AS requestSha256
      FROM idempotency_keys
     WHERE caller_id = :callerId AND idempotency_key = :idempotencyKey AND expires_at_ms > :nowMs`);
  // A row that this replaces has expired: `find` has just said so.
  const insertDone = db.prepare<
    RepeatableRequest & { uploadId: string; stagingKey: string | null; expiresAtMs: number }
  >(`
    INSERT OR REPLACE INTO idempotency_keys (caller_id, idempotency_key, request_sha256, upload_id, staging_key, expires_at_ms)
    VALUES (:callerId, :idempotencyKey, :requestSha256, :uploadId, :stagingKey, :expiresAtMs)`);
  const countKept = db.prepare<{ callerId: string; nowMs: number }, { kept: number }>(`
    SELECT count(*) AS kept FROM idempotency_keys WHERE caller_id = :callerId AND expires_at_ms > :nowMs`);
  const places = createPlaces({
    max: keysMax,
    count: (callerId, nowMs) => countKept.get({ callerId, nowMs })?.kept ?? 0,
    now,
  });

  /** The request's earlier effect; undefined if it had none. Throws `validation_error` if its key came with another request. */
  function find(request: RepeatableRequest): Done | undefined {
    const done = selectDone.get({ ...request, nowMs: now() });
    if (done !== undefined && done.requestSha256 !== request.requestSha256) throw usedForAnotherRequest();
    return done;
  }

  /**
   * Remembers what the request has done; doing so again is no error. Runs inside the write that does it. Throws as `find`,
   * and `rate_limited` for a create if the caller has too many keys. A confirm or delete is then carried out and not
   * remembered: a repetition of either changes nothing more, and refusing it would keep bytes that are to go.
   */
  function remember(request: RepeatableRequest, uploadId: string, stagingKey: string | null = null): void {
    if (find(request) !== undefined) return;
    if (!places.take(request.callerId)) {
      if (stagingKey === null) return;
      throw tooManyKeys(keysMax);
    }
    insertDone.run({ ...request, uploadId, stagingKey, expiresAtMs: now() + IDEMPOTENCY_KEPT_MS });
  }

  return { find, remember };
}

export function createIdempotency(db: Db): Idempotency {
  const selectExpired = db.prepare<[number], { found: number }>(`
    SELECT 1 AS found FROM idempotency_keys WHERE expires_at_ms <= ? LIMIT 1`);
  const deleteExpired = db.prepare<{ nowMs: number; limit: number }>(`
    DELETE FROM idempotency_keys
     WHERE (caller_id, idempotency_key) IN (SELECT caller_id, idempotency_key FROM idempotency_keys
                                             WHERE expires_at_ms <= :nowMs ORDER BY expires_at_ms LIMIT :limit)`);

  return {
    async expire(nowMs) {
      if (selectExpired.get(nowMs) === undefined) return false;
      await db.writeStatement(() => deleteExpired.run({ nowMs, limit: EXPIRY_BATCH }));
      return selectExpired.get(nowMs) !== undefined;
    },
  };
}
