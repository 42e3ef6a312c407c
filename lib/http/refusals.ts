import { STATUS_CODES } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { AppError } from "../errors.ts";
import { newRequestId } from "../ids.ts";
import type { Log } from "../log.ts";
import { errorResponse } from "./errors.ts";

/** The facts about a request that the metrics count once its response is written. */
export interface FinishedRequest {
  method: string;
  /** The pattern of its route, never the requested path. */
  route: string;
  status: number;
  /** Null if it was refused before there was a request. */
  durationMs: number | null;
}

export interface RefusalsOptions {
  /** How long a refused connection is still read, so that the client gets to see the response instead of a reset. */
  lingerMs: number;
  log: Log;
  now: () => number;
  onFinished: (request: FinishedRequest) => void;
}

/** Responses to bytes that never became a request: written to the socket by hand, in the same envelope as all others. */
export function createRefusals({ lingerMs, log, now, onFinished }: RefusalsOptions) {
  /** Says what was wrong with the bytes that came in, and closes the connection. */
  function send(error: Error & { code?: string }, socket: Duplex, address: string): void {
    const { text, status, requestId } = responseTo(refusalOf(error.code));
    socket.end(text);
    setTimeout(() => socket.destroy(), lingerMs).unref();
    onFinished({ method: "other", route: "(refused)", status, durationMs: null });
    log.info("request_refused", { status, reason: error.code, request_id: requestId, address });
  }

  /** Turns a connection away. It does not linger for the client's sake: a flood of them must cost nothing. */
  function refuseTooMany(socket: Socket): void {
    socket.on("error", () => {});
    const { text, status } = responseTo(
      new AppError("rate_limited", "Too many connections from your address: close some, then try again", {
        retryAfterSeconds: 1,
      }),
    );
    socket.write(text);
    socket.destroySoon();
    onFinished({ method: "other", route: "(refused)", status, durationMs: null });
  }

  function responseTo(refusal: AppError): { text: string; status: number; requestId: string } {
    const nowMs = now();
    const requestId = newRequestId(nowMs);
    const { status, headers, body } = errorResponse(refusal, requestId, nowMs);
    const json = `${JSON.stringify(body)}\n`;
    const lines = Object.entries({
      "Content-Type": "application/json; charset=utf-8",
      "Content-Length": String(Buffer.byteLength(json)),
      "X-Request-Id": requestId,
      Connection: "close",
      ...headers,
    }).map(([name, value]) => `${name}: ${value}\r\n`);
    return { text: `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join("")}\r\n${json}`, status, requestId };
  }

  return { send, refuseTooMany };
}

function refusalOf(code: string | undefined): AppError {
  switch (code) {
    case "HPE_HEADER_OVERFLOW":
      return new AppError("headers_too_large", "The request's headers are too large: 16 KiB are allowed");
    case "ERR_HTTP_REQUEST_TIMEOUT":
      return new AppError("request_timeout", "The request did not arrive in time");
    default:
      return new AppError("bad_request", "The request is not valid HTTP/1.1");
  }
}
