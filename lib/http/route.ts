import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import type * as z from "zod";
import { AppError, type ErrorCode, type ErrorDetail, invalidField } from "../errors.ts";

export type Method = "GET" | "POST" | "PUT" | "PATCH" | "DELETE";

/** The callers that are let in: everyone, or callers with a credential that carries this permission. */
export type Access<Permission> = "public" | Permission;

/** The fields of every row of the route table, whether the server parses its requests or not. */
interface CommonRow<Permission> {
  method: Method;
  /** Segments that begin with a colon are parameters. */
  path: string;
  /** A name for programs, unique in the table. */
  operationId: string;
  /** One line for people. */
  summary: string;
  access: Access<Permission>;
  /** Every error code that a request to this route can get once the route is known. */
  errors: readonly ErrorCode[];
}

/** A row whose requests and responses are JSON. Enough to print its documentation and to check its responses. */
export interface JsonRow<Permission> extends CommonRow<Permission> {
  kind: "json";
  params: z.ZodType | undefined;
  query: z.ZodType | undefined;
  body: z.ZodType | undefined;
  /** The `data` of a success; the whole body if the row is bare. It documents and serves tests: it never runs in production. */
  response: z.ZodType;
  /** The `pagination` of a success; undefined if the response is no list. */
  pagination: z.ZodType | undefined;
  /** The status of a success. */
  status: number;
  /** Responds without an envelope, as health probes expect. */
  isBare: boolean;
}

/** One way in which a raw route succeeds. */
export interface RawResponse {
  status: number;
  /** Null if there is no body. */
  contentType: string | null;
  description: string;
}

/** A row whose handler reads and writes the exchange itself: its bodies are streamed, or are not JSON. */
export interface RawRow extends CommonRow<never> {
  kind: "raw";
  access: "public";
  /** Says what protects it instead of a credential, or why nothing needs to. */
  description: string;
  /** Whether pages of every origin may call it and read the response. */
  isOpenToAnyOrigin: boolean;
  /** Empty if every request is refused. */
  responses: readonly RawResponse[];
}

export type Row<Permission> = JsonRow<Permission> | RawRow;

/** A handler's response; the server puts it into the envelope. */
export interface Reply<Data, Page> {
  data: Data;
  pagination?: Page;
  /** Called once the response has been handed to the socket. */
  after?: () => void;
}

/** A request as a handler gets it: parsed by the row's schemas. */
export interface RequestOf<Principal, Params, Query, Body> {
  params: Params;
  query: Query;
  body: Body;
  principal: Principal;
  headers: IncomingHttpHeaders;
  nowMs: number;
}

/** A request as the server has it: matched to a route, not yet parsed. */
export interface Invocation<Principal> {
  params: Record<string, string>;
  /** Without the question mark. */
  search: string;
  /** The parsed JSON; undefined if the row takes no body. */
  body: unknown;
  principal: Principal | null;
  headers: IncomingHttpHeaders;
  nowMs: number;
}

export interface JsonRoute<Principal, Permission> extends JsonRow<Permission> {
  /** Throws an `AppError` if the request is refused, or fails. */
  invoke: (invocation: Invocation<Principal>) => Promise<Reply<unknown, unknown>> | Reply<unknown, unknown>;
}

/** The target and body of a raw request. */
export interface RawTarget {
  /** As it came: nothing in it is decoded. */
  path: string;
  /** Without the question mark. */
  search: string;
  /** The request's body. Iterating throws an `AppError` if it cannot be whole, and never ends the connection. */
  body: AsyncIterable<Buffer>;
}

export interface RawRoute extends RawRow {
  handle: (req: IncomingMessage, res: ServerResponse, target: RawTarget) => Promise<void>;
}

export type Route<Principal, Permission> = JsonRoute<Principal, Permission> | RawRoute;

/** The specification of a JSON row. `errors` has only the codes that are special to it; the others follow from the rest. */
export interface RowSpec<Permission, Params, Query, Body, Data, Page> {
  method: Method;
  path: string;
  operationId: string;
  summary: string;
  access: Permission;
  params?: z.ZodType<Params>;
  query?: z.ZodType<Query>;
  body?: z.ZodType<Body>;
  response: z.ZodType<Data>;
  pagination?: z.ZodType<Page>;
  /** By default 200. */
  status?: number;
  errors?: readonly ErrorCode[];
}

/** Handlers return what the schemas say: the types of the reply follow from them, never the other way round. */
export interface RouteSpec<Principal, Permission, Params, Query, Body, Data, Page>
  extends RowSpec<Permission, Params, Query, Body, Data, Page> {
  handle: (
    request: RequestOf<Principal, Params, Query, Body>,
  ) => Promise<Reply<NoInfer<Data>, NoInfer<Page>>> | Reply<NoInfer<Data>, NoInfer<Page>>;
}

/** The specification of a bare row. */
export interface BareRowSpec<Data>
  extends Pick<RowSpec<never, never, never, never, Data, never>, "method" | "path" | "operationId" | "summary"> {
  response: z.ZodType<Data>;
  errors?: readonly ErrorCode[];
}

export interface BareRouteSpec<Data> extends BareRowSpec<Data> {
  handle: (
    request: Pick<Invocation<unknown>, "nowMs">,
  ) => Promise<Reply<NoInfer<Data>, never>> | Reply<NoInfer<Data>, never>;
}

/** Errors of the server itself: a header that it cannot meet, a failure of ours, a shutdown in the middle of the request. */
export const SERVER_ERRORS = ["bad_request", "internal_error", "storage_unavailable"] as const;
/** Errors of every request for JSON: conditions that nothing can be held against, and unknown parameters. */
const REQUEST_ERRORS = ["precondition_failed", "validation_error"] as const;
/** Errors of a request that has a JSON body. */
const BODY_ERRORS = ["payload_too_large", "request_timeout", "unsupported_media_type"] as const;

/** The row of a route for callers with a credential. */
export function rowOf<Permission, Params, Query, Body, Data, Page>(
  spec: RowSpec<Permission, Params, Query, Body, Data, Page>,
): JsonRow<Permission> {
  const { method, path, operationId, summary, access, params, query, body, response, pagination } = spec;
  const errors = new Set<ErrorCode>([...SERVER_ERRORS, ...REQUEST_ERRORS, ...(spec.errors ?? [])]);
  if (body !== undefined) for (const code of BODY_ERRORS) errors.add(code);
  return {
    ...{ kind: "json", method, path, operationId, summary, access, params, query, body, response, pagination },
    ...{ status: spec.status ?? 200, errors: [...errors].sort(), isBare: false },
  };
}

/** Makes a route for callers with a credential. The handler gets what its schemas return. */
export function route<
  Principal,
  Permission,
  Params = undefined,
  Query = undefined,
  Body = undefined,
  Data = unknown,
  Page = undefined,
>(spec: RouteSpec<Principal, Permission, Params, Query, Body, Data, Page>): JsonRoute<Principal, Permission> {
  const { handle } = spec;
  return {
    ...rowOf(spec),
    invoke: ({ params, search, body, principal, headers, nowMs }) => {
      if (principal === null) throw new TypeError("A route with access control was called without a principal");
      return handle({
        params: parseWith(spec.params, params),
        query: parseQuery(spec.query, search),
        body: parseWith(spec.body, body),
        principal,
        headers,
        nowMs,
      });
    },
  };
}

/** The row of a route that asks for no credential and responds without an envelope. */
export function bareRowOf<Data>({ errors = [], ...spec }: BareRowSpec<Data>): JsonRow<never> & { access: "public" } {
  return {
    ...{ kind: "json", ...spec, access: "public", params: undefined, query: undefined, body: undefined },
    ...{ pagination: undefined, status: 200, errors: [...new Set([...SERVER_ERRORS, ...errors])].sort(), isBare: true },
  };
}

/** Makes a route that asks for no credential and responds without an envelope. */
export function bareRoute<Data>({ handle, ...spec }: BareRouteSpec<Data>): JsonRoute<unknown, never> {
  return { ...bareRowOf(spec), invoke: handle };
}

/** Without a schema a request takes no parameters: a client that sends one expects it to have an effect. */
function parseQuery<T>(schema: z.ZodType<T> | undefined, search: string): T {
  const query = search === "" ? {} : queryOf(search);
  const [name] = Object.keys(query);
  if (schema === undefined && name !== undefined) {
    throw invalidField(shorten(name), "is not a query parameter of this request, which has none");
  }
  return parseWith(schema, query);
}

function parseWith<T>(schema: z.ZodType<T> | undefined, input: unknown): T {
  // Without a schema nothing reads the value: T is then undefined.
  if (schema === undefined) return undefined as T;
  const parsed = schema.safeParse(input);
  if (parsed.success) return parsed.data;
  throw validationError(parsed.error);
}

/** Fields that a refusal names. A small body can have thousands of wrong ones, and a response a hundred times its size. */
const ISSUES_TOLD_MAX = 20;
/** Characters of an unknown name that a refusal repeats. */
const NAME_CHARS_MAX = 100;

/** A name as the client sent it, or its beginning. */
function shorten(name: string): string {
  return name.length <= NAME_CHARS_MAX ? name : `${name.slice(0, NAME_CHARS_MAX)}…`;
}

/** Says which fields are wrong, in the message too: some clients show nothing else. */
function validationError(error: z.ZodError): AppError {
  const problems: ErrorDetail[] = error.issues.flatMap((issue) => {
    const { message } = issue;
    // One issue has all unknown names of an object.
    if (issue.code === "unrecognized_keys") return issue.keys.map((key) => ({ field: shorten(key), message }));
    return [{ field: issue.path.join(".") || "body", message }];
  });
  const details = problems.slice(0, ISSUES_TOLD_MAX);
  const message = details.map(({ field, message }) => `${field}: ${message}`).join("; ");
  const untold = problems.length - details.length;
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
