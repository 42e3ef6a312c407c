import type { IncomingMessage } from "node:http";

/** Headers that a page may send us beyond the plain ones. */
const ALLOWED_REQUEST_HEADERS =
  "Authorization, Content-Type, X-Workspace-Id, Idempotency-Key, X-Amz-Checksum-Sha256, Range, If-Range, If-None-Match";
/** Headers of ours that a page may read. */
const EXPOSED_HEADERS = "X-Request-Id, Retry-After, ETag, Content-Range, Content-Disposition, Location";
/** How long a browser may remember the response to a preflight. */
const PREFLIGHT_AGE_SECONDS = 600;

/** The headers that let a page of an allowed origin read the response; none for other pages, curl and servers. */
export function corsHeaders(req: IncomingMessage, origins: readonly string[]): Record<string, string> {
  if (origins.length === 0) return {};
  const { origin } = req.headers;
  // The response differs by origin even if this one is not allowed: a cache must know.
  if (origin === undefined || !isAllowed(origin, origins)) return { Vary: "Origin" };
  return {
    Vary: "Origin",
    "Access-Control-Allow-Origin": origin,
    "Access-Control-Expose-Headers": EXPOSED_HEADERS,
  };
}

/** Whether this is a preflight: a browser that asks if it may send the actual request. */
export function isPreflight(req: IncomingMessage): boolean {
  return req.headers.origin !== undefined && req.headers["access-control-request-method"] !== undefined;
}

/** The headers that respond to a preflight: none if the origin is not allowed, which is how a browser is told no. */
export function preflightHeaders(
  req: IncomingMessage,
  origins: readonly string[],
  allow: string,
): Record<string, string> {
  const headers = corsHeaders(req, origins);
  if (headers["Access-Control-Allow-Origin"] === undefined) return headers;
  return {
    ...headers,
    "Access-Control-Allow-Methods": allow,
    "Access-Control-Allow-Headers": ALLOWED_REQUEST_HEADERS,
    "Access-Control-Max-Age": String(PREFLIGHT_AGE_SECONDS),
  };
}

function isAllowed(origin: string, origins: readonly string[]): boolean {
  return origins.includes("*") || origins.includes(origin);
}
