import { fileType } from "../core/file_types.ts";
import { repeatable } from "../core/idempotency.ts";
import { PERMISSIONS } from "../core/permissions.ts";
import type { Upload } from "../core/uploads.ts";
import { type Route, route } from "../http/routes.ts";
import { CHECKSUM_HEADER, checksumHeaderOf } from "../store/checksum.ts";
import { pageStart, paginateByKey } from "./keyed_pages.ts";
import { presentUpload } from "./present.ts";
import type { RouteParts } from "./routes.ts";
import { ConfirmUploadBody, createUploadBody, UploadParams } from "./schemas.ts";
import { ListUploadsQuery } from "./schemas_uploads.ts";

/** Header of a request that is done once, however often it is sent. */
const IDEMPOTENCY_KEY = "idempotency-key";
const UPLOADS = "/api/v1/uploads";
const UPLOAD = "/api/v1/uploads/:upload_id";

/** The life of an upload: create, confirm, look, delete. */
export function uploadRoutes({ core, objects, confirm, cleaner, guard, config }: RouteParts): Route[] {
  const { uploads } = core;
  const show = (upload: Upload, nowMs: number) =>
    presentUpload(upload, objects, nowMs + config.downloadUrlTtlSeconds * 1000);

  return [
    route({
      method: "POST",
      path: UPLOADS,
      summary: "Create an upload and get the URL to PUT its bytes to",
      access: PERMISSIONS.createUpload,
      body: createUploadBody(config.maxUploadBytes),
      async handle({ principal, headers, body, nowMs }) {
        guard.checkTakesUploads();
        const { filename, category, size_bytes, checksum_sha256 } = body;
        const statedSizeBytes = size_bytes ?? null;
        const checksumSha256 = checksum_sha256 ?? null;
        const type = fileType(filename, category);
        const asked = ["POST", UPLOADS, body];
        const request = repeatable(principal, headers[IDEMPOTENCY_KEY], { status: 201, asked });
        const created = await uploads.create(principal, { type, category, statedSizeBytes, checksumSha256 }, request);
        const { upload, stagingKey } = created;
        const upload_url = objects.presignPut(stagingKey, {
          contentType: upload.contentType,
          sizeBytes: statedSizeBytes,
          checksumSha256,
          expiresAtMs: upload.urlExpiresAtMs,
          signedAtMs: upload.createdAtMs,
        });
        const data = { upload: show(upload, nowMs), upload_url };
        if (checksumSha256 === null) return { status: 201, data };
        // What the PUT has to send besides; on the embedded store the URL says it all, and the header may be left out.
        const upload_headers = { [CHECKSUM_HEADER]: checksumHeaderOf(checksumSha256) };
        return { status: 201, data: { ...data, upload_headers } };
      },
    }),

    route({
      method: "POST",
      path: UPLOAD,
      summary: "Confirm an upload: its size is charged and it is bound to a context",
      access: PERMISSIONS.confirmUpload,
      params: UploadParams,
      body: ConfirmUploadBody,
      async handle({ principal, headers, params, body, nowMs }) {
        const asked = ["POST", UPLOAD, params, body];
        const upload = await confirm(principal, {
          uploadId: params.upload_id,
          contextType: body.context_type,
          contextId: body.context_id,
          repeatable: repeatable(principal, headers[IDEMPOTENCY_KEY], { status: 200, asked }),
        });
        return { data: show(upload, nowMs), after: cleaner.wake };
      },
    }),

    route({
      method: "DELETE",
      path: UPLOAD,
      summary: "Delete an upload: its bytes return to the workspace at once, its object is removed in the background",
      access: PERMISSIONS.deleteUpload,
      params: UploadParams,
      async handle({ principal, headers, params }) {
        const asked = ["DELETE", UPLOAD, params];
        const request = repeatable(principal, headers[IDEMPOTENCY_KEY], { status: 200, asked });
        await uploads.remove(principal, params.upload_id, request);
        return { data: {}, after: cleaner.wake };
      },
    }),

    route({
      method: "GET",
      path: UPLOAD,
      summary: "Show an upload",
      access: PERMISSIONS.readUploads,
      params: UploadParams,
      handle: ({ principal, params, nowMs }) => ({ data: show(uploads.find(principal, params.upload_id), nowMs) }),
    }),

    route({
      method: "GET",
      path: UPLOADS,
      summary: "List the selected workspace's uploads, newest first; without one the caller's personal ones",
      access: PERMISSIONS.readUploads,
      query: ListUploadsQuery,
      async handle({ principal, query, nowMs }) {
        const { status, category, context_id: contextId } = query;
        const page = await uploads.list(principal, { status, category, contextId }, pageStart(query));
        return {
          data: page.uploads.map((upload) => show(upload, nowMs)),
          pagination: paginateByKey(UPLOADS, query, page),
        };
      },
    }),
  ];
}
