import * as z from "zod";
import { CONTEXT_TYPES } from "../core/contexts.ts";
import { CATEGORIES } from "../core/file_types.ts";

/** Rows on one page of a list. */
export const PAGE_LIMIT_MAX = 100;
export const PAGE_LIMIT_DEFAULT = 50;
/** A page further on than this costs more than it is worth: filters find it. */
export const PAGE_OFFSET_MAX = 10_000_000;

/** Ids are compared in lower case, as they were made. */
export const uuid = z
  .guid("must be a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057")
  .transform((id) => id.toLowerCase());

const required = (kind: string) => (issue: { input?: unknown }) =>
  issue.input === undefined ? "is required" : `must be ${kind}`;

/** Text that a person typed: valid Unicode without control characters. */
export function text(what: string, { min, max }: { min: number; max: number }) {
  return z
    .string({ error: required("a string") })
    .refine(
      (value) => value.isWellFormed() && !/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/.test(value),
      "must be plain text without control characters",
    )
    .transform((value) => value.trim())
    .refine((value) => {
      const chars = [...value].length;
      return chars >= min && chars <= max;
    }, `${what} must have ${min} to ${max} characters`);
}

export const oneOf = <const Values extends readonly [string, ...string[]]>(values: Values) =>
  z.enum(values, {
    error: (issue) => (issue.input === undefined ? "is required" : `must be one of ${values.join(", ")}`),
  });

/** A number that stands in a query. */
export function queryInteger(min: number, max: number) {
  return z
    .string(`must be given once, a whole number from ${min} to ${max}`)
    .regex(/^\d{1,9}$/, `must be a whole number from ${min} to ${max}`)
    .transform(Number)
    .refine((value) => value >= min && value <= max, `must be a whole number from ${min} to ${max}`);
}

const page = {
  offset: queryInteger(0, PAGE_OFFSET_MAX).default(0),
  limit: queryInteger(1, PAGE_LIMIT_MAX).default(PAGE_LIMIT_DEFAULT),
};

const bodyError = { error: "must be a JSON object" };

const checksumError = "must be the SHA-256 of the file: 64 hexadecimal digits";
const checksum = z
  .string(checksumError)
  .regex(/^[0-9a-fA-F]{64}$/, checksumError)
  .transform((hex) => hex.toLowerCase());

export const UploadParams = z.object({ upload_id: uuid });
export const WorkflowParams = z.object({ workflow_id: uuid });

/** `sizeBytesMax`: the largest file that the service takes. */
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

/** Names the first wrong item alone: a schema for each would make an issue of every one of tens of thousands. */
const objects = z.array(z.unknown(), "must be a list of JSON objects").superRefine((items, context) => {
  const wrong = items.findIndex((item) => typeof item !== "object" || item === null || Array.isArray(item));
  if (wrong >= 0) context.addIssue({ code: "custom", path: [wrong], message: "must be a JSON object" });
});

const definition = z.looseObject(
  {
    graph: z.looseObject({ nodes: objects.optional(), edges: objects.optional() }).optional(),
    execution: z.looseObject({}).optional(),
  },
  bodyError,
);
const workflowFields = {
  name: text("a name", { min: 1, max: 200 }),
  description: text("a description", { min: 0, max: 5_000 }).nullable(),
  definition,
};

export const CreateWorkflowBody = z.object(workflowFields, bodyError).partial();

export const PatchWorkflowBody = CreateWorkflowBody.refine(
  (body) => Object.values(body).some((value) => value !== undefined),
  "must change at least one of name, description, definition",
);

/** How often a parameter may be repeated: more says nothing more. */
const REPEATED_MAX = 20;

/** A parameter that may be repeated. */
function list<T extends z.ZodType>(item: T) {
  const few = z.array(z.unknown()).max(REPEATED_MAX, `may be given ${REPEATED_MAX} times at most`);
  return z.preprocess((value) => (typeof value === "string" ? [value] : value), few.pipe(z.array(item))).default([]);
}

const truth = oneOf(["true", "false"]).transform((value) => value === "true");
const instant = z.iso.datetime({ offset: true, error: "must be a time with an offset, such as 2026-05-01T00:00:00Z" });

export const ListWorkflowsQuery = z.object({
  ...page,
  search: z.string("must be given once").max(200, "must have at most 200 characters").optional(),
  status: oneOf(["draft", "running", "completed", "failed", "paused", "cancelled", "pending"]).optional(),
  sort: list(oneOf(["name", "updated_at", "runs_count"])),
  order: list(oneOf(["asc", "desc"])),
  last_run_after: instant.optional(),
  last_run_before: instant.optional(),
  has_failed_run: truth.optional(),
  include_definition: truth.optional(),
});
