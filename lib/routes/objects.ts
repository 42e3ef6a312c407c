import type { Method, Route } from "../http/routes.ts";
import type { StoreGuard } from "../operations/store_guard.ts";
import type { ObjectHandler, ObjectRoutes } from "../store/disk/object_routes.ts";
import { OBJECTS_PATH } from "../store/disk/signed_urls.ts";

/**
 * The signed URLs of the embedded store. The method is signed, so any other is answered as a forged URL is: by the
 * handlers, not with a 405.
 */
export function objectRoutes(
  { putObject, getObject }: ObjectRoutes,
  guard: Pick<StoreGuard, "checkTakesUploads" | "checkServesDownloads">,
): Route[] {
  const put: ObjectHandler = async (req, res, target) => {
    guard.checkTakesUploads();
    await putObject(req, res, target);
  };
  // In another store every file would seem to be deleted.
  const get: ObjectHandler = async (req, res, target) => {
    guard.checkServesDownloads();
    await getObject(req, res, target);
  };
  const rawRoute = (method: Method, summary: string, handle: ObjectHandler): Route => ({
    kind: "raw",
    method,
    path: `${OBJECTS_PATH}*`,
    summary,
    access: "public",
    handle,
  });
  return [
    rawRoute("PUT", "Upload an object, with its signed URL", put),
    rawRoute("GET", "Download an object, with its signed URL", get),
    ...(["POST", "PATCH", "DELETE"] as const).map((method) =>
      rawRoute(method, "Refused: no URL is signed for it", putObject),
    ),
  ];
}
