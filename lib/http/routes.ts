import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import type * as z from "zod";
import type { Permission } from "../core/permissions.ts";
import type { Principal } from "../core/principals.ts";
import { AppError, type ErrorDetail } from "../errors.ts";

export type Method = "GET" | "POST" | "PUT" | "PATCH" | "DELETE";

/** Who may call: everyone, everyone with a valid credential, or those with a permission. */
export type Access = "public" | "any" | Permission;

export interface Pagination {
  next: string | null;
  prev: string | null;
  limit: number;
  /** Left out where pages follow a cursor. */
  total?: number;
}

/** What a handler answers; `http.ts` puts it into the envelope. */
export interface Reply {
  status?: number;
  data?: unknown;
  pagination?: Pagination;
  headers?: Record<string, string>;
  /** A body without envelope, for health probes. */
  bare?: unknown;
  /** Called once the answer has been handed to the socket. */
  after?: () => void;
}

export interface RequestOf<Params, Query, Body> {
  params: Params;
  query: Query;
  body: Body;
  principal: Principal;
  headers: IncomingHttpHeaders;
  nowMs: number;
}

interface RouteSpec<Params, Query, Body> {
  method: Method;
  /** Segments that begin with a colon are parameters. */
  path: string;
  summary: string;
  access: Exclude<Access, "public">;
  params?: z.ZodType<Params>;
  query?: z.ZodType<Query>;
  body?: z.ZodType<Body>;
  handle: (request: RequestOf<Params, Query, Body>) => Promise<Reply> | Reply;
}

interface Invocation {
  params: Record<string, string>;
  search: string;
  body: unknown;
  principal: Principal | null;
  headers: IncomingHttpHeaders;
  nowMs: number;
}

export interface JsonRoute {
  kind: "json";
  method: Method;
  path: string;
  summary: string;
  access: Access;
  takesBody: boolean;
  invoke: (invocation: Invocation) => Promise<Reply> | Reply;
}

/** What a raw route is asked for. */
export interface RawTarget {
  /** As it came: nothing in it is decoded. */
  path: string;
  /** Without the question mark. */
  search: string;
  /** The request's body. Iterating throws an `AppError` if it cannot be whole, and never ends the connection. */
  body: AsyncIterable<Buffer>;
}

/** A route that reads and writes the exchange itself: objects are streamed, not parsed. Its URL is its credential. */
export interface RawRoute {
  kind: "raw";
  method: Method;
  path: string;
  summary: string;
  access: "public";
  handle: (req: IncomingMessage, res: ServerResponse, target: RawTarget) => Promise<void>;
}

export type Route = JsonRoute | RawRoute;

/** Makes a route for callers with a credential. What its schemas accept is what the handler gets. */
export function route<Params = unknown, Query = unknown, Body = unknown>(
  spec: RouteSpec<Params, Query, Body>,
): JsonRoute {
  const { method, path, summary, access, handle } = spec;
  return {
    kind: "json",
    method,
    path,
    summary,
    access,
    takesBody: spec.body !== undefined,
    invoke: ({ params, search, body, principal, headers, nowMs }) => {
      if (principal === null) throw new TypeError("A route with access control was called without a principal");
      return handle({
        params: parseWith(spec.params, params),
        query: parseWith(spec.query, search === "" ? {} : queryOf(search)),
        body: parseWith(spec.body, body),
        principal,
        headers,
        nowMs,
      });
    },
  };
}

/** Makes a route that asks for no credential. */
export function publicRoute(
  spec: Pick<JsonRoute, "method" | "path" | "summary"> & {
    handle: (request: Pick<Invocation, "nowMs">) => Promise<Reply> | Reply;
  },
): JsonRoute {
  const { handle, ...rest } = spec;
  return { kind: "json", access: "public", takesBody: false, invoke: handle, ...rest };
}

function parseWith<T>(schema: z.ZodType<T> | undefined, input: unknown): T {
  // Without a schema T is unknown, which every value is.
  if (schema === undefined) return undefined as T;
  const parsed = schema.safeParse(input);
  if (parsed.success) return parsed.data;
  throw validationError(parsed.error);
}

/** Fields that a refusal names. A small body can have thousands of wrong ones, and a response a hundred times its size. */
const ISSUES_TOLD_MAX = 20;

/** Says which fields are wrong, in the message too: some clients show nothing else. */
export function validationError(error: z.ZodError): AppError {
  const details: ErrorDetail[] = error.issues.slice(0, ISSUES_TOLD_MAX).map((issue) => ({
    field: issue.path.join(".") || "body",
    message: issue.message,
  }));
  const message = details.map(({ field, message }) => `${field}: ${message}`).join("; ");
  const untold = error.issues.length - details.length;
  return new AppError("validation_error", `Invalid ${message}${untold === 0 ? "" : `; and ${untold} more`}`, {
    details,
  });
}

/** A parameter that is given once is a string, one that is repeated a list. */
function queryOf(search: string): Record<string, string | string[]> {
  const query: Record<string, string | string[]> = Object.create(null);
  for (const [name, value] of new URLSearchParams(search)) {
    const before = query[name];
    if (before === undefined) query[name] = value;
    else if (typeof before === "string") query[name] = [before, value];
    else before.push(value);
  }
  return query;
}

interface Node {
  path: string;
  segments: string[];
  byMethod: Map<string, Route>;
  allow: string;
}

export type RouteTable = Map<number, Node[]>;

/** The prefix of raw paths of any depth. */
const REST = "*";

export type Match =
  | { kind: "none" }
  | { kind: "other_method"; path: string; allow: string }
  | { kind: "route"; path: string; allow: string; route: Route; params: Record<string, string> };

/** Orders routes by their number of segments: few are left to compare. Paths of any depth are under -1. */
export function routeTable(routes: readonly Route[]): RouteTable {
  const table: RouteTable = new Map();
  for (const route of routes) {
    const segments = route.path.split("/");
    const size = segments.at(-1) === REST ? -1 : segments.length;
    const nodes = table.get(size) ?? [];
    table.set(size, nodes);
    let node = nodes.find((other) => other.path === route.path);
    if (node === undefined) {
      node = { path: route.path, segments, byMethod: new Map(), allow: "" };
      nodes.push(node);
    }
    node.byMethod.set(route.method, route);
    // A HEAD is answered as its GET without the body.
    if (route.method === "GET") node.byMethod.set("HEAD", route);
    node.allow = [...node.byMethod.keys(), "OPTIONS"].join(", ");
  }
  return table;
}

/** Finds the route of a path. Parameters are decoded; one that cannot be stays as it came, and its schema refuses it. */
export function matchRoute(table: RouteTable, method: string, path: string): Match {
  const segments = path.split("/");
  const node =
    table.get(segments.length)?.find((candidate) => fits(candidate.segments, segments)) ??
    table.get(-1)?.find((candidate) => fits(candidate.segments.slice(0, -1), segments));
  if (node === undefined) return { kind: "none" };
  const route = node.byMethod.get(method);
  if (route === undefined) return { kind: "other_method", path: node.path, allow: node.allow };
  return { kind: "route", path: node.path, allow: node.allow, route, params: paramsOf(node.segments, segments) };
}

function fits(pattern: readonly string[], segments: readonly string[]): boolean {
  for (let i = 0; i < pattern.length; i++) {
    if (pattern[i] !== segments[i] && pattern[i]?.startsWith(":") !== true) return false;
  }
  return true;
}

function paramsOf(pattern: readonly string[], segments: readonly string[]): Record<string, string> {
  const params: Record<string, string> = {};
  for (const [i, name] of pattern.entries()) {
    if (!name.startsWith(":")) continue;
    params[name.slice(1)] = decoded(segments[i] ?? "");
  }
  return params;
}

function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}
