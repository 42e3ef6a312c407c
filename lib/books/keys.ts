import { AppError, invalidField } from "../errors.ts";
import { SCOPES } from "./principals.ts";

/** The most characters in a key's name. */
const KEY_NAME_CHARS_MAX = 120;
/** The highest rate limit that can be set, in requests a minute. */
export const RATE_LIMIT_PER_MIN_MAX = 1_000_000;
const EXPIRES_IN_DAYS_MAX = 36_500;

export interface ApiKey {
  apiKeyId: string;
  workspaceId: string;
  userId: string;
  name: string;
  scopes: readonly string[];
  /** Requests a minute; null: the setting's limit, 0: unlimited. */
  rateLimitPerMin: number | null;
  /** The last four characters of the key. */
  keySuffix: string;
  createdAtMs: number;
  expiresAtMs: number | null;
  revokedAtMs: number | null;
  /** Null if it was never used; up to a minute late. */
  lastUsedAtMs: number | null;
}

/** The part of a key that each request needs. */
export type KnownKey = Pick<
  ApiKey,
  "apiKeyId" | "workspaceId" | "userId" | "scopes" | "rateLimitPerMin" | "expiresAtMs" | "revokedAtMs"
>;

export interface NewKey {
  workspaceId: string;
  /** The user that the key acts for; by default the workspace's owner. */
  userId?: string;
  /** "default" by default. */
  name?: string;
  /** All of them by default. */
  scopes?: readonly string[];
  /** Never by default. */
  expiresInDays?: number;
  /** Requests a minute, 0: unlimited; by default the setting's limit. */
  rateLimitPerMin?: number;
}

/** A key that was just created, in plain text: the only time that it can be seen. */
export interface CreatedKey {
  apiKeyId: string;
  apiKey: string;
}

/** API keys: shown once at their creation, kept as a hash, revocable. */
export interface Keys {
  /**
   * Creates a key. Throws `not_found` if the workspace is unknown or deleted, `validation_error` for an invalid name, scope,
   * expiry or rate limit.
   */
  create(key: NewKey): Promise<CreatedKey>;

  /**
   * Finds a key by its plain text, revoked and expired ones too; undefined if it is unknown or its workspace was deleted.
   * Reads the database each time, so that a key is refused at once when another process revokes it.
   */
  find(apiKey: string): Promise<KnownKey | undefined>;

  /** Lists all keys for an administrator in the order of creation: revoked, expired, and those of deleted workspaces too. */
  list(): Promise<ApiKey[]>;

  /** Revokes a key for good. Revoking it again is no error and keeps the first time. Throws `not_found`. */
  revoke(apiKeyId: string): Promise<{ apiKeyId: string; workspaceId: string }>;

  /** Records when keys were last used, in milliseconds since 1970, by key id. Ids without a key are ignored. */
  recordUses(usedAtMsById: ReadonlyMap<string, number>): Promise<void>;
}

/** Throws `validation_error` for an invalid name, scope, expiry or rate limit. */
export function checkNewKey({ name, scopes, expiresInDays, rateLimitPerMin }: NewKey): void {
  if (name !== undefined && (name.trim() === "" || name.length > KEY_NAME_CHARS_MAX)) {
    throw invalidField("name", `must have 1 to ${KEY_NAME_CHARS_MAX} characters`);
  }
  const unknown = scopes?.find((scope) => !SCOPES.some((known) => known === scope));
  if (unknown !== undefined) throw invalidField("scopes", `"${unknown}" is not one of ${SCOPES.join(", ")}`);
  if (scopes?.length === 0) throw invalidField("scopes", "must name at least one scope");
  if (expiresInDays !== undefined && !isIntegerIn(expiresInDays, 1, EXPIRES_IN_DAYS_MAX)) {
    throw invalidField("expires", `must be a whole number of days from 1 to ${EXPIRES_IN_DAYS_MAX}`);
  }
  if (rateLimitPerMin !== undefined && !isIntegerIn(rateLimitPerMin, 0, RATE_LIMIT_PER_MIN_MAX)) {
    throw invalidField(
      "rate-limit",
      `must be a whole number of requests a minute from 1 to ${RATE_LIMIT_PER_MIN_MAX}, or 0 for any number`,
    );
  }
}

function isIntegerIn(value: number, min: number, max: number): boolean {
  return Number.isInteger(value) && value >= min && value <= max;
}

/** Throws `invalid_api_key` if the key is unknown, was revoked or has expired. */
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

/** For administrators: it quotes the id and names a command. */
export function noKey(apiKeyId: string): AppError {
  return new AppError("not_found", `There is no API key with id "${apiKeyId}"`, {
    hint: "`stowage keys list` shows the ids",
  });
}
