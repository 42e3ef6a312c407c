import * as z from "zod";
import { CONTEXT_TYPES } from "../../books/contexts.ts";
import { CATEGORIES, FILENAME_CHARS_MAX } from "../../books/file_types.ts";
import type { Upload, UploadFilter } from "../../books/uploads.ts";
import { CHECKSUM_HEADER, checksumHeaderOf } from "../../store/checksum.ts";
import type { Disposition, ObjectStore } from "../../store/objects.ts";
import { timestamp } from "../../timestamp.ts";
import { bodyError, id, moment, oneOf, pathId, queryOf, required, time, uuid } from "./common.ts";
import { BEGINS_TWICE, beginsOnce, ID_KEY, pageQuery } from "./pages.ts";

/** A character may be two units, and four of them may compose one. */
const NAME_UNITS_MAX = FILENAME_CHARS_MAX * 8;

export const UploadParams = z.object({ upload_id: pathId });

const checksumError = "must be the SHA-256 of the file: 64 hexadecimal digits";
const checksum = z
  .string(checksumError)
  .regex(/^[0-9a-fA-F]{64}$/, checksumError)
  .transform((hex) => hex.toLowerCase());

/** `sizeBytesMax`: the largest file that the service accepts. */
export function createUploadBody(sizeBytesMax: number) {
  const size = `must be a whole number from 0 to ${sizeBytesMax}`;
  return z.object(
    {
      filename: z.string({ error: required("a string") }).min(1, "must have 1 to 255 characters"),
      category: oneOf(CATEGORIES),
      size_bytes: z.int(size).min(0, size).max(sizeBytesMax, size).nullish(),
      checksum_sha256: checksum.nullish(),
    },
    bodyError,
  );
}

export const ConfirmUploadBody = z.object({ context_type: oneOf(CONTEXT_TYPES), context_id: uuid }, bodyError);

export const ShowUploadQuery = queryOf({ disposition: oneOf(["attachment", "inline"]).optional() });

/** Compared with names as they are stored: in Unicode's composed form. */
const nameFilter = z
  .string("must be given once")
  .min(1, "must not be empty")
  .max(NAME_UNITS_MAX, `must have at most ${FILENAME_CHARS_MAX} characters`)
  .transform((name) => name.normalize("NFC"));

export const ListUploadsQuery = queryOf({
  ...pageQuery(ID_KEY),
  status: oneOf(["pending", "uploaded"]).optional(),
  category: oneOf(CATEGORIES).optional(),
  context_id: uuid.optional(),
  filename: nameFilter.optional(),
  filename_prefix: nameFilter.optional(),
  /** The first moment that counts. */
  created_after: moment.optional(),
  /** The first moment that does not count any more. */
  created_before: moment.optional(),
}).refine(beginsOnce, BEGINS_TWICE);

/** The uploads that a list's query asks for. */
export function uploadFilterOf(query: z.infer<typeof ListUploadsQuery>): UploadFilter {
  const { status, category, created_after: after, created_before: before } = query;
  return {
    status,
    category,
    contextId: query.context_id,
    filename: query.filename,
    filenamePrefix: query.filename_prefix,
    createdFromMs: after === undefined ? undefined : Date.parse(after),
    createdBeforeMs: before === undefined ? undefined : Date.parse(before),
  };
}

export const WorkflowUploadsQuery = queryOf(pageQuery(ID_KEY)).refine(beginsOnce, BEGINS_TWICE);

export const UploadOut = z.strictObject({
  id,
  user_id: id,
  /** Null for a personal upload. */
  workspace_id: id.nullable(),
  filename: z.string(),
  category: z.enum(CATEGORIES),
  content_type: z.string(),
  /** The extension in lower case; null without one. */
  format: z.string().nullable(),
  status: z.enum(["pending", "uploaded"]),
  /** Stored and charged; null until confirmed. */
  size_bytes: z.int().min(0).nullable(),
  checksum_sha256: z
    .string()
    .regex(/^[0-9a-f]{64}$/)
    .nullable(),
  /** Only for scripts in plain text; null otherwise. */
  char_count: z.int().min(0).nullable(),
  line_count: z.int().min(0).nullable(),
  detected_language: z.null(),
  /** Null until confirmed. */
  download_url: z.url().nullable(),
  context_type: z.enum(CONTEXT_TYPES).nullable(),
  context_id: id.nullable(),
  created_at: time,
  updated_at: time,
});
type UploadOut = z.infer<typeof UploadOut>;

export const UploadList = z.array(UploadOut);

export const CreatedUploadOut = z.strictObject({
  upload: UploadOut,
  /** The URL to PUT the bytes to. */
  upload_url: z.url(),
  /** Headers that the PUT has to send; present if a checksum was stated. */
  upload_headers: z.strictObject({ [CHECKSUM_HEADER]: z.string() }).optional(),
});

/** Presents an upload. `url`: the options of its download URL. Fields without a value are null, never left out. */
export function presentUpload(
  upload: Upload,
  objects: ObjectStore,
  url: { expiresAtMs: number; disposition?: Disposition | undefined },
): UploadOut {
  const { expiresAtMs, disposition = "attachment" } = url;
  const { objectKey, contentType, filename } = upload;
  return {
    id: upload.uploadId,
    user_id: upload.userId,
    workspace_id: upload.workspaceId,
    filename,
    category: upload.category,
    content_type: contentType,
    format: upload.format,
    status: upload.status,
    size_bytes: upload.sizeBytes,
    checksum_sha256: upload.checksumSha256,
    char_count: upload.charCount,
    line_count: upload.lineCount,
    detected_language: null,
    download_url:
      upload.status === "uploaded"
        ? objects.presignGet(objectKey, { contentType, filename, disposition, expiresAtMs })
        : null,
    context_type: upload.contextType,
    context_id: upload.contextId,
    created_at: timestamp(upload.createdAtMs),
    updated_at: timestamp(upload.updatedAtMs),
  };
}

/** Presents a new upload, with what its PUT needs. */
export function presentCreatedUpload(
  upload: UploadOut,
  { uploadUrl, checksumSha256 }: { uploadUrl: string; checksumSha256: string | null },
): z.infer<typeof CreatedUploadOut> {
  if (checksumSha256 === null) return { upload, upload_url: uploadUrl };
  // An S3 store demands the header. For the embedded store the URL says it all, and the header may be left out.
  const upload_headers = { [CHECKSUM_HEADER]: checksumHeaderOf(checksumSha256) };
  return { upload, upload_url: uploadUrl, upload_headers };
}
