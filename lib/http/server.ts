import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Principal } from "../core/principals.ts";
import { AppError, clientGone } from "../errors.ts";
import { newRequestId } from "../ids.ts";
import type { Log } from "../log.ts";
import { timestamp } from "../timestamp.ts";
import { readJson } from "./body.ts";
import { type Connection, createConnections } from "./connections.ts";
import { corsHeaders } from "./cors.ts";
import { errorAnswer } from "./errors.ts";
import { closeUnlessWhole } from "./linger.ts";
import { type Listeners, openListeners } from "./listeners.ts";
import type { AnsweredRequest } from "./refusals.ts";
import { requestBody } from "./request_body.ts";
import { createRequestTurns } from "./request_turns.ts";
import { createResponses } from "./responses.ts";
import { type Access, matchRoute, type Route, type RouteTable, routeTable } from "./routes.ts";

/** All headers of a request together; more is answered with 431. */
const HEADER_BYTES_MAX = 16 * 1024;
/** How often it is looked whether headers are late. */
const HEADERS_CHECK_MS_MAX = 5_000;
/** Connections at once; a stranger cannot use up the process's file descriptors. */
const CONNECTIONS_MAX = 8_192;
/** Above that node:http drops newcomers itself. Until then the one that gives way to a newcomer may still be closing. */
const CONNECTIONS_CLOSING_MAX = 1_024;
/** How often it is checked how much clients leave unread: less often, and a flood could bring gigabytes in between. */
const UNREAD_CHECK_MS = 250;
/** While the server closes: how many times in the length of a stall it checks for one. */
const STALL_CHECKS = 8;
/** While the server closes: how often it checks for connections that have become idle. */
const IDLE_CHECK_MS = 20;

/** Time-outs in milliseconds; tests shorten them. */
const TIMEOUTS = {
  /** Time to send the headers. The body has a limit of its own, because an object's PUT may rightly take long. */
  headersMs: 20_000,
  /** Time to send a JSON body. */
  bodyMs: 20_000,
  /** An idle connection is kept this long: longer than the usual 60 s of a proxy in front, so that the proxy closes first. */
  keepAliveMs: 65_000,
  /** A connection that waits for its client, to send a body or to read a response, is cut if nothing moves for this long. */
  silenceMs: 120_000,
  /** A refused body is still read for this long, so that the client gets to see the answer instead of a reset. */
  lingerMs: 2_000,
  /** Requests in flight may take this long to finish when the server is closed. */
  closeGraceMs: 30_000,
  /** While the server closes, a client that keeps us waiting must move at least 2 KiB in each span of this length. */
  closeStallMs: 4_000,
  /** A body that is streamed may stand still for this long. */
  bodyStallMs: 30_000,
};

/** A client that kept us waiting until its connection was cut. */
const CUT_STATUS = 408;
/** A client that went away: there is nobody to send it to. */
const CLIENT_GONE_STATUS = 499;

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
  /** Whose work a principal's requests are: owners take turns when there is too much of it. */
  ownerOf: (principal: Principal) => string;
  /** Makes an `AppError` of a failure that is nobody's defect; all else passes through. */
  explain?: (error: unknown) => unknown;
  /** What the log tells of a principal. */
  describe: (principal: Principal) => Record<string, string>;
  corsOrigins: readonly string[];
  /** Bytes in 10 seconds that a streamed body must bring while it is waited for; 0: any number. */
  bodyBytesPer10sMin: number;
  /** Connections at once, of everyone together; fewer in tests. */
  connectionsMax?: number;
  /** Connections at once from one address; null: any number. */
  connectionsPerAddressMax: number | null;
  /** Whether an address is a proxy's, which stands for many clients. */
  isTrustedAddress: (address: string) => boolean;
  log: Log;
  now: () => number;
  /** Told of every request once it was answered, for metrics. */
  onAnswered?: (request: AnsweredRequest) => void;
  timeouts?: Partial<typeof TIMEOUTS>;
}

export interface HttpServer {
  /** Starts to listen and resolves with the port. Rejects where the address cannot be used. */
  listen: (host: string, port: number) => Promise<number>;
  /** Stops accepting, finishes what is in flight, and resolves when all connections are closed and all handlers done. */
  close: () => Promise<void>;
}

/** What is known of one request while it is answered. */
interface Exchange {
  connection: Connection;
  requestId: string;
  startedAtMs: number;
  route: string;
  logFields: Record<string, string>;
}

/** The HTTP server: matches a route, checks who asks, parses, calls the handler, writes the answer. Knows no product noun. */
export function createHttpServer(options: HttpOptions): HttpServer {
  const {
    authenticate,
    askAgain,
    ownerOf,
    explain = (error) => error,
    describe,
    corsOrigins,
    bodyBytesPer10sMin,
    log,
    now,
    onAnswered = () => {},
  } = options;
  const timeouts = { ...TIMEOUTS, ...options.timeouts };
  const table: RouteTable = routeTable(options.routes);
  const connections = createConnections({
    connectionsMax: options.connectionsMax ?? CONNECTIONS_MAX,
    perAddressMax: options.connectionsPerAddressMax,
    isTrusted: options.isTrustedAddress,
    ...{ lingerMs: timeouts.lingerMs, log, now, onAnswered },
  });
  const responses = createResponses({ corsOrigins, lingerMs: timeouts.lingerMs, isClosing: () => closing });
  const requestTurns = createRequestTurns();
  let listeners: Listeners | null = null;
  let unreadCheck: NodeJS.Timeout | undefined;
  let closing = false;
  /** Whether the time to finish what was in flight is over. */
  let isCut = false;
  /** Requests whose handlers are at work, also after their connection is gone: a PUT that was cut still tidies up. */
  let answering = 0;
  /** Called when a handler has ended; once the server closes, whoever waits for the last one hears of it. */
  let onQuiet: () => void = ignore;

  const server: Server = createServer({
    maxHeaderSize: HEADER_BYTES_MAX,
    headersTimeout: timeouts.headersMs,
    connectionsCheckingInterval: Math.min(HEADERS_CHECK_MS_MAX, timeouts.headersMs),
    requestTimeout: 0,
    keepAliveTimeout: timeouts.keepAliveMs,
    // We look ourselves: node:http's own answer would have no envelope.
    requireHostHeader: false,
  });
  server.maxConnections = CONNECTIONS_MAX + CONNECTIONS_CLOSING_MAX;
  // Whoever closes their side after the last request still gets its answer. The type does not know the property.
  Object.assign(server, { httpAllowHalfOpen: true });
  // node:http applies it from a request's first byte until its response has left, and then the one for idleness.
  server.timeout = timeouts.silenceMs;
  server.on("timeout", connections.onSilence);
  server.on("connection", connections.add);
  server.on("request", onRequest);
  // A client that asks before it sends a body is answered like everyone else: a refused body is then never sent.
  server.on("checkContinue", onRequest);
  server.on("checkExpectation", (req, res) => onRequest(req, res, unknownExpectation()));
  server.on("clientError", connections.refuse);
  server.on("connect", (_req, socket) => {
    // node:http has let go of the socket: without a listener a reset would end the process.
    socket.on("error", ignore);
    connections.refuseConnect(socket);
  });

  function onRequest(req: IncomingMessage, res: ServerResponse<IncomingMessage>, refusal?: AppError): void {
    connections.admit(res, (connection) => {
      const startedAtMs = now();
      const requestId = newRequestId(startedAtMs);
      const exchange: Exchange = { connection, requestId, startedAtMs, route: "(unmatched)", logFields: {} };
      // Whatever fails while a request is answered, and be it the answering of its failure, ends its connection alone.
      answering++;
      answer(req, res, exchange, refusal).then(onEnded, (error: unknown) => {
        connection.socket.destroy();
        log.error("answer_failed", { request_id: requestId, route: exchange.route, error });
        onEnded();
      });
    });
  }

  function onEnded(): void {
    answering--;
    onQuiet();
  }

  /** Answers one request, also if it fails. Rejects only if the answering itself is at fault. */
  async function answer(
    req: IncomingMessage,
    res: ServerResponse,
    exchange: Exchange,
    refusal: AppError | undefined,
  ): Promise<void> {
    const { connection, requestId, startedAtMs } = exchange;
    const startedMonotonicMs = performance.now();
    // Without a listener a client that goes away in the middle of a response would end the process.
    res.on("error", ignore);
    req.on("error", ignore);
    let status: number;
    try {
      if (connection.socket.destroyed) throw connection.cut ?? clientGone();
      if (refusal !== undefined) throw refusal;
      await dispatch(req, res, exchange);
      status = res.statusCode;
    } catch (error) {
      // After the time for it is over, the database may be closed under a handler: nobody waits for its response any more.
      const failed = errorAnswer(isCut ? cutShort(error) : explain(error), requestId, now());
      status = failed.status;
      if (status === 500) log.error("request_failed", { request_id: requestId, route: exchange.route, error });
      else if (status === 503) log.warn("request_unavailable", { request_id: requestId, route: exchange.route, error });
      if (res.headersSent || status === CLIENT_GONE_STATUS || connection.socket.destroyed) connection.socket.destroy();
      else responses.json(req, res, exchange, failed);
    }
    // A response that could not leave is not one that the client got.
    if (connection.socket.destroyed && !res.writableFinished && status !== 500) {
      status = connection.cut === null ? CLIENT_GONE_STATUS : CUT_STATUS;
    }
    closeUnlessWhole(req, connection, timeouts.lingerMs);
    onAnswered({
      method: req.method ?? "GET",
      route: exchange.route,
      status,
      durationMs: performance.now() - startedMonotonicMs,
    });
    log.info("request", {
      method: req.method,
      route: exchange.route,
      status,
      duration_ms: now() - startedAtMs,
      request_id: requestId,
      ...exchange.logFields,
    });
  }

  async function dispatch(req: IncomingMessage, res: ServerResponse, exchange: Exchange): Promise<void> {
    if (req.headers.host === undefined && req.httpVersion === "1.1") throw noHost();
    if (req.url === "*" && req.method === "OPTIONS") return responses.options(req, res, exchange, ALL_METHODS);
    const { path, search } = splitTarget(req.url ?? "/");
    const found = matchRoute(table, req.method ?? "GET", path);
    if (found.kind === "none") throw new AppError("not_found", "There is nothing at this path");
    exchange.route = found.path;
    if (req.method === "OPTIONS") return responses.options(req, res, exchange, found.allow);
    if (found.kind === "other_method") {
      throw new AppError("method_not_allowed", `This path takes ${found.allow}`, { headers: { Allow: found.allow } });
    }

    const { route, params } = found;
    if (route.kind === "raw") {
      res.setHeader("X-Request-Id", exchange.requestId);
      for (const [name, value] of Object.entries(corsHeaders(req, corsOrigins))) res.setHeader(name, value);
      if (closing) res.setHeader("Connection", "close");
      // Pipelined downloads would each hold a file open long before their response can leave.
      if (route.method === "GET") await connections.turnOf(exchange.connection, res);
      const rate = { bytesPer10sMin: bodyBytesPer10sMin, stallMsMax: timeouts.bodyStallMs };
      await route.handle(req, res, { path, search, body: requestBody(req, exchange.connection, rate) });
      return;
    }
    let principal: Principal | null = null;
    if (route.access !== "public") {
      const known = authenticate(req, route.access);
      principal = known instanceof Promise ? await known : known;
      exchange.logFields = describe(principal);
    }
    const body = route.takesBody ? await readJson(req, res, exchange.connection, timeouts.bodyMs) : undefined;
    if (route.takesBody && route.access !== "public" && principal !== null) {
      const known = askAgain(req, route.access, principal);
      principal = known instanceof Promise ? await known : known;
    }
    if (principal !== null) {
      const turn = requestTurns.enter(ownerOf(principal));
      if (turn !== null) await turn;
    }
    const reply = await route.invoke({ params, search, body, principal, headers: req.headers, nowMs: now() });
    responses.json(req, res, exchange, {
      status: reply.status ?? 200,
      headers: reply.headers ?? {},
      body: reply.bare ?? {
        data: reply.data,
        ...(reply.pagination === undefined ? {} : { pagination: reply.pagination }),
        meta: { request_id: exchange.requestId, timestamp: timestamp(now()) },
      },
    });
    // After the answer was handed to the socket: what is done in the background never delays it.
    if (reply.after !== undefined) setImmediate(afterwards, reply.after, exchange);
  }

  function afterwards(work: () => void, { requestId, route }: Exchange): void {
    try {
      work();
    } catch (error) {
      log.error("after_response_failed", { request_id: requestId, route, error });
    }
  }

  async function listen(host: string, port: number): Promise<number> {
    unreadCheck = setInterval(connections.dropUnread, UNREAD_CHECK_MS).unref();
    listeners = await openListeners(server, { host, port }, (error) => log.error("listen_failed", { error }));
    return listeners.port;
  }

  function close(): Promise<void> {
    closing = true;
    const open = listeners;
    if (open === null) return Promise.resolve();
    return new Promise((resolve) => {
      const cut = setTimeout(() => {
        log.warn("connections_cut", { after_ms: timeouts.closeGraceMs });
        isCut = true;
        server.closeAllConnections();
        // A handler that never ends must not hold up the end of the process.
        resolve();
      }, timeouts.closeGraceMs);
      // node:http's own check misses connections that never asked for anything, and those that become idle later.
      const idleCheck = setInterval(connections.closeIdle, IDLE_CHECK_MS);
      const sinceMs = performance.now();
      const checkStalled = (): void => connections.closeStalled(sinceMs, timeouts.closeStallMs);
      const stallCheck = setInterval(checkStalled, timeouts.closeStallMs / STALL_CHECKS);
      checkStalled();
      void open.close().then(() => {
        for (const check of [unreadCheck, idleCheck, stallCheck]) clearInterval(check);
        onQuiet = () => {
          if (answering > 0) return;
          clearTimeout(cut);
          resolve();
        };
        onQuiet();
      });
      connections.closeIdle();
    });
  }

  return { listen, close };
}

function ignore(): void {}

function cutShort(cause: unknown): AppError {
  return new AppError("storage_unavailable", "The service has ended before the request was done: ask again", { cause });
}

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
