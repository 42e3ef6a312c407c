import { AppError, type ErrorCode } from "../errors.ts";
import { timestamp } from "../timestamp.ts";

export interface JsonResponse {
  status: number;
  headers: Record<string, string>;
  body: unknown;
}

/** The HTTP status of each error code. A code without a status does not compile. */
export const ERROR_STATUS = {
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
  precondition_failed: 412,
  payload_too_large: 413,
  unsupported_media_type: 415,
  range_not_satisfiable: 416,
  validation_error: 422,
  rate_limited: 429,
  headers_too_large: 431,
  // Never sent: only the log has it, for a client that went away. People know it from the logs of proxies.
  client_closed_request: 499,
  internal_error: 500,
  storage_unavailable: 503,
  insufficient_storage: 507,
} satisfies Record<ErrorCode, number>;

/** Sent with every 503 that says nothing else. */
const RETRY_AFTER_SECONDS = 1;

/** Turns anything that was thrown into a response. If it is no `AppError` it is a failure of ours, and its text stays in the log. */
export function errorResponse(thrown: unknown, requestId: string, nowMs: number): JsonResponse {
  const error =
    thrown instanceof AppError
      ? thrown
      : new AppError("internal_error", `Something failed on our side; the log has it under request id ${requestId}`);
  const status = ERROR_STATUS[error.code];
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
