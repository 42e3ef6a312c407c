import type { Db } from "../db/db.ts";
import { AppError, invalidField } from "../errors.ts";
import { newApiKey, newId, sha256Hex } from "../ids.ts";
import { SCOPES } from "./principals.ts";
import { noSuchWorkspace } from "./workspaces.ts";

/** Characters of a key's name. */
const KEY_NAME_CHARS_MAX = 120;
/** The most requests a minute that can be set for a key. */
export const RATE_LIMIT_PER_MIN_MAX = 1_000_000;
const DAY_MS = 86_400_000;
/** Keys whose use was not written yet; more are not remembered, only their time of use is then late. */
const USES_HELD_MAX = 10_000;

export interface ApiKey {
  apiKeyId: string;
  workspaceId: string;
  userId: string;
  name: string;
  scopes: string[];
  /** Requests a minute; null: what the setting says, 0: any number. */
  rateLimitPerMin: number | null;
  keySuffix: string;
  createdAtMs: number;
  expiresAtMs: number | null;
  revokedAtMs: number | null;
  lastUsedAtMs: number | null;
}

/** What is looked at for each request. */
export interface KnownKey {
  apiKeyId: string;
  workspaceId: string;
  userId: string;
  scopesJson: string;
  rateLimitPerMin: number | null;
  expiresAtMs: number | null;
  revokedAtMs: number | null;
}

export interface NewKey {
  workspaceId: string;
  userId?: string;
  name?: string;
  scopes?: string[];
  expiresInDays?: number;
  rateLimitPerMin?: number;
}

export type Keys = ReturnType<typeof createKeys>;

/** API keys: shown once when they are made, kept as a hash, revocable. */
export function createKeys(db: Db, now: () => number) {
  const insertKey = db.prepare<{
    apiKeyId: string;
    workspaceId: string;
    userId: string;
    name: string;
    keySha256: string;
    keySuffix: string;
    scopesJson: string;
    rateLimitPerMin: number | null;
    nowMs: number;
    expiresAtMs: number | null;
  }>(`
    INSERT INTO api_keys (id, workspace_id, user_id, name, key_sha256, key_suffix, scopes_json, rate_limit_per_min, created_at_ms,
                          expires_at_ms)
    VALUES (:apiKeyId, :workspaceId, :userId, :name, :keySha256, :keySuffix, :scopesJson, :rateLimitPerMin, :nowMs,
            :expiresAtMs)`);
  const selectOwner = db.prepare<[string], { userId: string }>(`
    SELECT created_by AS userId FROM workspaces WHERE id = ? AND deleted_at_ms IS NULL`);
  // A deleted workspace's keys are refused from the moment on at which it is deleted, without a write to each.
  // A subquery, not a join: SQLite plans a join with a parameter anew each time it runs (18 us a request instead of 4).
  const selectBySha256 = db.prepare<[string], KnownKey>(`
    SELECT k.id AS apiKeyId, k.workspace_id AS workspaceId, k.user_id AS userId, k.scopes_json AS scopesJson,
           k.rate_limit_per_min AS rateLimitPerMin, k.expires_at_ms AS expiresAtMs, k.revoked_at_ms AS revokedAtMs
      FROM api_keys k
     WHERE k.key_sha256 = ? AND (SELECT deleted_at_ms IS NULL FROM workspaces WHERE id = k.workspace_id)`);
  const columns = `
    id AS apiKeyId, workspace_id AS workspaceId, user_id AS userId, name, scopes_json AS scopesJson,
    rate_limit_per_min AS rateLimitPerMin, key_suffix AS keySuffix, created_at_ms AS createdAtMs, expires_at_ms AS expiresAtMs, revoked_at_ms AS revokedAtMs, last_used_at_ms AS lastUsedAtMs`;
  const selectAll = db.prepare<[], Omit<ApiKey, "scopes"> & { scopesJson: string }>(
    `SELECT ${columns} FROM api_keys ORDER BY id`,
  );
  const updateRevoked = db.prepare<{ apiKeyId: string; nowMs: number }, { apiKeyId: string; workspaceId: string }>(`
    UPDATE api_keys
       SET revoked_at_ms = coalesce(revoked_at_ms, :nowMs)
     WHERE id = :apiKeyId
    RETURNING id AS apiKeyId, workspace_id AS workspaceId`);
  const updateLastUsed = db.prepare<[number, string]>("UPDATE api_keys SET last_used_at_ms = ? WHERE id = ?");

  let unwrittenUses = new Map<string, number>();

  /** Makes a key and returns it in plain, the only time that it can be seen. Runs inside a write. */
  function insert(key: NewKey): { apiKeyId: string; apiKey: string } {
    const { workspaceId, userId, name = "default", scopes = [...SCOPES], expiresInDays, rateLimitPerMin = null } = key;
    const owner = userId ?? selectOwner.get(workspaceId)?.userId;
    if (owner === undefined) throw noSuchWorkspace(workspaceId);
    const nowMs = now();
    const apiKey = newApiKey();
    const apiKeyId = newId();
    insertKey.run({
      apiKeyId,
      workspaceId,
      userId: owner,
      name,
      keySha256: sha256Hex(apiKey),
      keySuffix: apiKey.slice(-4),
      scopesJson: JSON.stringify([...new Set(scopes)].sort()),
      rateLimitPerMin,
      nowMs,
      expiresAtMs: expiresInDays === undefined ? null : nowMs + expiresInDays * DAY_MS,
    });
    return { apiKeyId, apiKey };
  }

  /** Makes a key. Throws `not_found` for an unknown workspace, `validation_error` for a name, scope, expiry or limit that cannot be. */
  async function create(key: NewKey): Promise<{ apiKeyId: string; apiKey: string }> {
    const { name, scopes, expiresInDays, rateLimitPerMin } = key;
    if (name !== undefined && (name.trim() === "" || name.length > KEY_NAME_CHARS_MAX)) {
      throw invalidField("name", `must have 1 to ${KEY_NAME_CHARS_MAX} characters`);
    }
    const unknown = scopes?.find((scope) => !SCOPES.some((known) => known === scope));
    if (unknown !== undefined) throw invalidField("scopes", `"${unknown}" is not one of ${SCOPES.join(", ")}`);
    if (scopes?.length === 0) throw invalidField("scopes", "must name at least one scope");
    if (
      expiresInDays !== undefined &&
      !(Number.isInteger(expiresInDays) && expiresInDays >= 1 && expiresInDays <= 36_500)
    ) {
      throw invalidField("expires", "must be a whole number of days from 1 to 36500");
    }
    if (
      rateLimitPerMin !== undefined &&
      !(Number.isInteger(rateLimitPerMin) && rateLimitPerMin >= 0 && rateLimitPerMin <= RATE_LIMIT_PER_MIN_MAX)
    ) {
      throw invalidField(
        "rate-limit",
        `must be a whole number of requests a minute from 1 to ${RATE_LIMIT_PER_MIN_MAX}, or 0 for any number`,
      );
    }
    return db.write(() => insert(key));
  }

  /**
   * The key with this plain text, whatever its state; undefined for an unknown one or one of a deleted workspace. Looked up
   * by hash, in the database each time: a key that another process revoked is refused at once.
   */
  function find(apiKey: string): KnownKey | undefined {
    return selectBySha256.get(sha256Hex(apiKey));
  }

  /** Revokes a key, for good; again is no error. Throws `not_found`. */
  function revoke(apiKeyId: string): Promise<{ apiKeyId: string; workspaceId: string }> {
    return db.write(() => {
      const revoked = updateRevoked.get({ apiKeyId, nowMs: now() });
      if (revoked === undefined) {
        throw new AppError("not_found", `There is no API key with id "${apiKeyId}"`, {
          hint: "`stowage keys list` shows the ids",
        });
      }
      return revoked;
    });
  }

  /** Remembers that a key was used; `flushUses` writes it, off the hot path. */
  function noteUse(apiKeyId: string, nowMs: number): void {
    if (unwrittenUses.size < USES_HELD_MAX || unwrittenUses.has(apiKeyId)) unwrittenUses.set(apiKeyId, nowMs);
  }

  /** Writes the remembered uses in one body. */
  async function flushUses(): Promise<void> {
    if (unwrittenUses.size === 0) return;
    const uses = unwrittenUses;
    unwrittenUses = new Map();
    await db.write(() => {
      for (const [apiKeyId, usedAtMs] of uses) updateLastUsed.run(usedAtMs, apiKeyId);
    });
  }

  function list(): ApiKey[] {
    return selectAll.all().map(({ scopesJson, ...key }) => ({ ...key, scopes: parseScopes(scopesJson) }));
  }

  return { insert, create, find, revoke, noteUse, flushUses, list };
}

/** Throws `invalid_api_key` for a key that is not there, was revoked, or has expired. */
export function checkKeyHolds<Key extends Pick<KnownKey, "expiresAtMs" | "revokedAtMs">>(
  key: Key | undefined,
  nowMs: number,
): asserts key is Key {
  if (key === undefined) throw new AppError("invalid_api_key", "This API key is not known");
  if (key.revokedAtMs !== null) throw new AppError("invalid_api_key", "This API key was revoked");
  if (key.expiresAtMs !== null && key.expiresAtMs <= nowMs) {
    throw new AppError("invalid_api_key", "This API key has expired");
  }
}

/** The scopes of a key as they are stored. */
export function parseScopes(scopesJson: string): string[] {
  const scopes: unknown = JSON.parse(scopesJson);
  return Array.isArray(scopes) ? scopes.filter((scope) => typeof scope === "string") : [];
}
