import * as z from "zod";
import { STORAGE_EVENT_KINDS, type StorageEvent } from "../../books/ledger.ts";
import type { ScriptFigures, StorageFigures } from "../../books/usage.ts";
import {
  ACTIVITY_VIEWS,
  type ActivityPeriod,
  type ActivityView,
  isTimeZone,
  type LocalDay,
  type Span,
  spanOf,
  USAGE_RANGES,
  type UsageRange,
} from "../../books/usage_periods.ts";
import { timestamp } from "../../timestamp.ts";
import { id, oneOf, queryInteger, queryOf, time, uuid } from "./common.ts";
import type { UncountedPagination } from "./envelope.ts";
import { PAGE_LIMIT_MAX } from "./pages.ts";

const ACTIVITY_LIMIT_DEFAULT = 20;
const EVENTS_LIMIT_DEFAULT = 50;
const CURSOR_CHARS_MAX = 512;

/** The actions of the published activity feed. None of them happens here. */
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

export const UsageSummaryQuery = queryOf({ range, activity_view: oneOf(ACTIVITY_VIEWS).default("daily"), timezone });

export const UsageByLanguageQuery = queryOf({ range, activity_view: oneOf(ACTIVITY_VIEWS).optional(), timezone });

export const UsageActivityQuery = queryOf({
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

export const StorageEventsQuery = queryOf({
  upload_id: uuid.optional(),
  kind: oneOf(STORAGE_EVENT_KINDS).optional(),
  limit: queryInteger(1, PAGE_LIMIT_MAX).default(EVENTS_LIMIT_DEFAULT),
  cursor: z
    .string(cursorError)
    .regex(/^[1-9]\d{0,14}$/, cursorError)
    .transform(Number)
    .optional(),
});
type StorageEventsQuery = z.infer<typeof StorageEventsQuery>;

const none = z.literal(0);
const count = z.int().min(0);
const span = { start: time, end: time };
const figures = { credits: none, characters: count, lines: count, runs: none };

const StorageOut = z.strictObject({
  bytes_used: count,
  bytes_quota: count,
  /** Percent of the quota: 0 to 100, more if the quota was lowered below the usage, null if it is zero. */
  percent: z.number().min(0).nullable(),
  uploads: count,
  uploads_pending: count,
  bytes_pending_stated: count,
  bytes_pending_stored: count,
  uploads_held: count,
  bytes_awaiting_removal: count,
  oldest_removal_age_seconds: count.nullable(),
});

const ActivityOut = z.strictObject({
  view: z.enum(ACTIVITY_VIEWS),
  bucket_unit: z.enum(["day", "week", "month"]),
  range_label: z.string(),
  total: none,
  avg: none,
  buckets: z.array(z.strictObject({ label: z.string(), ...span, ...figures })),
  peak: z.null(),
});

export const UsageSummaryOut = z.strictObject({
  range: z.enum(USAGE_RANGES),
  activity_view: z.enum(ACTIVITY_VIEWS),
  timezone: z.string(),
  period: z.strictObject(span),
  credits: z.strictObject({ used: none, quota: z.null(), percent: z.null() }),
  characters: z.strictObject({ total: count }),
  audio: z.strictObject({ total_ms: none }),
  corrected: z.strictObject({ total: none }),
  lines: z.strictObject({ total: count, avg_chars_per_line: z.number().min(0).nullable() }),
  runs: z.strictObject({
    ...{ total: none, completed: none, failed: none, cancelled: none, running: none, pending: none, paused: none },
  }),
  activity: ActivityOut,
  daily: z.array(z.strictObject({ date: z.iso.date(), ...figures })),
  storage: StorageOut,
});

/** The published kinds of activity never happen here. */
export const UsageActivityOut = z.array(z.never());

export const UsageByLanguageOut = z.strictObject({
  /** Null if a view was asked for: it overrides the range. */
  range: z.enum(USAGE_RANGES).nullable(),
  activity_view: z.enum(ACTIVITY_VIEWS).nullable(),
  timezone: z.string(),
  period: z.strictObject(span),
  /** No language is detected here. */
  languages: z.array(z.never()),
  total_credits: none,
  untagged_credits: none,
});

const StorageEventOut = z.strictObject({
  /** The place in the ledger. */
  seq: z.int().min(1),
  workspace_id: id,
  /** Null for an `adjust`. */
  upload_id: id.nullable(),
  kind: z.enum(STORAGE_EVENT_KINDS),
  /** Signed: a release is negative. */
  bytes: z.int(),
  balance_bytes: count,
  created_at: time,
});

export const StorageEventList = z.array(StorageEventOut);

/** The figures of a usage summary, in the order of its days and buckets. */
export interface UsageSummary {
  range: UsageRange;
  view: ActivityView;
  timezone: string;
  days: readonly LocalDay[];
  dayFigures: readonly ScriptFigures[];
  activity: ActivityPeriod;
  bucketFigures: readonly ScriptFigures[];
  storage: StorageFigures;
  nowMs: number;
}

/** Presents a usage summary. Nothing is run or generated here, so credits, runs and audio are zero. */
export function presentUsageSummary(summary: UsageSummary): z.infer<typeof UsageSummaryOut> {
  const { days, dayFigures } = summary;
  const total = sumOf(dayFigures);
  return {
    range: summary.range,
    activity_view: summary.view,
    timezone: summary.timezone,
    period: presentSpan(spanOf(days)),
    credits: { used: 0, quota: null, percent: null },
    characters: { total: total.characters },
    audio: { total_ms: 0 },
    corrected: { total: 0 },
    lines: {
      total: total.lines,
      avg_chars_per_line: total.lines === 0 ? null : round(total.characters / total.lines, 1),
    },
    runs: { total: 0, completed: 0, failed: 0, cancelled: 0, running: 0, pending: 0, paused: 0 },
    activity: presentActivity(summary),
    daily: days.map(({ date }, i) => ({ date, ...presentFigures(dayFigures[i]) })),
    storage: presentStorage(summary.storage, summary.nowMs),
  };
}

/** The totals of an activity chart are credits, so they are zero whatever its buckets hold. */
function presentActivity({ view, activity, bucketFigures }: UsageSummary): z.infer<typeof ActivityOut> {
  return {
    view,
    bucket_unit: activity.bucketUnit,
    range_label: activity.rangeLabel,
    total: 0,
    avg: 0,
    buckets: activity.buckets.map((bucket, i) => ({
      label: bucket.label,
      ...presentSpan(bucket),
      ...presentFigures(bucketFigures[i]),
    })),
    peak: null,
  };
}

function presentStorage(storage: StorageFigures, nowMs: number): z.infer<typeof StorageOut> {
  const { bytesUsed, bytesQuota, oldestRemovalEnteredAtMs: oldestMs } = storage;
  return {
    bytes_used: bytesUsed,
    bytes_quota: bytesQuota,
    percent: bytesQuota === 0 ? null : round((100 * bytesUsed) / bytesQuota, 2),
    uploads: storage.uploads,
    uploads_pending: storage.uploadsPending,
    bytes_pending_stated: storage.bytesPendingStated,
    bytes_pending_stored: storage.bytesPendingStored,
    uploads_held: storage.uploadsHeld,
    bytes_awaiting_removal: storage.bytesAwaitingRemoval,
    oldest_removal_age_seconds: oldestMs === null ? null : Math.max(0, Math.floor((nowMs - oldestMs) / 1_000)),
  };
}

/** Presents usage by language: the spans are the days of the range, or the buckets of the view, if there is one. */
export function presentUsageByLanguage(
  { range, activity_view: view, timezone }: z.infer<typeof UsageByLanguageQuery>,
  spans: readonly Span[],
): z.infer<typeof UsageByLanguageOut> {
  return {
    range: view === undefined ? range : null,
    activity_view: view ?? null,
    timezone,
    period: presentSpan(spanOf(spans)),
    languages: [],
    total_credits: 0,
    untagged_credits: 0,
  };
}

/** Presents an entry of the ledger. */
export function presentStorageEvent(event: StorageEvent): z.infer<typeof StorageEventOut> {
  return {
    seq: event.seq,
    workspace_id: event.workspaceId,
    upload_id: event.uploadId,
    kind: event.kind,
    bytes: event.bytes,
    balance_bytes: event.balanceBytes,
    created_at: timestamp(event.atMs),
  };
}

/** The pagination of a page of events. `nextBeforeSeq` is where the next page begins; null on the last page. */
export function paginateEvents(
  path: string,
  { upload_id, kind, limit }: StorageEventsQuery,
  nextBeforeSeq: number | null,
): UncountedPagination {
  if (nextBeforeSeq === null) return { next: null, prev: null, limit };
  const search = new URLSearchParams();
  if (upload_id !== undefined) search.append("upload_id", upload_id);
  if (kind !== undefined) search.append("kind", kind);
  search.append("cursor", String(nextBeforeSeq));
  search.append("limit", String(limit));
  return { next: `${path}?${search}`, prev: null, limit };
}

function presentFigures({ characters, lines }: ScriptFigures = { characters: 0, lines: 0 }) {
  return { credits: 0, characters, lines, runs: 0 } as const;
}

function presentSpan({ startMs, endMs }: Span): { start: string; end: string } {
  return { start: timestamp(startMs), end: timestamp(endMs) };
}

function sumOf(figures: readonly ScriptFigures[]): ScriptFigures {
  return figures.reduce(
    (sum, { characters, lines }) => ({ characters: sum.characters + characters, lines: sum.lines + lines }),
    { characters: 0, lines: 0 },
  );
}

function round(value: number, decimals: number): number {
  return Math.round(value * 10 ** decimals) / 10 ** decimals;
}
