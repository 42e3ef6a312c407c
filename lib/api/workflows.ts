import type { z } from "zod";
import { PERMISSIONS } from "../books/permissions.ts";
import { giveWay } from "../pacer.ts";
import { type Operation, operation } from "./operation.ts";
import { Empty } from "./wire/common.ts";
import { CountedPagination } from "./wire/envelope.ts";
import { ID_KEY, pageStart, paginate, publicPath } from "./wire/pages.ts";
import { presentUpload, UploadList, WorkflowUploadsQuery } from "./wire/uploads.ts";
import {
  CreateWorkflowBody,
  ListWorkflowsQuery,
  PatchWorkflowBody,
  presentListedWorkflow,
  presentWorkflow,
  WORKFLOW_KEY,
  WorkflowList,
  WorkflowOut,
  WorkflowParams,
} from "./wire/workflows.ts";

const WORKFLOWS = "/api/v1/workflows";
const WORKFLOW = `${WORKFLOWS}/:workflow_id`;
const READ = PERMISSIONS.readWorkflows;
const WRITE = PERMISSIONS.writeWorkflows;

/** Workflows, as far as uploads need them: nothing runs here. */
export const workflowOperations: readonly Operation[] = [
  operation({
    method: "POST",
    path: WORKFLOWS,
    operationId: "createWorkflow",
    summary: "Create a workflow",
    access: WRITE,
    body: CreateWorkflowBody,
    status: 201,
    response: WorkflowOut,
    errors: ["insufficient_storage", "storage_limit_exceeded"],
    async handle({ principal, body }, { books }) {
      return { data: presentWorkflow(await books.workflows.create(principal, body)) };
    },
  }),

  operation({
    method: "GET",
    path: WORKFLOWS,
    operationId: "listWorkflows",
    summary: "List the workspace's workflows",
    access: READ,
    query: ListWorkflowsQuery,
    response: WorkflowList,
    pagination: CountedPagination,
    async handle({ principal, query }, { books, config }) {
      const { search, include_definition: withDefinitions = false } = query;
      const { lastKey: after, ...rows } = pageStart(query);
      const filter = { search, order: orderOf(query.sort, query.order), after, ...rows, withDefinitions };
      const page = asksForRuns(query)
        ? { workflows: [], total: 0, nextAfter: null }
        : await books.workflows.list(principal, filter);
      const { workflows, total, nextAfter: nextKey } = page;
      const data: z.infer<typeof WorkflowList> = [];
      for (const workflow of workflows) {
        data.push(presentListedWorkflow(workflow, { withDefinition: withDefinitions }));
        // A definition may take a millisecond to parse.
        if (withDefinitions) await giveWay(principal.workspaceId ?? principal.userId);
      }
      return { data, pagination: paginate(WORKFLOW_KEY, publicPath(config, WORKFLOWS), query, { nextKey, total }) };
    },
  }),

  operation({
    method: "GET",
    path: WORKFLOW,
    operationId: "getWorkflow",
    summary: "Show a workflow",
    access: READ,
    params: WorkflowParams,
    response: WorkflowOut,
    handle: async ({ principal, params }, { books }) => ({
      data: presentWorkflow(await books.workflows.find(principal, params.workflow_id)),
    }),
  }),

  operation({
    method: "PATCH",
    path: WORKFLOW,
    operationId: "patchWorkflow",
    summary: "Change a workflow's name, description or definition",
    access: WRITE,
    params: WorkflowParams,
    body: PatchWorkflowBody,
    response: WorkflowOut,
    errors: ["insufficient_storage"],
    async handle({ principal, params, body }, { books }) {
      return { data: presentWorkflow(await books.workflows.patch(principal, params.workflow_id, body)) };
    },
  }),

  operation({
    method: "DELETE",
    path: WORKFLOW,
    operationId: "deleteWorkflow",
    summary: "Delete a workflow; its uploads stay and can be deleted one by one",
    access: WRITE,
    params: WorkflowParams,
    response: Empty,
    async handle({ principal, params }, { books }) {
      await books.workflows.remove(principal, params.workflow_id);
      return { data: {} };
    },
  }),

  operation({
    method: "GET",
    path: `${WORKFLOW}/uploads`,
    operationId: "listWorkflowUploads",
    summary: "List a workflow's confirmed uploads, newest first",
    access: READ,
    params: WorkflowParams,
    query: WorkflowUploadsQuery,
    response: UploadList,
    pagination: CountedPagination,
    async handle({ principal, params, query, nowMs }, { books, objects, config }) {
      const workflow = await books.workflows.find(principal, params.workflow_id);
      const { lastKey: beforeId, ...rows } = pageStart(query);
      const page = await books.uploads.listOfWorkflow(principal, workflow, { beforeId, ...rows });
      const { nextBeforeId: nextKey, total } = page;
      const path = publicPath(config, `${WORKFLOWS}/${workflow.workflowId}/uploads`);
      const url = { expiresAtMs: nowMs + config.downloadUrlTtlMs };
      return {
        data: page.uploads.map((upload) => presentUpload(upload, objects, url)),
        pagination: paginate(ID_KEY, path, query, { nextKey, total }),
      };
    },
  }),
];

/** Whether a list is filtered by runs. Every workflow here is a draft that never ran, so such a filter matches none. */
function asksForRuns(query: z.infer<typeof ListWorkflowsQuery>): boolean {
  const { status, last_run_after, last_run_before, has_failed_run } = query;
  return (
    (status !== undefined && status !== "draft") ||
    last_run_after !== undefined ||
    last_run_before !== undefined ||
    has_failed_run === true
  );
}

/** Pairs the repeated `sort` and `order` parameters. All counts of runs are equal, so they order nothing. */
function orderOf(
  sort: readonly string[],
  order: readonly string[],
): { by: "name" | "updated_at"; direction: "asc" | "desc" }[] {
  const terms = sort.map((by, i) => ({ by, direction: order[i] === "asc" ? ("asc" as const) : ("desc" as const) }));
  const wanted = terms.flatMap(({ by, direction }) =>
    by === "name" || by === "updated_at" ? [{ by, direction } as const] : [],
  );
  if (wanted.length > 0) return wanted;
  return [{ by: "updated_at", direction: sort.length === 0 && order[0] === "asc" ? "asc" : "desc" }];
}
