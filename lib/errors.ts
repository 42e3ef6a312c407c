/**
 * Everything that can go wrong, as far as a caller is concerned. Some codes make sense only over HTTP (`method_not_allowed`);
 * the statuses that go with them all stand in `lib/http/errors.ts`.
 */
export const ERROR_CODES = [
  "bad_request",
  "client_closed_request",
  "conflict",
  "forbidden",
  "headers_too_large",
  "insufficient_storage",
  "internal_error",
  "invalid_api_key",
  "method_not_allowed",
  "not_found",
  "payload_too_large",
  "precondition_failed",
  "range_not_satisfiable",
  "rate_limited",
  "request_timeout",
  "storage_limit_exceeded",
  "storage_unavailable",
  "unauthorized",
  "unsupported_media_type",
  "validation_error",
  "workspace_limit_exceeded",
  "workspace_slug_taken",
] as const;

export type ErrorCode = (typeof ERROR_CODES)[number];

/** One field of the input and what is wrong with it. */
export interface ErrorDetail {
  field: string;
  message: string;
}

interface AppErrorOptions {
  details?: ErrorDetail[];
  /** Advice on the problem. The command line prints it on a line of its own; HTTP appends it to the message. */
  hint?: string;
  /** When the same request may succeed; becomes `Retry-After`. */
  retryAfterSeconds?: number;
  /** Headers that belong to the HTTP response, such as `Allow`. */
  headers?: Record<string, string>;
  cause?: unknown;
}

/**
 * The one error class. Its message is for the user: what was wrong, what is allowed, what to do next. Anything else that is
 * thrown is a defect or a failure of ours, and its text never leaves the log.
 */
export class AppError extends Error {
  override readonly name = "AppError";
  readonly code: ErrorCode;
  readonly details: ErrorDetail[] | null;
  readonly hint: string | null;
  readonly retryAfterSeconds: number | null;
  readonly headers: Record<string, string>;

  constructor(code: ErrorCode, message: string, options: AppErrorOptions = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.code = code;
    this.details = options.details ?? null;
    this.hint = options.hint ?? null;
    this.retryAfterSeconds = options.retryAfterSeconds ?? null;
    this.headers = options.headers ?? {};
  }
}

/** A `validation_error` about one field; the message names the field, because some clients show nothing else. */
export function invalidField(field: string, message: string): AppError {
  return new AppError("validation_error", `Invalid ${field}: ${message}`, { details: [{ field, message }] });
}

/** The outcome of a write is unknown: a retry shows it. */
export function outcomeUnknown(cause: unknown): AppError {
  return new AppError("storage_unavailable", "Cannot tell whether the change was made: retry", {
    retryAfterSeconds: 1,
    cause,
  });
}

/** The client closed its connection before it got a response. Nothing can be sent to it. */
export function clientGone(cause?: unknown): AppError {
  return new AppError(
    "client_closed_request",
    "The client closed the connection before it got a response",
    cause === undefined ? {} : { cause },
  );
}
