import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Principal } from "../core/principals.ts";
import { AppError } from "../errors.ts";
import { newRequestId } from "../ids.ts";
import type { Log } from "../log.ts";
import { timestamp } from "../timestamp.ts";
import { isSoonRead, lingerThenEnd, readJson } from "./body.ts";
import { type AnsweredRequest, createConnections } from "./connections.ts";
import { corsHeaders, isPreflight, preflightHeaders } from "./cors.ts";
import { errorAnswer, type JsonAnswer } from "./errors.ts";
import { type Access, matchRoute, type Route, type RouteTable, routeTable } from "./routes.ts";

/** All headers of a request together; more is answered with 431. */
const HEADER_BYTES_MAX = 16 * 1024;
/** How often it is looked whether headers are late. */
const HEADERS_CHECK_MS_MAX = 5_000;
/** Connections at once; a stranger cannot use up the process's file descriptors. */
const CONNECTIONS_MAX = 8_192;
/** While the server closes: how often it looks for connections that have become idle. */
const CLOSE_LOOK_MS = 20;

/** Time-outs in milliseconds; tests shorten them. */
const TIMEOUTS = {
  /** Time to send the headers. The body has a limit of its own, because an object's PUT may rightly take long. */
  headersMs: 20_000,
  /** Time to send a JSON body. */
  bodyMs: 20_000,
  /** An idle connection is kept this long: longer than the usual 60 s of a proxy in front, so that the proxy closes first. */
  keepAliveMs: 65_000,
  /** A transfer of an object in which nothing moves, in either direction, for this long is cut. */
  transferIdleMs: 120_000,
  /** A refused body is still read for this long, so that the client gets to see the answer instead of a reset. */
  lingerMs: 2_000,
  /** Requests in flight may take this long to finish when the server is closed. */
  closeGraceMs: 30_000,
};

const ALL_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

export interface HttpOptions {
  routes: readonly Route[];
  /** Who asks, and whether they may: throws an `AppError` otherwise. */
  authenticate: (req: IncomingMessage, access: Exclude<Access, "public">) => Principal | Promise<Principal>;
  /** The same once more, after the body was read, which may have taken long. It counts towards no limit. */
  askAgain: (
    req: IncomingMessage,
    access: Exclude<Access, "public">,
    known: Principal,
  ) => Principal | Promise<Principal>;
  /** What the log tells of a principal. */
  describe: (principal: Principal) => Record<string, string>;
  corsOrigins: readonly string[];
  log: Log;
  now: () => number;
  /** Told of every request once it was answered, for metrics. */
  onAnswered?: (request: AnsweredRequest) => void;
  timeouts?: Partial<typeof TIMEOUTS>;
}

export interface HttpServer {
  /** Starts to listen and resolves with the port. Rejects where the address cannot be used. */
  listen: (host: string, port: number) => Promise<number>;
  /** Stops accepting, finishes what is in flight, and resolves when all connections are closed. */
  close: () => Promise<void>;
}

/** What is known of one request while it is answered. */
interface Exchange {
  requestId: string;
  startedAtMs: number;
  route: string;
  logFields: Record<string, string>;
}

/** The HTTP server: matches a route, checks who asks, parses, calls the handler, writes the answer. Knows no product noun. */
export function createHttpServer(options: HttpOptions): HttpServer {
  const { authenticate, askAgain, describe, corsOrigins, log, now, onAnswered = () => {} } = options;
  const timeouts = { ...TIMEOUTS, ...options.timeouts };
  const table: RouteTable = routeTable(options.routes);
  const connections = createConnections({ lingerMs: timeouts.lingerMs, log, now, onAnswered });
  let closing = false;

  const server: Server = createServer({
    maxHeaderSize: HEADER_BYTES_MAX,
    headersTimeout: timeouts.headersMs,
    connectionsCheckingInterval: Math.min(HEADERS_CHECK_MS_MAX, timeouts.headersMs),
    requestTimeout: 0,
    keepAliveTimeout: timeouts.keepAliveMs,
    // We look ourselves: node:http's own answer would have no envelope.
    requireHostHeader: false,
  });
  server.maxConnections = CONNECTIONS_MAX;
  // Whoever closes their side after the last request still gets its answer. The type does not know the property.
  Object.assign(server, { httpAllowHalfOpen: true });
  server.on("connection", connections.add);
  server.on("request", (req, res) => void answer(req, res));
  // Whoever asks before sending a body is answered like everyone else: a refused body is then never sent.
  server.on("checkContinue", (req, res) => void answer(req, res));
  server.on("checkExpectation", (req, res) => void answer(req, res, unknownExpectation()));
  server.on("clientError", connections.refuse);
  server.on("connect", (_req, socket) => {
    // node:http has let go of the socket: without a listener a reset would end the process.
    socket.on("error", ignore);
    connections.refuse(new Error("CONNECT is for proxies"), socket);
  });

  async function answer(req: IncomingMessage, res: ServerResponse, refusal?: AppError): Promise<void> {
    const startedAtMs = now();
    const startedMonotonicMs = performance.now();
    const exchange: Exchange = {
      requestId: newRequestId(startedAtMs),
      startedAtMs,
      route: "(unmatched)",
      logFields: {},
    };
    connections.noteAnswer(req.socket, res);
    // Without a listener a client that goes away in mid-answer would end the process.
    res.on("error", ignore);
    req.on("error", ignore);
    try {
      if (refusal !== undefined) throw refusal;
      await dispatch(req, res, exchange);
    } catch (error) {
      const failed = errorAnswer(error, exchange.requestId, now());
      if (failed.status === 500) {
        log.error("request_failed", { request_id: exchange.requestId, route: exchange.route, error });
      } else if (failed.status === 503) {
        log.warn("request_unavailable", { request_id: exchange.requestId, route: exchange.route, error });
      }
      if (res.headersSent) res.destroy();
      else writeJson(req, res, failed, exchange);
    }
    onAnswered({
      method: req.method ?? "GET",
      route: exchange.route,
      status: res.statusCode,
      durationMs: performance.now() - startedMonotonicMs,
    });
    log.info("request", {
      method: req.method,
      route: exchange.route,
      status: res.statusCode,
      duration_ms: now() - startedAtMs,
      request_id: exchange.requestId,
      ...exchange.logFields,
    });
  }

  async function dispatch(req: IncomingMessage, res: ServerResponse, exchange: Exchange): Promise<void> {
    if (req.headers.host === undefined && req.httpVersion === "1.1") throw noHost();
    if (req.url === "*" && req.method === "OPTIONS") return answerOptions(req, res, ALL_METHODS, exchange);
    const { path, search } = splitTarget(req.url ?? "/");
    const found = matchRoute(table, req.method ?? "GET", path);
    if (found.kind === "none") throw new AppError("not_found", "There is nothing at this path");
    exchange.route = found.path;
    if (req.method === "OPTIONS") return answerOptions(req, res, found.allow, exchange);
    if (found.kind === "other_method") {
      throw new AppError("method_not_allowed", `This path takes ${found.allow}`, { headers: { Allow: found.allow } });
    }

    const { route, params } = found;
    if (route.kind === "raw") {
      res.setHeader("X-Request-Id", exchange.requestId);
      for (const [name, value] of Object.entries(corsHeaders(req, corsOrigins))) res.setHeader(name, value);
      if (closing) res.setHeader("Connection", "close");
      // Without a listener node:http cuts the connection; with the next request, or idleness, it sets its own time-out.
      req.socket.setTimeout(timeouts.transferIdleMs);
      await route.handle(req, res, { path, search });
      return;
    }
    let principal: Principal | null = null;
    if (route.access !== "public") {
      const known = authenticate(req, route.access);
      principal = known instanceof Promise ? await known : known;
      exchange.logFields = describe(principal);
    }
    const body = route.takesBody ? await readJson(req, res, timeouts.bodyMs) : undefined;
    if (route.takesBody && route.access !== "public" && principal !== null) {
      const known = askAgain(req, route.access, principal);
      principal = known instanceof Promise ? await known : known;
    }
    const reply = await route.invoke({ params, search, body, principal, headers: req.headers, nowMs: now() });
    writeJson(
      req,
      res,
      {
        status: reply.status ?? 200,
        headers: reply.headers ?? {},
        body: reply.bare ?? {
          data: reply.data,
          ...(reply.pagination === undefined ? {} : { pagination: reply.pagination }),
          meta: { request_id: exchange.requestId, timestamp: timestamp(now()) },
        },
      },
      exchange,
    );
    // After the answer was handed to the socket: what is done in the background never delays it.
    if (reply.after !== undefined) setImmediate(reply.after);
  }

  function writeJson(
    req: IncomingMessage,
    res: ServerResponse,
    { status, headers, body }: JsonAnswer,
    exchange: Exchange,
  ): void {
    // The line end is for those who read the answer in a terminal.
    const text = `${JSON.stringify(body)}\n`;
    const unread = !req.complete && (status === 408 || !isSoonRead(req));
    res.writeHead(status, {
      "Content-Type": "application/json; charset=utf-8",
      "Content-Length": Buffer.byteLength(text),
      "X-Request-Id": exchange.requestId,
      // Answers carry signed URLs and one workspace's data: no cache may keep them.
      "Cache-Control": "no-store",
      ...(corsOrigins.length === 0 ? {} : corsHeaders(req, corsOrigins)),
      ...(unread || closing ? { Connection: "close" } : {}),
      ...headers,
    });
    if (unread) lingerThenEnd(req, res, text, timeouts.lingerMs);
    else res.end(text);
  }

  function answerOptions(req: IncomingMessage, res: ServerResponse, allow: string, exchange: Exchange): void {
    res.writeHead(204, {
      Allow: allow,
      "X-Request-Id": exchange.requestId,
      ...(closing ? { Connection: "close" } : {}),
      ...(isPreflight(req) ? preflightHeaders(req, corsOrigins, allow) : corsHeaders(req, corsOrigins)),
    });
    res.end();
  }

  function listen(host: string, port: number): Promise<number> {
    return new Promise((resolve, reject) => {
      server.once("error", reject);
      server.listen({ host, port }, () => {
        server.off("error", reject);
        server.on("error", (error) => log.error("listen_failed", { error }));
        resolve((server.address() as AddressInfo).port);
      });
    });
  }

  function close(): Promise<void> {
    closing = true;
    if (!server.listening) return Promise.resolve();
    return new Promise((resolve) => {
      const cut = setTimeout(() => {
        log.warn("connections_cut", { after_ms: timeouts.closeGraceMs });
        server.closeAllConnections();
      }, timeouts.closeGraceMs);
      // node:http's own look misses connections that never asked for anything, and those that become idle later.
      const look = setInterval(connections.closeIdle, CLOSE_LOOK_MS);
      server.close(() => {
        clearTimeout(cut);
        clearInterval(look);
        resolve();
      });
      connections.closeIdle();
    });
  }

  return { listen, close };
}

function ignore(): void {}

function unknownExpectation(): AppError {
  return new AppError("bad_request", 'Cannot meet the header "Expect": only "100-continue" is understood');
}

function noHost(): AppError {
  return new AppError("bad_request", 'The request has no header "Host", which HTTP/1.1 asks for');
}

/** Splits a request's target, also in the absolute form that proxies may send. Nothing is decoded or normalised here. */
function splitTarget(target: string): { path: string; search: string } {
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
