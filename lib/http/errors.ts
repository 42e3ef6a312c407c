import { AppError, type ErrorCode } from "../errors.ts";
import { timestamp } from "../timestamp.ts";

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
  workspace_limit_exceeded: 402,
  forbidden: 403,
  not_found: 404,
  method_not_allowed: 405,
  request_timeout: 408,
  conflict: 409,
  workspace_slug_taken: 409,
  payload_too_large: 413,
  unsupported_media_type: 415,
  range_not_satisfiable: 416,
  validation_error: 422,
  rate_limited: 429,
  headers_too_large: 431,
  // Never sent: it is what people know from proxies' logs for a client that went away.
  client_closed_request: 499,
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
      meta: { request_id: requestId, timestamp: timestamp(nowMs) },
    },
  };
}
