import { type Method, type RawRoute, type RawRow, SERVER_ERRORS } from "../http/route.ts";
import type { StoreGuard } from "../operations/store_guard.ts";
import type { ObjectHandler, ObjectRoutes } from "../store/disk/object_routes.ts";
import { OBJECTS_PATH } from "../store/disk/signed_urls.ts";

const COMMON = {
  kind: "raw",
  path: `${OBJECTS_PATH}*`,
  access: "public",
  isOpenToAnyOrigin: true,
  description: "The URL is the credential: it is signed for this method and object, and expires.",
} as const;

const PUT_ROW: RawRow = {
  ...COMMON,
  method: "PUT",
  operationId: "putObject",
  summary: "Upload an object, with its signed URL",
  responses: [{ status: 200, contentType: null, description: "Stored; the ETag is a header" }],
  errors: [
    ...SERVER_ERRORS,
    ...(["forbidden", "insufficient_storage", "not_found", "payload_too_large", "precondition_failed"] as const),
    ...(["rate_limited", "request_timeout", "storage_limit_exceeded", "unsupported_media_type"] as const),
  ],
};

const GET_ROW: RawRow = {
  ...COMMON,
  method: "GET",
  operationId: "getObject",
  summary: "Download an object, with its signed URL",
  responses: [
    { status: 200, contentType: "*/*", description: "The whole file, with the type of its extension" },
    { status: 206, contentType: "*/*", description: "The range of it that was asked for" },
    {
      status: 304,
      contentType: null,
      description: "The client has it already, as If-None-Match or If-Modified-Since says",
    },
  ],
  errors: [...SERVER_ERRORS, "forbidden", "not_found", "precondition_failed", "range_not_satisfiable"],
};

const refusedRow = (method: Method): RawRow => ({
  ...COMMON,
  method,
  operationId: `${method.toLowerCase()}ObjectRefused`,
  summary: "Refused: no URL is signed for it",
  responses: [],
  errors: [...SERVER_ERRORS, "forbidden"],
});
/** The method is signed, so any other gets the response to a forged URL, and no 405. */
const REFUSED_ROWS = (["POST", "PATCH", "DELETE"] as const).map(refusedRow);

export const OBJECT_ROWS: readonly RawRow[] = [PUT_ROW, GET_ROW, ...REFUSED_ROWS];

/** The signed URLs of the embedded store. */
export function objectRoutes(
  { putObject, getObject }: ObjectRoutes,
  guard: Pick<StoreGuard, "checkTakesUploads" | "checkServesDownloads">,
): RawRoute[] {
  const put: ObjectHandler = async (req, res, target) => {
    guard.checkTakesUploads();
    await putObject(req, res, target);
  };
  const get: ObjectHandler = async (req, res, target) => {
    // In another store every file would seem to be deleted.
    guard.checkServesDownloads();
    await getObject(req, res, target);
  };
  return [
    { ...PUT_ROW, handle: put },
    { ...GET_ROW, handle: get },
    ...REFUSED_ROWS.map((row) => ({ ...row, handle: putObject })),
  ];
}
