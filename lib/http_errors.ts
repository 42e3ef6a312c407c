import type { ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { AppError, type ErrorCode } from "./errors.ts";
import { newRequestId } from "./ids.ts";

export interface JsonAnswer {
  status: number;
  headers: Record<string, string>;
  body: unknown;
}

/** The one place where an error's code meets HTTP. A code without a status does not compile. */
const STATUS = {
  bad_request: 400,
  invalid_api_key: 401,
  unauthorized: 401,
  storage_limit_exceeded: 402,
  forbidden: 403,
  not_found: 404,
  method_not_allowed: 405,
  request_timeout: 408,
  conflict: 409,
  payload_too_large: 413,
  unsupported_media_type: 415,
  range_not_satisfiable: 416,
  validation_error: 422,
  rate_limited: 429,
  headers_too_large: 431,
  internal_error: 500,
  storage_unavailable: 503,
  insufficient_storage: 507,
} satisfies Record<ErrorCode, number>;

/** A client that gets no better advice asks again after this long. */
const RETRY_AFTER_SECONDS = 1;

/** Turns whatever was thrown into an answer. What is not an `AppError` is a failure of ours: its text stays in the log. */
export function errorAnswer(thrown: unknown, requestId: string, nowMs: number): JsonAnswer {
  const error =
    thrown instanceof AppError
      ? thrown
      : new AppError("internal_error", `Something failed on our side; the log has it under request id ${requestId}`);
  const status = STATUS[error.code];
  const headers: Record<string, string> = { ...error.headers };
  if (status === 401) headers["WWW-Authenticate"] = "Bearer";
  if (status === 503 || error.retryAfterSeconds !== null) {
    headers["Retry-After"] = String(error.retryAfterSeconds ?? RETRY_AFTER_SECONDS);
  }
  return {
    status,
    headers,
    body: {
      error: {
        code: error.code.toUpperCase(),
        message: error.hint === null ? error.message : `${error.message}: ${error.hint}`,
        details: error.details,
      },
      meta: { request_id: requestId, timestamp: new Date(nowMs).toISOString() },
    },
  };
}

/** Answers what `node:http` refuses before there is a request, and closes the connection. */
export function answerClientError(error: Error & { code?: string }, socket: Duplex, nowMs: number): void {
  if (!socket.writable || error.code === "ECONNRESET") {
    socket.destroy();
    return;
  }
  const answer = errorAnswer(clientError(error.code), newRequestId(nowMs), nowMs);
  const text = JSON.stringify(answer.body);
  const reason = { 400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large" }[answer.status];
  const send = (): void => {
    socket.end(
      `HTTP/1.1 ${answer.status} ${reason ?? "Error"}\r\nContent-Type: application/json; charset=utf-8\r\n` +
        `Content-Length: ${Buffer.byteLength(text)}\r\nConnection: close\r\n\r\n${text}`,
    );
  };
  // Earlier requests of this connection may still be unanswered: answers keep the order of their requests.
  const last = lastAnswers.get(socket);
  if (last === undefined || last.writableFinished || last.destroyed) send();
  else last.once("close", () => (socket.writable ? send() : undefined));
}

/** The answer to the newest request of each connection. Answers leave in order, so when it is complete, all are. */
export const lastAnswers = new WeakMap<Duplex, ServerResponse>();

function clientError(code: string | undefined): AppError {
  switch (code) {
    case "HPE_HEADER_OVERFLOW":
      return new AppError("headers_too_large", "The request's headers are too large: 16 KiB are allowed");
    case "ERR_HTTP_REQUEST_TIMEOUT":
      return new AppError("request_timeout", "The request did not arrive in time");
    default:
      return new AppError("bad_request", "The request is not valid HTTP/1.1");
  }
}
