import { PERMISSIONS, selectedWorkspace } from "../books/permissions.ts";
import { activityPeriod, rangeDays } from "../books/usage_periods.ts";
import { AppError } from "../errors.ts";
import { type Operation, operation } from "./operation.ts";
import { UncountedPagination } from "./wire/envelope.ts";
import { publicPath } from "./wire/pages.ts";
import {
  paginateEvents,
  presentStorageEvent,
  presentUsageByLanguage,
  presentUsageSummary,
  StorageEventList,
  StorageEventsQuery,
  UsageActivityOut,
  UsageActivityQuery,
  UsageByLanguageOut,
  UsageByLanguageQuery,
  UsageSummaryOut,
  UsageSummaryQuery,
} from "./wire/usage.ts";

const STORAGE_EVENTS = "/api/v1/usage/storage-events";
const READ = PERMISSIONS.readUsage;

/** A workspace's usage. Nothing is run or generated here, so credits, runs and audio are zero. */
export const usageOperations: readonly Operation[] = [
  operation({
    method: "GET",
    path: "/api/v1/usage/summary",
    operationId: "getUsageSummary",
    summary: "Show what the workspace uses: its storage, and the scripts that were confirmed in a range of days",
    access: READ,
    query: UsageSummaryQuery,
    response: UsageSummaryOut,
    async handle({ principal, query, nowMs }, { books: { usage } }) {
      const workspaceId = selectedWorkspace(principal);
      const { range, activity_view: view, timezone } = query;
      const days = rangeDays(range, timezone, nowMs);
      const activity = activityPeriod(view, timezone, nowMs);
      const figures = await usage.scriptFigures(workspaceId, [...days, ...activity.buckets]);
      const storage = await usage.storageFigures(workspaceId);
      const dayFigures = figures.slice(0, days.length);
      const bucketFigures = figures.slice(days.length);
      const summary = { range, view, timezone, days, dayFigures, activity, bucketFigures, storage, nowMs };
      return { data: presentUsageSummary(summary) };
    },
  }),

  operation({
    method: "GET",
    path: "/api/v1/usage/activity",
    operationId: "listActivity",
    summary: "List the workspace's activity; the published kinds of it never happen here, so the list is empty",
    access: READ,
    query: UsageActivityQuery,
    response: UsageActivityOut,
    pagination: UncountedPagination,
    async handle({ principal, query: { user_id, limit } }, { books }) {
      const workspaceId = selectedWorkspace(principal);
      if (user_id !== undefined && (await books.members.findRole(workspaceId, user_id)) === undefined) {
        const message = "user_id names no member of this workspace";
        throw new AppError("not_found", message, { details: [{ field: "user_id", message }] });
      }
      return { data: [], pagination: { next: null, prev: null, limit } };
    },
  }),

  operation({
    method: "GET",
    path: "/api/v1/usage/by-language",
    operationId: "getUsageByLanguage",
    summary: "Show usage by language; no language is detected here, so there are no rows",
    access: READ,
    query: UsageByLanguageQuery,
    response: UsageByLanguageOut,
    handle({ query, nowMs }) {
      const { range, activity_view: view, timezone } = query;
      const spans =
        view === undefined ? rangeDays(range, timezone, nowMs) : activityPeriod(view, timezone, nowMs).buckets;
      return { data: presentUsageByLanguage(query, spans) };
    },
  }),

  operation({
    method: "GET",
    path: STORAGE_EVENTS,
    operationId: "listStorageEvents",
    summary: "List the workspace's storage events, newest first: every charge, release and adjustment",
    access: READ,
    query: StorageEventsQuery,
    response: StorageEventList,
    pagination: UncountedPagination,
    async handle({ principal, query }, { books, config }) {
      const workspaceId = selectedWorkspace(principal);
      const { upload_id: uploadId, kind, cursor: beforeSeq, limit } = query;
      // One more than the page holds tells whether another page follows.
      const found = await books.ledger.list(workspaceId, { uploadId, kind, beforeSeq, limit: limit + 1 });
      const events = found.slice(0, limit);
      const next = found.length > limit ? (events.at(-1)?.seq ?? null) : null;
      return {
        data: events.map(presentStorageEvent),
        pagination: paginateEvents(publicPath(config, STORAGE_EVENTS), query, next),
      };
    },
  }),
];
