import type { StorageEvent } from "../core/ledger.ts";
import { PERMISSIONS, selectedWorkspace } from "../core/permissions.ts";
import { presentLimits } from "../core/plan_limits.ts";
import type { ScriptFigures, StorageFigures } from "../core/usage.ts";
import { type ActivityPeriod, activityPeriod, rangeDays, type Span, spanOf } from "../core/usage_periods.ts";
import { AppError } from "../errors.ts";
import { type Route, route } from "../http/routes.ts";
import { timestamp } from "../timestamp.ts";
import type { RouteParts } from "./routes.ts";
import { StorageEventsQuery, UsageActivityQuery, UsageByLanguageQuery, UsageSummaryQuery } from "./schemas_usage.ts";

const STORAGE_EVENTS = "/api/v1/usage/storage-events";
const READ = PERMISSIONS.readUsage;

/** What a workspace uses and may use. Nothing is run or generated here, so credits, runs and audio are zero. */
export function usageRoutes({ core, config }: RouteParts): Route[] {
  const { usage, ledger, workspaces } = core;

  return [
    route({
      method: "GET",
      path: "/api/v1/usage/summary",
      summary: "Show what the workspace uses: its storage, and the scripts that were confirmed in a range of days",
      access: READ,
      query: UsageSummaryQuery,
      async handle({ principal, query, nowMs }) {
        const workspaceId = selectedWorkspace(principal);
        const { range, activity_view, timezone } = query;
        const days = rangeDays(range, timezone, nowMs);
        const activity = activityPeriod(activity_view, timezone, nowMs);
        const figures = await usage.scriptFigures(workspaceId, [...days, ...activity.buckets]);
        const ofDays = figures.slice(0, days.length);
        const total = sumOf(ofDays);
        const storage = await usage.storageFigures(workspaceId);
        return {
          data: {
            range,
            activity_view,
            timezone,
            period: presentSpan(spanOf(days)),
            credits: { used: 0, quota: null, percent: null },
            characters: { total: total.characters },
            audio: { total_ms: 0 },
            corrected: { total: 0 },
            lines: {
              total: total.lines,
              avg_chars_per_line: total.lines === 0 ? null : rounded(total.characters / total.lines, 1),
            },
            runs: { total: 0, completed: 0, failed: 0, cancelled: 0, running: 0, pending: 0, paused: 0 },
            activity: presentActivity(activity, figures.slice(days.length), activity_view),
            daily: days.map(({ date }, i) => ({ date, ...presentFigures(ofDays[i]) })),
            storage: presentStorage(storage, nowMs),
          },
        };
      },
    }),

    route({
      method: "GET",
      path: "/api/v1/usage/activity",
      summary: "List the workspace's activity; the published kinds of it never happen here, so the list is empty",
      access: READ,
      query: UsageActivityQuery,
      handle({ principal, query: { user_id, limit } }) {
        const workspaceId = selectedWorkspace(principal);
        if (user_id !== undefined && !usage.isMember(workspaceId, user_id)) {
          const message = "user_id names no member of this workspace";
          throw new AppError("not_found", message, { details: [{ field: "user_id", message }] });
        }
        return { data: [], pagination: { next: null, prev: null, limit } };
      },
    }),

    route({
      method: "GET",
      path: "/api/v1/usage/by-language",
      summary: "Show usage by language; no language is detected here, so there are no rows",
      access: READ,
      query: UsageByLanguageQuery,
      handle({ query: { range, activity_view, timezone }, nowMs }) {
        // A view overrides the range, which is then null.
        const spans =
          activity_view === undefined
            ? rangeDays(range, timezone, nowMs)
            : activityPeriod(activity_view, timezone, nowMs).buckets;
        return {
          data: {
            range: activity_view === undefined ? range : null,
            activity_view: activity_view ?? null,
            timezone,
            period: presentSpan(spanOf(spans)),
            languages: [],
            total_credits: 0,
            untagged_credits: 0,
          },
        };
      },
    }),

    route({
      method: "GET",
      path: STORAGE_EVENTS,
      summary: "List the workspace's storage events, newest first: every charge, release and adjustment",
      access: READ,
      query: StorageEventsQuery,
      async handle({ principal, query }) {
        const workspaceId = selectedWorkspace(principal);
        const { upload_id: uploadId, kind, cursor: beforeSeq, limit } = query;
        // One more than asked for tells whether another page follows.
        const found = await ledger.list(workspaceId, { uploadId, kind, beforeSeq, limit: limit + 1 });
        const events = found.slice(0, limit);
        const last = events.at(-1);
        return {
          data: events.map(presentStorageEvent),
          pagination: {
            next: found.length > limit && last !== undefined ? nextPage(query, last.seq) : null,
            prev: null,
            limit,
          },
        };
      },
    }),

    route({
      method: "GET",
      path: "/api/v1/users/me/limits",
      summary: "Show the limits that the caller is bound by",
      access: PERMISSIONS.readLimits,
      handle({ principal: { workspaceId } }) {
        const workspace = workspaceId === null ? null : (workspaces.find(workspaceId) ?? null);
        return { data: presentLimits(config, workspace) };
      },
    }),

    route({
      method: "GET",
      path: "/api/v1/users/me/credits",
      summary: "Show the caller's credits: there are none here, and nothing costs any",
      access: PERMISSIONS.readLimits,
      handle: () => ({
        data: {
          balance: 0,
          monthly_balance: 0,
          free_balance: 0,
          free_grant: 0,
          used: 0,
          remaining: 0,
          quota: null,
          percent: null,
          period_start: null,
          period_end: null,
          plan_grant: 0,
          plan_tier: "custom",
          overage_rate_cents_per_credit: null,
          overage_cents: null,
          credits_absorbed: null,
        },
      }),
    }),
  ];
}

/** What a bucket or a day shows. */
function presentFigures({ characters, lines }: ScriptFigures = { characters: 0, lines: 0 }): Record<string, number> {
  return { credits: 0, characters, lines, runs: 0 };
}

/** The totals of an activity chart are credits, so they are zero whatever its buckets hold. */
function presentActivity(
  { bucketUnit, rangeLabel, buckets }: ActivityPeriod,
  figures: readonly ScriptFigures[],
  view: string,
): Record<string, unknown> {
  return {
    view,
    bucket_unit: bucketUnit,
    range_label: rangeLabel,
    total: 0,
    avg: 0,
    buckets: buckets.map((bucket, i) => ({
      label: bucket.label,
      ...presentSpan(bucket),
      ...presentFigures(figures[i]),
    })),
    peak: null,
  };
}

function presentStorage(storage: StorageFigures, nowMs: number): Record<string, number | null> {
  const { bytesUsed, bytesQuota, oldestRemovalEnteredAtMs: oldestMs } = storage;
  return {
    bytes_used: bytesUsed,
    bytes_quota: bytesQuota,
    // More than 100 where the quota was lowered below what is used.
    percent: bytesQuota === 0 ? null : rounded((100 * bytesUsed) / bytesQuota, 2),
    uploads: storage.uploads,
    uploads_pending: storage.uploadsPending,
    bytes_pending_stated: storage.bytesPendingStated,
    bytes_pending_stored: storage.bytesPendingStored,
    uploads_held: storage.uploadsHeld,
    bytes_awaiting_removal: storage.bytesAwaitingRemoval,
    oldest_removal_age_seconds: oldestMs === null ? null : Math.max(0, Math.floor((nowMs - oldestMs) / 1_000)),
  };
}

function presentStorageEvent(event: StorageEvent): Record<string, unknown> {
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

function presentSpan({ startMs, endMs }: Span): { start: string; end: string } {
  return { start: timestamp(startMs), end: timestamp(endMs) };
}

/** The link to the events before this one, root-relative, with the filters of this page. */
function nextPage(
  { upload_id, kind, limit }: { upload_id?: string | undefined; kind?: string | undefined; limit: number },
  seq: number,
): string {
  const filters = Object.entries({ upload_id, kind }).filter(
    (entry): entry is [string, string] => entry[1] !== undefined,
  );
  return `${STORAGE_EVENTS}?${new URLSearchParams([...filters, ["cursor", String(seq)], ["limit", String(limit)]])}`;
}

function sumOf(figures: readonly ScriptFigures[]): ScriptFigures {
  return figures.reduce(
    (sum, { characters, lines }) => ({ characters: sum.characters + characters, lines: sum.lines + lines }),
    { characters: 0, lines: 0 },
  );
}

function rounded(value: number, decimals: number): number {
  return Math.round(value * 10 ** decimals) / 10 ** decimals;
}
