import type { IncomingMessage } from "node:http";
import { checkKeyHolds, type Keys, type KnownKey } from "../books/keys.ts";
import type { Members } from "../books/members.ts";
import { authorize, type Permission } from "../books/permissions.ts";
import { type ApiKeyPrincipal, type Principal, SCOPES, type SessionPrincipal } from "../books/principals.ts";
import type { Users } from "../books/users.ts";
import { noSelectedWorkspace } from "../books/workspaces.ts";
import { AppError } from "../errors.ts";
import { API_KEY_PATTERN } from "../ids.ts";
import type { KeyUses } from "./key_uses.ts";
import type { RateLimit } from "./rate_limit.ts";
import type { Sessions } from "./sessions.ts";

const ALL_SCOPES: readonly string[] = [...SCOPES].sort();
const UUID_PATTERN = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

export interface AuthParts {
  keys: Pick<Keys, "find">;
  keyUses: Pick<KeyUses, "note">;
  users: Users;
  members: Pick<Members, "findRole">;
  /** Null if no issuer of sessions is configured. */
  sessions: Sessions | null;
  rateLimit: RateLimit;
  now: () => number;
}

/** A turn of the event loop in which a credential was checked. */
interface Turn {
  /** When the first check of the turn began, in milliseconds of `performance.now()`. */
  beganMs: number;
  /** The keys that were looked up in this turn, by their plain text. */
  keys: Map<string, KnownKey>;
}

/**
 * Turns a request's headers into a principal. Every credential is `Authorization: Bearer …`: a token that begins with
 * `op_` is an API key and nothing else, any other is a session's JWT.
 */
export function createAuth({ keys, keyUses, users, members, sessions, rateLimit, now }: AuthParts) {
  let turn: Turn | null = null;

  /**
   * Identifies the caller and checks that they may. Throws `invalid_api_key` or `unauthorized` for a credential that does not
   * hold, `forbidden` for a missing scope, too low a role, or a header that names another workspace than an API key's; for a
   * session's header `bad_request` if it is malformed or missing, `not_found` if the user is no member. Throws `rate_limited`
   * if the key, or the session's user, has made too many requests. No promise for an API key that another request of the same
   * turn has brought: then it returns, or throws, at once.
   */
  function authenticate(req: IncomingMessage, permission: Permission): Principal | Promise<Principal> {
    return identify(req, permission, checkRate);
  }

  /**
   * Checks again that the request's credential holds, and for the same things. Does nothing in the turn of the event loop in
   * which `known` was checked. Counts towards no limit. Throws the same errors as `authenticate`.
   */
  function reauthenticate(
    req: IncomingMessage,
    permission: Permission,
    known: Principal,
  ): Principal | Promise<Principal> {
    return turn !== null && known.checkedAtMs >= turn.beganMs ? known : identify(req, permission, countNothing);
  }

  function identify(req: IncomingMessage, permission: Permission, count: Count): Principal | Promise<Principal> {
    const token = bearerToken(req.headers.authorization);
    const header = req.headers["x-workspace-id"];
    return token.startsWith("op_")
      ? byApiKey(token, header, permission, count)
      : bySession(token, header, permission, count);
  }

  /**
   * Looks a key up once for all requests that are read in the same turn of the event loop: under load that saves a tenth of
   * their cost. A caller who waits for the response to a revocation before sending the next request is read in a later turn,
   * and refused.
   */
  function byApiKey(
    token: string,
    header: Header,
    permission: Permission,
    count: Count,
  ): ApiKeyPrincipal | Promise<ApiKeyPrincipal> {
    if (!token.startsWith("op_live_")) {
      throw new AppError(
        "invalid_api_key",
        "This kind of API key is reserved: use a live key, which begins with op_live_",
      );
    }
    const checkedAtMs = performance.now();
    // The lookup may outlast this turn, so its result goes to the turn in which it began, and to no later one.
    const { keys: found } = enterTurn(checkedAtMs);
    const admit = (key: KnownKey | undefined): ApiKeyPrincipal => {
      const nowMs = now();
      checkKeyHolds(key, nowMs);
      keyUses.note(key.apiKeyId, nowMs);
      const { apiKeyId, userId, workspaceId, scopes, rateLimitPerMin } = key;
      count(apiKeyId, rateLimitPerMin);
      const principal: ApiKeyPrincipal = { authKind: "api_key", apiKeyId, userId, workspaceId, scopes, checkedAtMs };
      checkNamesOwn(header, principal);
      authorize(principal, permission);
      return principal;
    };
    const known = found.get(token);
    if (known !== undefined || !API_KEY_PATTERN.test(token)) return admit(known);
    return keys.find(token).then((key) => {
      if (key !== undefined) found.set(token, key);
      return admit(key);
    });
  }

  /** The turn of the event loop that a check belongs to. */
  function enterTurn(nowMs: number): Turn {
    if (turn !== null) return turn;
    turn = { beganMs: nowMs, keys: new Map() };
    setImmediate(() => {
      turn = null;
    });
    return turn;
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
    const userId = await users.findOrCreate(await sessions.verify(token));
    count(userId, null);
    const checkedAtMs = performance.now();
    enterTurn(checkedAtMs);
    const selected = permission.workspace === "in_path" ? null : await findSelected(header, userId);
    const principal: SessionPrincipal = {
      ...{ authKind: "clerk", userId, workspaceId: null, role: null, apiKeyId: null, scopes: ALL_SCOPES, checkedAtMs },
      ...selected,
    };
    authorize(principal, permission);
    return principal;
  }

  /** Runs as soon as the caller is known and before any other check, so that refused requests count as well. */
  function checkRate(callerId: string, ownPerMin: number | null): void {
    const waitSeconds = rateLimit.take(callerId, ownPerMin);
    if (waitSeconds > 0) throw tooManyRequests(rateLimit.limitOf(ownPerMin), waitSeconds);
  }

  /** The workspace that the header selects, and the user's role there; null if it selects none. */
  async function findSelected(
    header: Header,
    userId: string,
  ): Promise<Pick<SessionPrincipal, "workspaceId" | "role"> | null> {
    const text = typeof header === "string" ? header.trim().toLowerCase() : header;
    if (text === undefined || text === "") return null;
    if (typeof text !== "string" || !UUID_PATTERN.test(text)) {
      throw new AppError("bad_request", "X-Workspace-Id must be the UUID of one workspace, or be left out");
    }
    const role = await members.findRole(text, userId);
    if (role === undefined) throw noSelectedWorkspace();
    return { workspaceId: text, role };
  }

  return { authenticate, reauthenticate };
}

type Header = string | string[] | undefined;
/** Counts a caller's request; `ownPerMin`: the caller's own limit, if there is one. Throws `rate_limited`. */
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
