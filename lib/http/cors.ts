import type { IncomingMessage } from "node:http";
import type { Log } from "../log.ts";

/** Headers of ours that a page may read beyond the plain ones. */
const EXPOSED_HEADERS =
  "X-Request-Id, Retry-After, ETag, Accept-Ranges, Content-Range, Content-Disposition, Location, Allow";
/** How long a browser may remember the response to a preflight. */
const PREFLIGHT_AGE_SECONDS = 600;
/** Refused origins that are remembered, so that each is logged once. */
const REFUSED_MAX = 100;

export type Cors = ReturnType<typeof createCors>;

/**
 * Lets pages of other origins read responses. `origins` are compared as text, so those of apps and extensions count as well;
 * `*` stands for all. `isOpen`: the path is for every origin, whatever the setting.
 */
export function createCors({ origins, log }: { origins: readonly string[]; log: Log }) {
  const refused = new Set<string>();

  /** The headers that let a page read the response; none for other pages, curl and servers. */
  function headersFor(req: IncomingMessage, isOpen: boolean): Record<string, string> {
    if (isOpen) return { "Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": EXPOSED_HEADERS };
    const { origin } = req.headers;
    if (origin !== undefined && !isAllowed(origin)) noteRefused(req, origin);
    if (origins.length === 0) return {};
    // The response differs by origin even if this one is not allowed: a cache must know.
    if (origin === undefined || !isAllowed(origin)) return { Vary: "Origin" };
    return {
      Vary: "Origin",
      "Access-Control-Allow-Origin": origin,
      "Access-Control-Expose-Headers": EXPOSED_HEADERS,
    };
  }

  /**
   * The headers that respond to a preflight: none if the origin is not allowed, which is how a browser is told no. Otherwise
   * the page may send whatever it asks to send: a method or header that is wrong gets a response that the page can read.
   */
  function preflightHeadersFor(req: IncomingMessage, isOpen: boolean, allow: string): Record<string, string> {
    const headers = headersFor(req, isOpen);
    if (headers["Access-Control-Allow-Origin"] === undefined) return headers;
    const method = req.headers["access-control-request-method"] ?? "";
    const requested = req.headers["access-control-request-headers"];
    return {
      ...headers,
      "Access-Control-Allow-Methods": allow.split(", ").includes(method) ? allow : `${allow}, ${method}`,
      ...(requested === undefined ? {} : { "Access-Control-Allow-Headers": requested }),
      "Access-Control-Max-Age": String(PREFLIGHT_AGE_SECONDS),
    };
  }

  function isAllowed(origin: string): boolean {
    return origins.includes("*") || origins.includes(origin);
  }

  /** Whether this is the preflight of a page that may call any path, even one that does not exist. */
  function isAllowedPreflight(req: IncomingMessage): boolean {
    return isPreflight(req) && isAllowed(req.headers.origin ?? "");
  }

  function noteRefused({ headers }: IncomingMessage, origin: string): void {
    if (refused.has(origin) || refused.size >= REFUSED_MAX || isOwn(origin, headers.host)) return;
    refused.add(origin);
    log.warn("origin_refused", { origin, hint: "STOWAGE_CORS_ORIGINS lists the origins whose pages may call the API" });
  }

  return { headersFor, preflightHeadersFor, isAllowedPreflight };
}

/** Whether this is a preflight: a browser that asks if it may send the actual request. */
export function isPreflight(req: IncomingMessage): boolean {
  return req.headers.origin !== undefined && req.headers["access-control-request-method"] !== undefined;
}

/** Browsers send the origin of our own pages along with their writes. */
function isOwn(origin: string, host: string | undefined): boolean {
  return host !== undefined && (origin === `http://${host}` || origin === `https://${host}`);
}
