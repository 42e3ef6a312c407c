/** What can go wrong, as far as a caller is concerned. Knows nothing of HTTP: `http.ts` gives each code its status. */
export type ErrorCode =
  | "bad_request"
  | "client_closed_request"
  | "conflict"
  | "forbidden"
  | "headers_too_large"
  | "insufficient_storage"
  | "internal_error"
  | "invalid_api_key"
  | "method_not_allowed"
  | "not_found"
  | "payload_too_large"
  | "range_not_satisfiable"
  | "rate_limited"
  | "request_timeout"
  | "storage_limit_exceeded"
  | "storage_unavailable"
  | "unauthorized"
  | "unsupported_media_type"
  | "validation_error"
  | "workspace_limit_exceeded"
  | "workspace_slug_taken";

/** One field of the input and what is wrong with it. */
export interface ErrorDetail {
  field: string;
  message: string;
}

interface AppErrorOptions {
  details?: ErrorDetail[];
  /** What to do about it, apart from the message: the command line shows it on a line of its own. */
  hint?: string;
  /** When the same request may succeed; becomes `Retry-After`. */
  retryAfterSeconds?: number;
  /** Headers that belong to the answer, such as `Allow`. */
  headers?: Record<string, string>;
  cause?: unknown;
}

/**
 * The one error class. Its message is for the user: what was wrong, what is allowed, what to do next. Anything that is
 * thrown and is not an `AppError` is a defect or a failure of ours, and its text never leaves the log.
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

/** The outcome of a write is unknown: asking again shows it. */
export function outcomeUnknown(cause: unknown): AppError {
  return new AppError("storage_unavailable", "Cannot tell whether the change was made: ask again", {
    retryAfterSeconds: 1,
    cause,
  });
}

/** A client that closed its connection before it was answered. Nothing can be sent to it. */
export function clientGone(cause?: unknown): AppError {
  return new AppError(
    "client_closed_request",
    "The client closed the connection before it was answered",
    cause === undefined ? {} : { cause },
  );
}
