import type { IncomingMessage } from "node:http";
import { checkKeyHolds, type Keys, type KnownKey, parseScopes } from "../core/keys.ts";
import { authorize, PERMISSIONS, type Permission } from "../core/permissions.ts";
import { type ApiKeyPrincipal, type Principal, SCOPES, type SessionPrincipal } from "../core/principals.ts";
import { notOfYours } from "../core/rights.ts";
import type { Users } from "../core/users.ts";
import type { Workspaces } from "../core/workspaces.ts";
import { AppError } from "../errors.ts";
import type { Access } from "../http/routes.ts";
import { API_KEY_PATTERN } from "../ids.ts";
import type { RateLimit } from "./rate_limit.ts";
import type { Sessions } from "./sessions.ts";

const ALL_SCOPES: readonly string[] = [...SCOPES].sort();
const UUID_PATTERN = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

export interface AuthParts {
  keys: Keys;
  users: Users;
  workspaces: Workspaces;
  /** Null where no issuer of sessions is configured. */
  sessions: Sessions | null;
  rateLimit: RateLimit;
  now: () => number;
}

/**
 * Turns a request's headers into a principal. Every credential is `Authorization: Bearer …`: a token that begins with
 * `op_` is an API key and nothing else, any other is a session's JWT.
 */
export function createAuth({ keys, users, workspaces, sessions, rateLimit, now }: AuthParts) {
  /** Parsed scopes by their stored text: few texts exist, and parsing one for each request would be waste. */
  const scopesByJson = new Map<string, readonly string[]>();
  const foundThisTurn = new Map<string, KnownKey>();
  /** When the first credential of this turn of the event loop was looked at; infinite as long as none was. */
  let turnBeganMs = Number.POSITIVE_INFINITY;

  /**
   * Who asks, and whether they may. Throws `invalid_api_key` or `unauthorized` for a credential that does not hold,
   * `forbidden` for a missing scope, too low a role, or a header that names another workspace than an API key's; for a
   * session's header `bad_request` where it is malformed or missing, `not_found` where the user is no member. Throws `rate_limited`
   * where the key, or a session's user, has asked too often. Only for sessions it has to wait.
   */
  function authenticate(req: IncomingMessage, access: Exclude<Access, "public">): Principal | Promise<Principal> {
    return identify(req, access, checkRate);
  }

  /**
   * Whether the request's credential still holds, and for the same things; without a look in the turn of the event loop in
   * which `known` was found. Counts towards no limit. Throws as `authenticate` does.
   */
  function askAgain(
    req: IncomingMessage,
    access: Exclude<Access, "public">,
    known: Principal,
  ): Principal | Promise<Principal> {
    return known.checkedAtMs >= turnBeganMs ? known : identify(req, access, countNothing);
  }

  function identify(
    req: IncomingMessage,
    access: Exclude<Access, "public">,
    count: Count,
  ): Principal | Promise<Principal> {
    const permission = access === "any" ? PERMISSIONS.identify : access;
    const token = bearerToken(req.headers.authorization);
    const header = req.headers["x-workspace-id"];
    return token.startsWith("op_")
      ? byApiKey(token, header, permission, count)
      : bySession(token, header, permission, count);
  }

  function byApiKey(token: string, header: Header, permission: Permission, count: Count): ApiKeyPrincipal {
    const principal = fromApiKey(token, count);
    checkNamesOwn(header, principal);
    authorize(principal, permission);
    return principal;
  }

  function fromApiKey(token: string, count: Count): ApiKeyPrincipal {
    if (!token.startsWith("op_live_")) {
      throw new AppError(
        "invalid_api_key",
        "This kind of API key is reserved: use a live key, which begins with op_live_",
      );
    }
    const checkedAtMs = noteTurn();
    const key = API_KEY_PATTERN.test(token) ? findKey(token) : undefined;
    const nowMs = now();
    checkKeyHolds(key, nowMs);
    keys.noteUse(key.apiKeyId, nowMs);
    const { apiKeyId, userId, workspaceId, scopesJson, rateLimitPerMin } = key;
    count(apiKeyId, rateLimitPerMin);
    return { authKind: "api_key", apiKeyId, userId, workspaceId, scopes: scopesOf(scopesJson), checkedAtMs };
  }

  /**
   * Looks a key up, once for all requests that are read in the same turn of the event loop: under load that saves a tenth
   * of their cost. Who waits for a revocation's answer before asking is read in a later turn, and refused.
   */
  function findKey(token: string): KnownKey | undefined {
    const known = foundThisTurn.get(token);
    if (known !== undefined) return known;
    const found = keys.find(token);
    if (found === undefined) return undefined;
    foundThisTurn.set(token, found);
    return found;
  }

  /** Notes that a credential is looked at, and returns the moment. */
  function noteTurn(): number {
    const nowMs = performance.now();
    if (turnBeganMs === Number.POSITIVE_INFINITY) {
      turnBeganMs = nowMs;
      setImmediate(() => {
        turnBeganMs = Number.POSITIVE_INFINITY;
        foundThisTurn.clear();
      });
    }
    return nowMs;
  }

  async function bySession(
    token: string,
    header: Header,
    permission: Permission,
    count: Count,
  ): Promise<SessionPrincipal> {
    if (sessions === null) {
      throw new AppError(
        "unauthorized",
        "Sessions are not configured on this server: use an API key, which begins with op_live_",
      );
    }
    const userId = await users.ofSession(await sessions.verify(token));
    count(userId, null);
    const checkedAtMs = noteTurn();
    const selected = permission.workspace === "in_path" ? null : selectedBy(header, userId);
    const principal: SessionPrincipal = {
      ...{ authKind: "clerk", userId, workspaceId: null, role: null, apiKeyId: null, scopes: ALL_SCOPES, checkedAtMs },
      ...selected,
    };
    authorize(principal, permission);
    return principal;
  }

  /** Asked once it is known who calls, and before all else that they ask for: what is refused counts as well. */
  function checkRate(callerId: string, ownPerMin: number | null): void {
    const waitSeconds = rateLimit.take(callerId, ownPerMin);
    if (waitSeconds > 0) throw tooManyRequests(rateLimit.limitOf(ownPerMin), waitSeconds);
  }

  /** The workspace that the header selects, and the user's role there; null where it selects none. */
  function selectedBy(header: Header, userId: string): Pick<SessionPrincipal, "workspaceId" | "role"> | null {
    const text = typeof header === "string" ? header.trim().toLowerCase() : header;
    if (text === undefined || text === "") return null;
    if (typeof text !== "string" || !UUID_PATTERN.test(text)) {
      throw new AppError("bad_request", "X-Workspace-Id must be the UUID of one workspace, or be left out");
    }
    const role = workspaces.roleOf(text, userId);
    if (role === undefined) throw notOfYours();
    return { workspaceId: text, role };
  }

  function scopesOf(scopesJson: string): readonly string[] {
    let scopes = scopesByJson.get(scopesJson);
    if (scopes === undefined) {
      scopes = parseScopes(scopesJson);
      scopesByJson.set(scopesJson, scopes);
    }
    return scopes;
  }

  return { authenticate, askAgain };
}

type Header = string | string[] | undefined;
/** Counts a request of a caller; `ownPerMin`: the caller's own limit, if there is one. Throws `rate_limited`. */
type Count = (callerId: string, ownPerMin: number | null) => void;

function countNothing(): void {}

function tooManyRequests(perMin: number, waitSeconds: number): AppError {
  return new AppError(
    "rate_limited",
    `Too many requests: ${perMin} a minute are allowed. Ask again in ${waitSeconds} s`,
    { retryAfterSeconds: waitSeconds },
  );
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
function checkNamesOwn(header: Header, principal: ApiKeyPrincipal): void {
  if (header === undefined || header === "") return;
  if (typeof header !== "string" || header.toLowerCase() !== principal.workspaceId) {
    throw new AppError("forbidden", "X-Workspace-Id names another workspace than this API key's: leave it out");
  }
}
