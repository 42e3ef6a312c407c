import { newApiKey, newId, sha256Hex } from "../../ids.ts";
import type { ApiKey, CreatedKey, KnownKey, NewKey } from "../keys.ts";
import { SCOPES } from "../principals.ts";
import type { Db } from "./db/db.ts";

const DAY_MS = 86_400_000;

type Row<Key extends { scopes: unknown }> = Omit<Key, "scopes"> & { scopesJson: string };

export type KeyRows = ReturnType<typeof createKeyRows>;

/** The table `api_keys` and its only writer. Used inside transactions. */
export function createKeyRows(db: Db, now: () => number) {
  // From its deletion on, a workspace's keys are refused without a write to each.
  // A subquery, not a join: SQLite plans a join with a parameter anew each time it runs (18 us a request instead of 4).
  const selectBySha256 = db.prepare<[string], Row<KnownKey>>(`
    SELECT k.id AS apiKeyId, k.workspace_id AS workspaceId, k.user_id AS userId, k.scopes_json AS scopesJson,
           k.rate_limit_per_min AS rateLimitPerMin, k.expires_at_ms AS expiresAtMs, k.revoked_at_ms AS revokedAtMs
      FROM api_keys k
     WHERE k.key_sha256 = ? AND (SELECT deleted_at_ms IS NULL FROM workspaces WHERE id = k.workspace_id)`);
  const selectState = db.prepare<
    [string],
    { expiresAtMs: number | null; revokedAtMs: number | null; isOfWorkspace: number }
  >(`
    SELECT expires_at_ms AS expiresAtMs, revoked_at_ms AS revokedAtMs,
           (SELECT deleted_at_ms IS NULL FROM workspaces WHERE id = k.workspace_id) AS isOfWorkspace
      FROM api_keys k WHERE k.id = ?`);
  const selectAll = db.prepare<[], Row<ApiKey>>(`
    SELECT id AS apiKeyId, workspace_id AS workspaceId, user_id AS userId, name, scopes_json AS scopesJson,
           rate_limit_per_min AS rateLimitPerMin, key_suffix AS keySuffix, created_at_ms AS createdAtMs,
           expires_at_ms AS expiresAtMs, revoked_at_ms AS revokedAtMs, last_used_at_ms AS lastUsedAtMs
      FROM api_keys ORDER BY id`);
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
  const updateRevoked = db.prepare<{ apiKeyId: string; nowMs: number }, { apiKeyId: string; workspaceId: string }>(`
    UPDATE api_keys
       SET revoked_at_ms = coalesce(revoked_at_ms, :nowMs)
     WHERE id = :apiKeyId
    RETURNING id AS apiKeyId, workspace_id AS workspaceId`);
  const updateLastUsed = db.prepare<[number, string]>("UPDATE api_keys SET last_used_at_ms = ? WHERE id = ?");

  /** Parsed scopes by their stored text: there are few texts, and parsing one for each request would be waste. */
  const scopesByJson = new Map<string, readonly string[]>();

  function parseOnce(scopesJson: string): readonly string[] {
    let scopes = scopesByJson.get(scopesJson);
    if (scopes === undefined) {
      scopes = parseScopes(scopesJson);
      scopesByJson.set(scopesJson, scopes);
    }
    return scopes;
  }

  function findByHash(keySha256: string): KnownKey | undefined {
    const row = selectBySha256.get(keySha256);
    if (row === undefined) return undefined;
    const { apiKeyId, workspaceId, userId, rateLimitPerMin, expiresAtMs, revokedAtMs } = row;
    const scopes = parseOnce(row.scopesJson);
    return { apiKeyId, workspaceId, userId, scopes, rateLimitPerMin, expiresAtMs, revokedAtMs };
  }

  /** Inserts a new random key. */
  function insert(key: NewKey & { userId: string }): CreatedKey {
    const { workspaceId, userId, name = "default", scopes = SCOPES, expiresInDays, rateLimitPerMin = null } = key;
    const nowMs = now();
    const apiKey = newApiKey();
    const apiKeyId = newId();
    insertKey.run({
      ...{ apiKeyId, workspaceId, userId, name, rateLimitPerMin, nowMs },
      keySha256: sha256Hex(apiKey),
      keySuffix: apiKey.slice(-4),
      scopesJson: JSON.stringify([...new Set(scopes)].sort()),
      expiresAtMs: expiresInDays === undefined ? null : nowMs + expiresInDays * DAY_MS,
    });
    return { apiKeyId, apiKey };
  }

  return {
    findByHash,
    /** The fields that decide whether a key is valid; `isOfWorkspace` is 0 if its workspace was deleted. */
    findState: (apiKeyId: string) => selectState.get(apiKeyId),
    list: (): ApiKey[] =>
      selectAll.all().map(({ scopesJson, ...key }) => ({ ...key, scopes: parseScopes(scopesJson) })),
    insert,
    revoke: (apiKeyId: string) => updateRevoked.get({ apiKeyId, nowMs: now() }),
    setLastUsed: (apiKeyId: string, usedAtMs: number) => void updateLastUsed.run(usedAtMs, apiKeyId),
  };
}

function parseScopes(scopesJson: string): string[] {
  const scopes: unknown = JSON.parse(scopesJson);
  return Array.isArray(scopes) ? scopes.filter((scope) => typeof scope === "string") : [];
}
