import * as z from "zod";

export const HealthOut = z.strictObject({ status: z.literal("ok"), version: z.string() });

export const ReadyOut = z.strictObject({
  status: z.literal("ok"),
  version: z.string(),
  database: z.literal("ok"),
  /** An outage of the store is a field and no failure, because deletes go on. */
  store: z.enum(["ok", "unavailable"]),
  /** Present while the cleaner waits for the operator's decision, with the reason. */
  cleaner: z.string().optional(),
  /** Present while objects could have been removed for long, with since when. */
  removals: z.string().optional(),
});
export type ReadyOut = z.infer<typeof ReadyOut>;
