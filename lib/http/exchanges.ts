import type { IncomingMessage, ServerResponse } from "node:http";
import { AppError, clientGone } from "../errors.ts";
import { newRequestId } from "../ids.ts";
import type { Log } from "../log.ts";
import { clientAddress } from "./client_address.ts";
import type { Connection, Connections } from "./connections.ts";
import type { Exchange } from "./dispatch.ts";
import { errorResponse } from "./errors.ts";
import { closeUnlessWhole } from "./linger.ts";
import type { FinishedRequest } from "./refusals.ts";
import type { Responses } from "./responses.ts";

/** The client kept us waiting until its connection was cut. */
const CUT_STATUS = 408;
/** The client went away: nothing can be sent. */
const CLIENT_GONE_STATUS = 499;

export interface ExchangesOptions {
  connections: Connections;
  responses: Responses;
  dispatch: (req: IncomingMessage, res: ServerResponse, exchange: Exchange) => Promise<void> | void;
  /** Makes an `AppError` of a failure that is no defect, such as a full disk; everything else passes through. */
  explain: (error: unknown) => unknown;
  /** Whether the time that a closing server gives its requests is over. */
  isCut: () => boolean;
  /** Whether an address is a proxy's that is believed whose request it forwards. */
  isTrusted: (address: string) => boolean;
  lingerMs: number;
  log: Log;
  now: () => number;
  onFinished: (request: FinishedRequest) => void;
}

/** Takes each request from its first byte to its line in the log, also if it fails. */
export function createExchanges(options: ExchangesOptions) {
  const { connections, responses, dispatch, explain, isCut, isTrusted, lingerMs, log, now, onFinished } = options;
  /** Requests whose handlers are at work, even if their connection is gone: a PUT that was cut still tidies up. */
  let working = 0;
  let onQuiet = (): void => {};

  /** Serves a request. With a `refusal` the request only gets that. */
  function begin(req: IncomingMessage, res: ServerResponse<IncomingMessage>, refusal?: AppError): void {
    connections.admit(res, (connection) => {
      const startedAtMs = now();
      const requestId = newRequestId(startedAtMs);
      const exchange: Exchange = {
        ...{ connection, requestId, startedAtMs, route: "(unmatched)", isOpen: false },
        logFields: { address: clientAddress(connection.address, req.headers, isTrusted) },
      };
      // Whatever fails here ends this connection alone, even if reporting the failure is what failed.
      working++;
      serve(req, res, exchange, refusal).then(onEnded, (error: unknown) => {
        connection.socket.destroy();
        log.error("response_failed", { request_id: requestId, route: exchange.route, error });
        onEnded();
      });
    });
  }

  function onEnded(): void {
    working--;
    if (working === 0) onQuiet();
  }

  /** Resolves once no handler is at work. */
  function quiet(): Promise<void> {
    if (working === 0) return Promise.resolve();
    return new Promise((resolve) => {
      onQuiet = resolve;
    });
  }

  /** Serves one request, also if it fails. Rejects only if the reporting itself fails. */
  async function serve(
    req: IncomingMessage,
    res: ServerResponse,
    exchange: Exchange,
    refusal: AppError | undefined,
  ): Promise<void> {
    const { connection } = exchange;
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
      status = fail(req, res, exchange, error);
    }
    // A response that could not leave is not one that the client got.
    if (connection.socket.destroyed && !res.writableFinished && status !== 500) status = statusOfLost(connection);
    closeUnlessWhole(req, connection, lingerMs);
    const durationMs = performance.now() - startedMonotonicMs;
    onFinished({ method: req.method ?? "GET", route: exchange.route, status, durationMs });
    log.info("request", {
      method: req.method,
      route: exchange.route,
      status,
      duration_ms: now() - exchange.startedAtMs,
      request_id: exchange.requestId,
      ...exchange.logFields,
    });
  }

  /** Responds to a request that failed, if a response can still be sent. Returns the status. */
  function fail(req: IncomingMessage, res: ServerResponse, exchange: Exchange, error: unknown): number {
    const { connection, requestId, route } = exchange;
    // After the cut the database may be closed under a handler: nobody waits for its response any more.
    const response = errorResponse(isCut() ? cutShort(error) : explain(error), requestId, now());
    const { status } = response;
    if (status === 500) log.error("request_failed", { request_id: requestId, route, error });
    else if (status === 503) log.warn("request_unavailable", { request_id: requestId, route, error });
    if (res.headersSent || status === CLIENT_GONE_STATUS || connection.socket.destroyed) connection.socket.destroy();
    else responses.json(req, res, exchange, response);
    return status;
  }

  return { begin, quiet };
}

function statusOfLost({ cut }: Connection): number {
  return cut === null ? CLIENT_GONE_STATUS : CUT_STATUS;
}

function cutShort(cause: unknown): AppError {
  return new AppError("storage_unavailable", "The service stopped before the request was done: send it again", {
    cause,
  });
}

function ignore(): void {}
