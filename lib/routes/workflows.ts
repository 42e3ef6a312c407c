import { PERMISSIONS } from "../core/permissions.ts";
import { type Route, route } from "../http/routes.ts";
import { giveWay } from "../pacer.ts";
import { pageStart, paginateByKey } from "./keyed_pages.ts";
import { paginate, presentUpload, presentWorkflow } from "./present.ts";
import type { RouteParts } from "./routes.ts";
import { CreateWorkflowBody, ListWorkflowsQuery, PatchWorkflowBody, WorkflowParams } from "./schemas.ts";
import { WorkflowUploadsQuery } from "./schemas_uploads.ts";

const WORKFLOWS = "/api/v1/workflows";
const WORKFLOW = "/api/v1/workflows/:workflow_id";
const READ = PERMISSIONS.readWorkflows;
const WRITE = PERMISSIONS.writeWorkflows;

/** Workflows, as far as uploads need them: they are never run here. */
export function workflowRoutes({ core, objects, config }: RouteParts): Route[] {
  const { contexts, uploads } = core;

  return [
    route({
      method: "POST",
      path: WORKFLOWS,
      summary: "Create a workflow",
      access: WRITE,
      body: CreateWorkflowBody,
      async handle({ principal, body }) {
        const workflow = await contexts.createWorkflow(principal, body);
        return { status: 201, data: presentWorkflow(workflow, { withDefinition: true }) };
      },
    }),

    route({
      method: "GET",
      path: WORKFLOWS,
      summary: "List the workspace's workflows",
      access: READ,
      query: ListWorkflowsQuery,
      async handle({ principal, query }) {
        const { offset, limit, search, include_definition: withDefinitions = false } = query;
        const filter = { search, order: orderOf(query.sort, query.order), offset, limit, withDefinitions };
        const { workflows, total } = asksForRuns(query)
          ? { workflows: [], total: 0 }
          : await contexts.listWorkflows(principal, filter);
        const data: unknown[] = [];
        for (const workflow of workflows) {
          data.push(presentWorkflow(workflow, { withDefinition: withDefinitions }));
          // A definition may take a millisecond to parse.
          if (withDefinitions) await giveWay(principal.workspaceId ?? principal.userId);
        }
        return { data, pagination: paginate(WORKFLOWS, query, { offset, limit, total }) };
      },
    }),

    route({
      method: "GET",
      path: WORKFLOW,
      summary: "Show a workflow",
      access: READ,
      params: WorkflowParams,
      handle({ principal, params }) {
        const workflow = contexts.findWorkflow(principal, params.workflow_id);
        return { data: presentWorkflow(workflow, { withDefinition: true }) };
      },
    }),

    route({
      method: "PATCH",
      path: WORKFLOW,
      summary: "Change a workflow's name, description or definition",
      access: WRITE,
      params: WorkflowParams,
      body: PatchWorkflowBody,
      async handle({ principal, params, body }) {
        const workflow = await contexts.patchWorkflow(principal, params.workflow_id, body);
        return { data: presentWorkflow(workflow, { withDefinition: true }) };
      },
    }),

    route({
      method: "DELETE",
      path: WORKFLOW,
      summary: "Delete a workflow; its uploads stay and can be deleted one by one",
      access: WRITE,
      params: WorkflowParams,
      async handle({ principal, params }) {
        await contexts.removeWorkflow(principal, params.workflow_id);
        return { data: {} };
      },
    }),

    route({
      method: "GET",
      path: `${WORKFLOW}/uploads`,
      summary: "List a workflow's confirmed uploads, newest first",
      access: READ,
      params: WorkflowParams,
      query: WorkflowUploadsQuery,
      async handle({ principal, params, query, nowMs }) {
        const workflow = contexts.findWorkflow(principal, params.workflow_id);
        const page = await uploads.listOfWorkflow(principal, workflow, pageStart(query));
        const urlExpiresAtMs = nowMs + config.downloadUrlTtlSeconds * 1000;
        return {
          data: page.uploads.map((upload) => presentUpload(upload, objects, urlExpiresAtMs)),
          pagination: paginateByKey(`${WORKFLOWS}/${workflow.workflowId}/uploads`, query, page),
        };
      },
    }),
  ];
}

type Query = {
  status?: string | undefined;
  last_run_after?: string | undefined;
  last_run_before?: string | undefined;
  has_failed_run?: boolean | undefined;
};

/** Nothing is ever run here: every workflow is a draft that never ran, so a filter by runs matches none. */
function asksForRuns({ status, last_run_after, last_run_before, has_failed_run }: Query): boolean {
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
