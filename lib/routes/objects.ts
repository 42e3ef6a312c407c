import type { Method, Route } from "../http/routes.ts";
import type { ObjectHandler, ObjectRoutes } from "../store/disk/object_routes.ts";
import { OBJECTS_PATH } from "../store/disk/signed_urls.ts";

/**
 * The signed URLs of the embedded store. The method is signed, so any other is answered as a forged URL is: by the
 * handlers, not with a 405.
 */
export function objectRoutes({ putObject, getObject }: ObjectRoutes): Route[] {
  const rawRoute = (method: Method, summary: string, handle: ObjectHandler): Route => ({
    kind: "raw",
    method,
    path: `${OBJECTS_PATH}*`,
    summary,
    access: "public",
    handle,
  });
  return [
    rawRoute("PUT", "Upload an object, with its signed URL", putObject),
    rawRoute("GET", "Download an object, with its signed URL", getObject),
    ...(["POST", "PATCH", "DELETE"] as const).map((method) =>
      rawRoute(method, "Refused: no URL is signed for it", putObject),
    ),
  ];
}
