import { fileType } from "../books/file_types.ts";
import { PERMISSIONS } from "../books/permissions.ts";
import type { Upload } from "../books/uploads.ts";
import { invalidField } from "../errors.ts";
import { type Disposition, isShownInline } from "../store/objects.ts";
import { type Operation, operation } from "./operation.ts";
import type { RouteParts } from "./parts.ts";
import { Empty } from "./wire/common.ts";
import { CountedPagination } from "./wire/envelope.ts";
import { ID_KEY, pageStart, paginate, publicPath } from "./wire/pages.ts";
import {
  ConfirmUploadBody,
  CreatedUploadOut,
  createUploadBody,
  ListUploadsQuery,
  presentCreatedUpload,
  presentUpload,
  ShowUploadQuery,
  UploadList,
  UploadOut,
  UploadParams,
  uploadFilterOf,
} from "./wire/uploads.ts";

const UPLOADS = "/api/v1/uploads";
const UPLOAD = `${UPLOADS}/:upload_id`;

/** The life of an upload: create, confirm, show, list, delete. `maxUploadBytes`: the largest file that is accepted. */
export function uploadOperations(maxUploadBytes: number): Operation[] {
  return [
    operation({
      method: "POST",
      path: UPLOADS,
      operationId: "createUpload",
      summary: "Create an upload and get the URL to PUT its bytes to",
      access: PERMISSIONS.createUpload,
      isRepeatable: true,
      body: createUploadBody(maxUploadBytes),
      status: 201,
      response: CreatedUploadOut,
      errors: ["insufficient_storage", "storage_limit_exceeded"],
      async handle({ principal, request, body, nowMs }, parts) {
        parts.guard.checkTakesUploads();
        const { filename, category, size_bytes: statedSizeBytes = null, checksum_sha256: checksumSha256 = null } = body;
        const newUpload = { type: fileType(filename, category), category, statedSizeBytes, checksumSha256 };
        const { upload, stagingKey } = await parts.books.uploads.create(principal, newUpload, request);
        const uploadUrl = parts.objects.presignPut(stagingKey, {
          contentType: upload.contentType,
          sizeBytes: statedSizeBytes,
          checksumSha256,
          expiresAtMs: upload.urlExpiresAtMs,
          signedAtMs: upload.createdAtMs,
        });
        return { data: presentCreatedUpload(show(upload, nowMs, parts), { uploadUrl, checksumSha256 }) };
      },
    }),

    operation({
      method: "POST",
      path: UPLOAD,
      operationId: "confirmUpload",
      summary: "Confirm an upload: its size is charged and it is bound to a context",
      access: PERMISSIONS.confirmUpload,
      isRepeatable: true,
      params: UploadParams,
      body: ConfirmUploadBody,
      response: UploadOut,
      errors: ["insufficient_storage", "storage_limit_exceeded"],
      async handle({ principal, request, params, body, nowMs }, parts) {
        const upload = await parts.confirm(principal, {
          uploadId: params.upload_id,
          contextType: body.context_type,
          contextId: body.context_id,
          repeatable: request,
        });
        return { data: show(upload, nowMs, parts), after: parts.cleaner.wake };
      },
    }),

    operation({
      method: "DELETE",
      path: UPLOAD,
      operationId: "deleteUpload",
      summary: "Delete an upload: its bytes return to the workspace at once, its object is removed in the background",
      access: PERMISSIONS.deleteUpload,
      isRepeatable: true,
      params: UploadParams,
      response: Empty,
      async handle({ principal, request, params }, { books, cleaner }) {
        await books.uploads.remove(principal, params.upload_id, request);
        return { data: {}, after: cleaner.wake };
      },
    }),

    operation({
      method: "GET",
      path: UPLOAD,
      operationId: "getUpload",
      summary: "Show an upload",
      access: PERMISSIONS.readUploads,
      params: UploadParams,
      query: ShowUploadQuery,
      response: UploadOut,
      async handle({ principal, params, query: { disposition }, nowMs }, parts) {
        const upload = await parts.books.uploads.find(principal, params.upload_id);
        if (disposition === "inline") checkIsShownInline(upload);
        return { data: show(upload, nowMs, parts, disposition) };
      },
    }),

    operation({
      method: "GET",
      path: UPLOADS,
      operationId: "listUploads",
      summary: "List the selected workspace's uploads, newest first; without one the caller's personal ones",
      access: PERMISSIONS.readUploads,
      query: ListUploadsQuery,
      response: UploadList,
      pagination: CountedPagination,
      async handle({ principal, query, nowMs }, parts) {
        const { lastKey: beforeId, ...rows } = pageStart(query);
        const page = await parts.books.uploads.list(principal, uploadFilterOf(query), { beforeId, ...rows });
        const { nextBeforeId: nextKey, total } = page;
        return {
          data: page.uploads.map((upload) => show(upload, nowMs, parts)),
          pagination: paginate(ID_KEY, publicPath(parts.config, UPLOADS), query, { nextKey, total }),
        };
      },
    }),
  ];
}

function show(upload: Upload, nowMs: number, { objects, config }: RouteParts, disposition?: Disposition) {
  return presentUpload(upload, objects, { expiresAtMs: nowMs + config.downloadUrlTtlMs, disposition });
}

function checkIsShownInline({ contentType }: Upload): void {
  if (isShownInline(contentType)) return;
  const message = `cannot be inline for ${contentType}: only images, audio, video, text and PDF are`;
  throw invalidField("disposition", message);
}
