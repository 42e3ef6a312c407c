import assert from "node:assert/strict";
import * as z from "zod";
import { describeRoutes } from "../../lib/api/table.ts";
import { bodySchemaOf, ErrorEnvelope, wireCode } from "../../lib/api/wire/envelope.ts";
import type { Config } from "../../lib/config/config.ts";
import { ERROR_CODES, type ErrorCode } from "../../lib/errors.ts";
import { ERROR_STATUS } from "../../lib/http/errors.ts";
import type { Row } from "../../lib/http/route.ts";
import { matchRoute, routeTable } from "../../lib/http/router.ts";

/** A response to be held against the route table. */
export interface CheckedResponse {
  method: string;
  /** As it was sent. */
  target: string;
  status: number;
  contentType: string;
  /** The whole body. */
  text: string;
}

/** What the server can say before it has a route. */
const UNROUTED_ERRORS: readonly ErrorCode[] = ["bad_request", "headers_too_large", "rate_limited", "request_timeout"];

/**
 * Checks every response against what the route table says of it: a success against its schema, without a field more or
 * less, a failure against the envelope and the codes of its route. Throws an `AssertionError`.
 */
export function createResponseCheck(config: Pick<Config, "store" | "metricsPort">) {
  const rows: Row<unknown>[] = describeRoutes({ ...config, maxUploadBytes: 1 });
  const table = routeTable(rows);
  const schemas = new Map(
    rows.flatMap((row) => (row.kind === "json" ? [[row.operationId, bodySchemaOf(row)] as const] : [])),
  );

  return function checkResponse({ method, target, status, contentType, text }: CheckedResponse): void {
    const [path = ""] = target.replace(/^https?:\/\/[^/?#]*/, "").split("?");
    const match = matchRoute(table, method, path);
    const subject = `${method} ${match.kind === "none" ? path : match.path} ${status}`;
    if (method === "OPTIONS" && status === 204) return;
    if (method === "HEAD") return checkStatus(subject, match.kind === "route" ? match.route : null, status);
    if (status >= 400) {
      const code = checkFailure(subject, status, text);
      const codes = match.kind === "route" ? match.route.errors : [...UNROUTED_ERRORS, ...unmatched(match.kind)];
      assert.ok(codes.includes(code), `${subject}: the table does not list ${code}: ${text}`);
      return;
    }
    assert.ok(match.kind === "route", `${subject}: a success without a route`);
    checkStatus(subject, match.route, status);
    const schema = schemas.get(match.route.operationId);
    if (schema === undefined) return;
    assert.equal(contentType, "application/json; charset=utf-8", subject);
    parse(subject, schema, text);
  };
}

/** Checks a failure without its route: the envelope, and that status and code belong together. Returns the code. */
export function checkFailure(subject: string, status: number, text: string): ErrorCode {
  const { error } = parse(subject, ErrorEnvelope, text);
  const code = ERROR_CODES.find((known) => wireCode(known) === error.code);
  assert.ok(code !== undefined, `${subject}: there is no code ${error.code}`);
  assert.equal(status, ERROR_STATUS[code], `${subject}: the status of ${error.code}`);
  return code;
}

function unmatched(kind: "none" | "other_method"): readonly ErrorCode[] {
  return kind === "none" ? ["not_found"] : ["method_not_allowed"];
}

/** Of a response without a body only the status can be checked. */
function checkStatus(subject: string, row: Row<unknown> | null, status: number): void {
  if (row === null) return;
  const successes = row.kind === "json" ? [row.status] : row.responses.map((response) => response.status);
  const statuses = [...successes, ...row.errors.map((code) => ERROR_STATUS[code])];
  assert.ok(statuses.includes(status), `${subject}: the table lists ${statuses.join(", ")}`);
}

function parse<T>(subject: string, schema: z.ZodType<T>, text: string): T {
  const parsed = schema.safeParse(JSON.parse(text));
  if (parsed.success) return parsed.data;
  assert.fail(`${subject}: ${z.prettifyError(parsed.error)}\n${text.slice(0, 2_000)}`);
}
