import * as z from "zod";
import { STORAGE_EVENT_KINDS } from "../core/ledger.ts";
import { ACTIVITY_VIEWS, isTimeZone, USAGE_RANGES } from "../core/usage_periods.ts";
import { oneOf, PAGE_LIMIT_MAX, queryInteger, uuid } from "./schemas.ts";

const ACTIVITY_LIMIT_DEFAULT = 20;
const EVENTS_LIMIT_DEFAULT = 50;
const CURSOR_CHARS_MAX = 512;

/** What the published activity feed can tell of. None of it happens here. */
const ACTIVITY_ACTIONS = [
  "workflow_run",
  "voice_generated",
  "template_applied",
  "member_invited",
  "api_key_created",
  "settings_changed",
] as const;

const timezone = z
  .string("must be given once")
  .refine(isTimeZone, "must be the name of a time zone in the IANA database, such as Europe/Berlin or UTC")
  .default("UTC");
const range = oneOf(USAGE_RANGES).default("30d");

export const UsageSummaryQuery = z.object({ range, activity_view: oneOf(ACTIVITY_VIEWS).default("daily"), timezone });

export const UsageByLanguageQuery = z.object({ range, activity_view: oneOf(ACTIVITY_VIEWS).optional(), timezone });

export const UsageActivityQuery = z.object({
  range,
  type: oneOf(ACTIVITY_ACTIONS).optional(),
  user_id: uuid.optional(),
  limit: queryInteger(1, PAGE_LIMIT_MAX).default(ACTIVITY_LIMIT_DEFAULT),
  cursor: z
    .string("must be given once")
    .min(1, "must not be empty")
    .max(CURSOR_CHARS_MAX, `must have at most ${CURSOR_CHARS_MAX} characters`)
    .optional(),
  timezone,
});

const cursorError = "must come from the next link of another page";

export const StorageEventsQuery = z.object({
  upload_id: uuid.optional(),
  kind: oneOf(STORAGE_EVENT_KINDS).optional(),
  limit: queryInteger(1, PAGE_LIMIT_MAX).default(EVENTS_LIMIT_DEFAULT),
  cursor: z
    .string(cursorError)
    .regex(/^[1-9]\d{0,14}$/, cursorError)
    .transform(Number)
    .optional(),
});
