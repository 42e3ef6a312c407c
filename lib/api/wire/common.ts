import * as z from "zod";

/** For the schemas of JSON bodies. */
export const bodyError = { error: "must be a JSON object" };

const uuidError = "must be a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057";

/** Ids are compared in lower case, as they were made. */
export const uuid = z.guid(uuidError).transform((id) => id.toLowerCase());

/** An id in a path. It is empty if the path of a list ends in a slash. */
export const pathId = z
  .guid({
    error: ({ input }) =>
      input === "" ? "must be a UUID, and is empty: a path without an id has no slash at its end" : uuidError,
  })
  .transform((id) => id.toLowerCase());

/** An id in a response. */
export const id = z.uuid();

/** A moment in a response: ISO 8601 in UTC, with milliseconds. */
export const time = z.iso.datetime({ precision: 3 });

/** The `data` of a response that has nothing to say. */
export const Empty = z.strictObject({});

/** For the `error` of a field that cannot be left out. */
export const required = (kind: string) => (issue: { input?: unknown }) =>
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

/**
 * The query of an operation: these parameters and no other. A parameter that was ignored would make a filter that is
 * misspelt match everything.
 */
export function queryOf<Shape extends z.ZodRawShape>(shape: Shape) {
  const names = Object.keys(shape).sort().join(", ");
  return z.strictObject(shape, {
    error: ({ code }) =>
      code === "unrecognized_keys"
        ? `is not a query parameter of this request; the known ones are ${names}`
        : undefined,
  });
}

/** A moment in a query; kept as text, for links. */
export const moment = z.iso.datetime({
  offset: true,
  error: "must be a time with an offset, such as 2026-05-01T00:00:00Z",
});

/** A number in a query. */
export function queryInteger(min: number, max: number) {
  return z
    .string(`must be given once, a whole number from ${min} to ${max}`)
    .regex(/^\d{1,9}$/, `must be a whole number from ${min} to ${max}`)
    .transform(Number)
    .refine((value) => value >= min && value <= max, `must be a whole number from ${min} to ${max}`);
}
