import * as z from "zod";
import { ERROR_CODES, type ErrorCode } from "../../errors.ts";
import type { JsonRow } from "../../http/route.ts";
import { time } from "./common.ts";

/** In the body of every response but the bare ones. */
export const Meta = z.strictObject({
  /** A ULID; the header `X-Request-Id` and the log have the same one. */
  request_id: z.string().regex(/^[0-7][0-9A-HJKMNP-TV-Z]{25}$/),
  timestamp: time,
});

/** How a code is written on the wire. */
export function wireCode(code: ErrorCode): string {
  return code.toUpperCase();
}

/** The body of every failure. */
export const ErrorEnvelope = z.strictObject({
  error: z.strictObject({
    code: z.enum(ERROR_CODES.map(wireCode)),
    message: z.string().min(1),
    /** The fields that are wrong; null if the request as a whole is refused. */
    details: z.array(z.strictObject({ field: z.string(), message: z.string() })).nullable(),
  }),
  meta: Meta,
});

const pageLinks = {
  /** Root-relative; null on the last page. */
  next: z.string().nullable(),
  /** Root-relative; null on the first page, and in lists that go forward only. */
  prev: z.string().nullable(),
  limit: z.int().min(0),
};

/** The pagination of a list whose rows are counted. */
export const CountedPagination = z.strictObject({ ...pageLinks, total: z.int().min(0) });
export type CountedPagination = z.infer<typeof CountedPagination>;

/** The pagination of a list that is not counted. */
export const UncountedPagination = z.strictObject(pageLinks);
export type UncountedPagination = z.infer<typeof UncountedPagination>;

/** The schema of a success's whole body. */
export function bodySchemaOf({ response, pagination, isBare }: JsonRow<unknown>): z.ZodType {
  if (isBare) return response;
  return z.strictObject({ data: response, ...(pagination === undefined ? {} : { pagination }), meta: Meta });
}
