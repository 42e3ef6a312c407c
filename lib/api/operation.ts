import type { IncomingHttpHeaders } from "node:http";
import { type RepeatableRequest, repeatable } from "../books/idempotency.ts";
import type { Permission } from "../books/permissions.ts";
import type { Principal } from "../books/principals.ts";
import type { ErrorCode } from "../errors.ts";
import { type JsonRoute, type JsonRow, type Reply, type RequestOf, type RowSpec, route, rowOf } from "../http/route.ts";
import type { RouteParts } from "./parts.ts";

/** A row of the route table: what it says of itself, and how it is served once there are parts to serve it with. */
export interface Operation {
  row: ApiRow;
  serve: (parts: RouteParts) => JsonRoute<Principal, Permission>;
}

export interface ApiRow extends JsonRow<Permission> {
  /** Whether a request with an `Idempotency-Key` can be sent again and is done once. */
  isRepeatable: boolean;
}

/** A request as a handler gets it. */
interface ApiRequest<Params, Query, Body>
  extends Pick<RequestOf<Principal, Params, Query, Body>, "principal" | "params" | "query" | "body" | "nowMs"> {
  /** Null if the operation is not repeatable, or the request has no `Idempotency-Key`. */
  request: RepeatableRequest | null;
}

interface OperationSpec<Params, Query, Body, Data, Page> extends RowSpec<Permission, Params, Query, Body, Data, Page> {
  isRepeatable?: true;
  handle: (
    request: ApiRequest<Params, Query, Body>,
    parts: RouteParts,
  ) => Promise<Reply<NoInfer<Data>, NoInfer<Page>>> | Reply<NoInfer<Data>, NoInfer<Page>>;
}

/** Errors of the credential, the scope or role, the rate limit, and of a disk too full to remember a new session's user. */
const CREDENTIAL_ERRORS = [
  "forbidden",
  "insufficient_storage",
  "invalid_api_key",
  "rate_limited",
  "unauthorized",
] as const;
/** Errors of the header that selects a session's workspace. */
const WORKSPACE_HEADER_ERRORS = ["bad_request", "not_found"] as const;

/** Makes a row. `errors` of the spec are those that only this operation has: the rest follows from its other fields. */
export function operation<Params = undefined, Query = undefined, Body = undefined, Data = unknown, Page = undefined>(
  spec: OperationSpec<Params, Query, Body, Data, Page>,
): Operation {
  const { access, isRepeatable = false, handle, method, path } = spec;
  const errors: ErrorCode[] = [...CREDENTIAL_ERRORS, ...(spec.errors ?? [])];
  if (access.workspace !== "in_path") errors.push(...WORKSPACE_HEADER_ERRORS);
  if (isRepeatable) errors.push("validation_error");
  const complete = { ...spec, errors };

  /**
   * The same operation with the same words: what the schemas made of them counts, not how they were spelled. The header is
   * checked with the rest of the request, before the handler asks the books or the store: a 503 would tell the client to
   * retry a request that can never succeed.
   */
  function requestOf(principal: Principal, headers: IncomingHttpHeaders, words: unknown[]): RepeatableRequest | null {
    const asked = [method, path, ...words.filter((word) => word !== undefined)];
    return repeatable(principal, headers["idempotency-key"], asked);
  }

  return {
    row: { ...rowOf(complete), isRepeatable },
    serve: (parts) =>
      route({
        ...complete,
        handle: ({ principal, params, query, body, headers, nowMs }: RequestOf<Principal, Params, Query, Body>) => {
          const request = isRepeatable ? requestOf(principal, headers, [params, body]) : null;
          return handle({ principal, params, query, body, request, nowMs }, parts);
        },
      }),
  };
}
