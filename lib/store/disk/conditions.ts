import type { IncomingHttpHeaders } from "node:http";
import { AppError } from "../../errors.ts";
import type { ObjectStat } from "../objects.ts";

/** Conditions that a PUT cannot have here. */
const NOT_FOR_PUT = ["If-Modified-Since", "If-Unmodified-Since", "If-Range"];

/**
 * Reads the conditions of a PUT on the object that it would replace: null if it has none. The returned function throws
 * `precondition_failed`. Throws `bad_request` for conditions that are not for a PUT.
 */
export function putCondition(headers: IncomingHttpHeaders): ((current: ObjectStat | null) => void) | null {
  for (const name of NOT_FOR_PUT) {
    if (headers[name.toLowerCase()] === undefined) continue;
    throw new AppError("bad_request", `Cannot check the condition ${name} for a PUT: send If-Match or If-None-Match`);
  }
  const { "if-match": ifMatch, "if-none-match": ifNoneMatch } = headers;
  if (ifMatch === undefined && ifNoneMatch === undefined) return null;
  return (current) => {
    if (ifMatch !== undefined && !matches(ifMatch, current)) throw failed("If-Match");
    if (ifNoneMatch !== undefined && matches(ifNoneMatch, current)) throw failed("If-None-Match");
  };
}

/**
 * Evaluates the conditions of a GET or HEAD in the order of RFC 9110: true if the client has the object already. Throws
 * `precondition_failed`.
 */
export function isKnownToClient(headers: IncomingHttpHeaders, object: ObjectStat, modifiedAtMs: number): boolean {
  const { "if-match": ifMatch, "if-none-match": ifNoneMatch } = headers;
  const unmodifiedSinceMs = dateOf(headers["if-unmodified-since"]);
  const modifiedSinceMs = dateOf(headers["if-modified-since"]);
  if (ifMatch !== undefined) {
    if (!matches(ifMatch, object)) throw failed("If-Match");
  } else if (unmodifiedSinceMs !== null && wholeSeconds(modifiedAtMs) > unmodifiedSinceMs) {
    throw failed("If-Unmodified-Since");
  }
  if (ifNoneMatch !== undefined) return matchesWeakly(ifNoneMatch, object);
  return modifiedSinceMs !== null && wholeSeconds(modifiedAtMs) <= modifiedSinceMs;
}

/** Whether a range may be sent: a client that has part of another object must get the whole. */
export function rangeApplies(headers: IncomingHttpHeaders, { etag }: ObjectStat, modifiedAtMs: number): boolean {
  const ifRange = headers["if-range"];
  if (ifRange === undefined || ifRange === etag) return true;
  return typeof ifRange === "string" && dateOf(ifRange) === wholeSeconds(modifiedAtMs);
}

/** A tag that is marked as weak never matches: what is compared is bytes. */
function matches(header: string, object: ObjectStat | null): boolean {
  return object !== null && tagsOf(header).some((tag) => tag === "*" || tag === object.etag);
}

function matchesWeakly(header: string, { etag }: ObjectStat): boolean {
  return tagsOf(header).some((tag) => tag === "*" || tag.replace(/^W\//, "") === etag);
}

function tagsOf(header: string): string[] {
  return header.split(",").map((tag) => tag.trim());
}

/** Null if there is none, or it is no date: HTTP wants those ignored. */
function dateOf(header: string | undefined): number | null {
  const ms = header === undefined || !header.includes(":") ? Number.NaN : Date.parse(header);
  return Number.isNaN(ms) ? null : ms;
}

/** Dates in HTTP have whole seconds. */
function wholeSeconds(ms: number): number {
  return Math.floor(ms / 1_000) * 1_000;
}

function failed(header: string): AppError {
  return new AppError("precondition_failed", `The condition ${header} does not hold: nothing was done`);
}
