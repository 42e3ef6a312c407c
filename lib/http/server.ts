import { createServer, type IncomingMessage, type Server } from "node:http";
import { AppError } from "../errors.ts";
import type { Log } from "../log.ts";
import { createConnections } from "./connections.ts";
import { createCors } from "./cors.ts";
import { createDispatch, type DispatchOptions } from "./dispatch.ts";
import { createExchanges } from "./exchanges.ts";
import { type Listeners, openListeners } from "./listeners.ts";
import type { FinishedRequest } from "./refusals.ts";
import { createResponses } from "./responses.ts";
import { shutDown } from "./shutdown.ts";

/** All headers of a request together; more gets a 431. */
const HEADER_BYTES_MAX = 16 * 1024;
/** Bytes of a JSON body. */
const JSON_BYTES_MAX = 64 * 1024;
/** How often node:http checks for late headers. */
const HEADERS_CHECK_MS_MAX = 5_000;
/** Connections at once; a stranger cannot use up the process's file descriptors. */
const CONNECTIONS_MAX = 8_192;
/** Above that node:http drops newcomers itself. Until then, the connection that was given up for a newcomer may still be closing. */
const CONNECTIONS_CLOSING_MAX = 1_024;
/** How often unread responses are added up: less often, and a flood could bring gigabytes in between. */
const UNREAD_CHECK_MS = 250;

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
  /** A refused body is still read for this long, so that the client sees the response instead of a reset. */
  lingerMs: 2_000,
  /** Requests in flight may take this long to finish when the server is closed. */
  closeGraceMs: 30_000,
  /** While the server closes, a client that keeps us waiting must move at least 2 KiB in each span of this length. */
  closeStallMs: 4_000,
  /** A body that is streamed may stand still for this long. */
  bodyStallMs: 30_000,
};

export interface HttpOptions<Principal, Permission>
  extends Pick<
    DispatchOptions<Principal, Permission>,
    "routes" | "authenticate" | "reauthenticate" | "ownerOf" | "describe" | "bodyBytesPer10sMin" | "now"
  > {
  /** Makes an `AppError` of a failure that is no defect, such as a full disk; everything else passes through. */
  explain?: (error: unknown) => unknown;
  corsOrigins: readonly string[];
  /** Says why there is nothing at a path, if more is known of it; otherwise null. */
  explainMissing?: (path: string) => string | null;
  /** Bytes that a JSON body may have; by default 64 KiB. */
  jsonBytesMax?: number;
  /** Connections at once, of everyone together; fewer in tests. */
  connectionsMax?: number;
  /** Connections at once from one address; null: any number. */
  connectionsPerAddressMax: number | null;
  /** Whether an address is a proxy's, which stands for many clients and says whose request it forwards. */
  isTrustedAddress: (address: string) => boolean;
  log: Log;
  /** Called for every request after its response, for metrics. */
  onFinished?: (request: FinishedRequest) => void;
  timeouts?: Partial<typeof TIMEOUTS>;
}

export interface HttpServer {
  /** Starts to listen and resolves with the port. Rejects if the address cannot be used. */
  listen: (host: string, port: number) => Promise<number>;
  /** Stops accepting, finishes what is in flight, and resolves when all connections are closed and all handlers done. */
  close: () => Promise<void>;
}

/** The HTTP server: matches a route, authenticates, parses, calls the handler, writes the response. */
export function createHttpServer<Principal, Permission>(options: HttpOptions<Principal, Permission>): HttpServer {
  const { explain = (error) => error, corsOrigins, log, now, onFinished = () => {} } = options;
  const timeouts = { ...TIMEOUTS, ...options.timeouts };
  const { lingerMs, bodyMs, bodyStallMs } = timeouts;
  let isClosing = false;
  /** Whether the time to finish what was in flight is over. */
  let isCut = false;
  const connections = createConnections({
    connectionsMax: options.connectionsMax ?? CONNECTIONS_MAX,
    perAddressMax: options.connectionsPerAddressMax,
    isTrusted: options.isTrustedAddress,
    ...{ lingerMs, log, now, onFinished },
  });
  const cors = createCors({ origins: corsOrigins, log });
  const responses = createResponses({ cors, lingerMs, isClosing: () => isClosing });
  const dispatch = createDispatch({
    ...{ ...options, connections, responses, cors, bodyMs, bodyStallMs },
    explainMissing: options.explainMissing ?? (() => null),
    jsonBytesMax: options.jsonBytesMax ?? JSON_BYTES_MAX,
    onAfterFailed: ({ requestId, route }, error) =>
      log.error("after_response_failed", { request_id: requestId, route, error }),
  });
  const exchanges = createExchanges({
    ...{ connections, responses, dispatch, explain, isCut: () => isCut, lingerMs, log, now, onFinished },
    isTrusted: options.isTrustedAddress,
  });
  const server = createNodeServer(timeouts);
  server.on("timeout", connections.onSilence);
  server.on("connection", connections.add);
  server.on("request", (req, res) => exchanges.begin(req, res));
  // A client that asks before it sends a body is served like everyone else: a refused body is then never sent.
  server.on("checkContinue", (req, res) => exchanges.begin(req, res));
  server.on("checkExpectation", (req, res) => exchanges.begin(req, res, unknownExpectation()));
  server.on("clientError", connections.refuse);
  server.on("connect", (_req: IncomingMessage, socket) => {
    // node:http has let go of the socket: without a listener a reset would end the process.
    socket.on("error", () => {});
    connections.refuseConnect(socket);
  });
  let listeners: Listeners | null = null;
  let unreadCheck: NodeJS.Timeout | undefined;

  async function listen(host: string, port: number): Promise<number> {
    unreadCheck = setInterval(connections.dropUnread, UNREAD_CHECK_MS).unref();
    listeners = await openListeners(server, { host, port }, (error) => log.error("listen_failed", { error }));
    return listeners.port;
  }

  async function close(): Promise<void> {
    isClosing = true;
    if (listeners === null) return;
    const onCut = (): void => {
      isCut = true;
    };
    const { closeGraceMs: graceMs, closeStallMs: stallMs } = timeouts;
    await shutDown({ server, listeners, connections, quiet: exchanges.quiet, onCut, graceMs, stallMs, log });
    clearInterval(unreadCheck);
  }

  return { listen, close };
}

function createNodeServer({ headersMs, keepAliveMs, silenceMs }: typeof TIMEOUTS): Server {
  const server = createServer({
    maxHeaderSize: HEADER_BYTES_MAX,
    headersTimeout: headersMs,
    connectionsCheckingInterval: Math.min(HEADERS_CHECK_MS_MAX, headersMs),
    requestTimeout: 0,
    keepAliveTimeout: keepAliveMs,
    // We check it ourselves: node:http's own response would have no envelope.
    requireHostHeader: false,
  });
  server.maxConnections = CONNECTIONS_MAX + CONNECTIONS_CLOSING_MAX;
  // A client that closes its side after the last request still gets its response. The type does not know the property.
  Object.assign(server, { httpAllowHalfOpen: true });
  // node:http applies it from a request's first byte until its response is sent, and then the one for idleness.
  server.timeout = silenceMs;
  return server;
}

function unknownExpectation(): AppError {
  return new AppError("bad_request", 'Cannot meet the header "Expect": only "100-continue" is understood');
}
