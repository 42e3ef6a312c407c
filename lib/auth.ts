import type { IncomingMessage } from "node:http";
import { AppError } from "./errors.ts";
import type { Access } from "./http_routes.ts";
import { API_KEY_PATTERN } from "./ids.ts";
import { type Keys, parseScopes } from "./keys.ts";
import type { Principal } from "./principals.ts";

export interface AuthParts {
  keys: Keys;
  now: () => number;
}

/**
 * Turns a request's headers into a principal. Every credential is `Authorization: Bearer …`: a token that begins with
 * `op_` is an API key and nothing else, any other would be a session's JWT.
 */
export function createAuth({ keys, now }: AuthParts) {
  /** Parsed scopes by their stored text: few texts exist, and parsing one for each request would be waste. */
  const scopesByJson = new Map<string, readonly string[]>();

  /**
   * Who asks, and whether they may. Throws `invalid_api_key` or `unauthorized` for a credential that does not hold,
   * `forbidden` for a missing scope or another workspace's header.
   */
  function authenticate(req: IncomingMessage, access: Exclude<Access, "public">): Principal {
    const token = bearerToken(req.headers.authorization);
    const principal = token.startsWith("op_") ? fromApiKey(token) : fromJwt();
    checkWorkspaceHeader(req.headers["x-workspace-id"], principal);
    if (access !== "any" && !principal.scopes.includes(access.scope)) {
      throw new AppError("forbidden", `This API key lacks the scope "${access.scope}"`);
    }
    return principal;
  }

  function fromApiKey(token: string): Principal {
    if (!token.startsWith("op_live_")) {
      throw new AppError(
        "invalid_api_key",
        "This kind of API key is reserved: use a live key, which begins with op_live_",
      );
    }
    const key = API_KEY_PATTERN.test(token) ? keys.find(token) : undefined;
    if (key === undefined) throw new AppError("invalid_api_key", "This API key is not known");
    if (key.revokedAtMs !== null) throw new AppError("invalid_api_key", "This API key was revoked");
    const nowMs = now();
    if (key.expiresAtMs !== null && key.expiresAtMs <= nowMs)
      throw new AppError("invalid_api_key", "This API key has expired");
    keys.noteUse(key.apiKeyId, nowMs);
    const { apiKeyId, userId, workspaceId, scopesJson } = key;
    return { authKind: "api_key", apiKeyId, userId, workspaceId, scopes: scopesOf(scopesJson) };
  }

  /** The place of session tokens: verifying one gives a principal as a key does. */
  function fromJwt(): never {
    throw new AppError(
      "unauthorized",
      "Sessions are not configured on this server: use an API key, which begins with op_live_",
    );
  }

  function scopesOf(scopesJson: string): readonly string[] {
    let scopes = scopesByJson.get(scopesJson);
    if (scopes === undefined) {
      scopes = parseScopes(scopesJson);
      scopesByJson.set(scopesJson, scopes);
    }
    return scopes;
  }

  return authenticate;
}

function bearerToken(authorization: string | undefined): string {
  if (authorization === undefined || authorization === "") {
    throw new AppError("invalid_api_key", 'No credential: send the header "Authorization: Bearer op_live_…"');
  }
  const token = /^bearer +([^\s]+) *$/i.exec(authorization)?.[1];
  if (token === undefined) {
    throw new AppError("invalid_api_key", 'The Authorization header must read "Bearer" and the API key');
  }
  return token;
}

/** A key acts for its own workspace: the header may be left out or empty, but must not name another. */
function checkWorkspaceHeader(header: string | string[] | undefined, principal: Principal): void {
  if (header === undefined || header === "") return;
  if (typeof header !== "string" || header.toLowerCase() !== principal.workspaceId) {
    throw new AppError("forbidden", "X-Workspace-Id names another workspace than this API key's: leave it out");
  }
}
