import type { IncomingMessage, ServerResponse } from "node:http";
import { AppError } from "../errors.ts";
import { timestamp } from "../timestamp.ts";
import { type JsonLimits, readJson } from "./body.ts";
import { refuseConditions } from "./conditions.ts";
import type { Connection, Connections } from "./connections.ts";
import type { Cors } from "./cors.ts";
import { requestBody } from "./request_body.ts";
import { createRequestTurns } from "./request_turns.ts";
import type { Responses } from "./responses.ts";
import type { JsonRoute, RawRoute, Reply, Route } from "./route.ts";
import { matchRoute, routeTable } from "./router.ts";

const ALL_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/** The state of one request while it is served. */
export interface Exchange {
  connection: Connection;
  requestId: string;
  startedAtMs: number;
  /** The pattern of its route, for the log and the metrics. */
  route: string;
  /** Whether pages of every origin may read the response. */
  isOpen: boolean;
  /** Log fields that say who called. */
  logFields: Record<string, string>;
}

export interface DispatchOptions<Principal, Permission> extends JsonLimits {
  routes: readonly Route<Principal, Permission>[];
  /** Identifies the caller and checks the permission. Throws an `AppError` if the request is refused. */
  authenticate: (req: IncomingMessage, permission: Permission) => Principal | Promise<Principal>;
  /** Does so again, after the body was read, which may have taken long. It counts towards no limit. */
  reauthenticate: (req: IncomingMessage, permission: Permission, known: Principal) => Principal | Promise<Principal>;
  /** The tenant that a principal's requests belong to: tenants take turns under load. */
  ownerOf: (principal: Principal) => string;
  /** The log fields that identify a principal. */
  describe: (principal: Principal) => Record<string, string>;
  /** Says why there is nothing at a path, if more is known of it; otherwise null. */
  explainMissing: (path: string) => string | null;
  /** Called if a reply's `after` throws. */
  onAfterFailed: (exchange: Exchange, error: unknown) => void;
  connections: Connections;
  responses: Responses;
  cors: Cors;
  now: () => number;
  /** How long a streamed body may stand still. */
  bodyStallMs: number;
  /** Bytes in 10 seconds that a streamed body must bring; 0: any number. */
  bodyBytesPer10sMin: number;
}

/**
 * Serves one request by its route: authenticates, parses, waits for its tenant's turn, calls the handler, and writes the
 * response. The returned function throws, or rejects with, whatever the request fails with. JSON routes fail before anything
 * is written, raw ones possibly later.
 */
export function createDispatch<Principal, Permission>(options: DispatchOptions<Principal, Permission>) {
  const { authenticate, reauthenticate, ownerOf, describe, connections, responses, cors, now } = options;
  const table = routeTable(options.routes);
  const requestTurns = createRequestTurns();
  const rate = { bytesPer10sMin: options.bodyBytesPer10sMin, stallMsMax: options.bodyStallMs };

  return function dispatch(req: IncomingMessage, res: ServerResponse, exchange: Exchange): Promise<void> | void {
    if (req.headers.host === undefined && req.httpVersion === "1.1") throw noHost();
    if (req.url === "*" && req.method === "OPTIONS") return responses.options(req, res, exchange, ALL_METHODS);
    const target = splitTarget(req.url ?? "/");
    const match = matchRoute(table, req.method ?? "GET", target.path);
    if (match.kind === "none") {
      if (cors.isAllowedPreflight(req)) return responses.options(req, res, exchange, ALL_METHODS);
      throw nothingAt(target.path);
    }
    exchange.route = match.path;
    exchange.isOpen = (match.kind === "route" ? [match.route] : match.others).some(isOpenToAnyOrigin);
    if (req.method === "OPTIONS") return responses.options(req, res, exchange, match.allow);
    if (match.kind === "other_method") throw wrongMethod(match.allow);
    const { route, params } = match;
    if (route.kind === "raw") return serveRaw(route, target, req, res, exchange);
    return serveJson(route, { params, search: target.search }, req, res, exchange);
  };

  function nothingAt(path: string): AppError {
    const isSlashTooMuch = path.endsWith("/") && matchRoute(table, "GET", path.replace(/\/+$/, "")).kind !== "none";
    const why = isSlashTooMuch ? "leave out the slash at its end" : options.explainMissing(path);
    return new AppError("not_found", `There is nothing at this path${why === null ? "" : `: ${why}`}`);
  }

  async function serveRaw(
    route: RawRoute,
    target: Target,
    req: IncomingMessage,
    res: ServerResponse,
    exchange: Exchange,
  ): Promise<void> {
    responses.prepareRaw(req, res, exchange);
    // Pipelined downloads would each hold a file open long before their response can leave.
    if (route.method === "GET") await connections.turnOf(exchange.connection, res);
    await route.handle(req, res, { ...target, body: requestBody(req, exchange.connection, rate) });
  }

  async function serveJson(
    route: JsonRoute<Principal, Permission>,
    { params, search }: { params: Record<string, string>; search: string },
    req: IncomingMessage,
    res: ServerResponse,
    exchange: Exchange,
  ): Promise<void> {
    const { access } = route;
    const takesBody = route.body !== undefined;
    // A promise is awaited only if there is one: for an API key that is in memory there is none.
    let principal: Principal | null = null;
    if (access !== "public") {
      const known = authenticate(req, access);
      principal = known instanceof Promise ? await known : known;
      Object.assign(exchange.logFields, describe(principal));
      refuseConditions(req);
    }
    const body = takesBody ? await readJson(req, res, exchange.connection, options) : undefined;
    if (takesBody && access !== "public" && principal !== null) {
      const known = reauthenticate(req, access, principal);
      principal = known instanceof Promise ? await known : known;
    }
    if (principal !== null) {
      const turn = requestTurns.enter(ownerOf(principal));
      if (turn !== null) await turn;
    }
    const reply = await route.invoke({ params, search, body, principal, headers: req.headers, nowMs: now() });
    responses.json(req, res, exchange, {
      status: route.status,
      headers: {},
      body: route.isBare ? reply.data : envelopeOf(reply, exchange.requestId, now()),
    });
    // After the response was handed to the socket: background work never delays it.
    if (reply.after !== undefined) setImmediate(runAfter, reply.after, exchange);
  }

  function runAfter(work: () => void, exchange: Exchange): void {
    try {
      work();
    } catch (error) {
      options.onAfterFailed(exchange, error);
    }
  }
}

/** The envelope of every success. The order of its fields is part of the wire. */
function envelopeOf({ data, pagination }: Reply<unknown, unknown>, requestId: string, nowMs: number): object {
  const meta = { request_id: requestId, timestamp: timestamp(nowMs) };
  return pagination === undefined ? { data, meta } : { data, pagination, meta };
}

function isOpenToAnyOrigin<Principal, Permission>(route: Route<Principal, Permission>): boolean {
  return route.kind === "raw" && route.isOpenToAnyOrigin;
}

function wrongMethod(allow: string): AppError {
  return new AppError("method_not_allowed", `This path takes ${allow}`, { headers: { Allow: allow } });
}

function noHost(): AppError {
  return new AppError("bad_request", 'The request has no header "Host", which HTTP/1.1 asks for');
}

interface Target {
  path: string;
  /** Without the question mark. */
  search: string;
}

/** Splits a request's target, also in the absolute form that proxies may send. Nothing is decoded or normalised here. */
function splitTarget(target: string): Target {
  let local = target;
  if (!target.startsWith("/")) {
    const absolute = /^https?:\/\/[^/?#]*(.*)$/i.exec(target);
    local = absolute?.[1] || "/";
    if (!local.startsWith("/")) local = `/${local}`;
  }
  const queryAt = local.indexOf("?");
  return queryAt < 0
    ? { path: local, search: "" }
    : { path: local.slice(0, queryAt), search: local.slice(queryAt + 1) };
}
