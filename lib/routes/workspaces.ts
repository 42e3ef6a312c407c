import { PERMISSIONS } from "../core/permissions.ts";
import { presentLimits } from "../core/plan_limits.ts";
import type { Workspace } from "../core/workspaces.ts";
import { type Route, route } from "../http/routes.ts";
import { timestamp } from "../timestamp.ts";
import { paginate } from "./present.ts";
import type { RouteParts } from "./routes.ts";
import { CreateWorkspaceBody, ListWorkspacesQuery, PatchWorkspaceBody, WorkspaceParams } from "./schemas_workspaces.ts";

const WORKSPACES = "/api/v1/workspaces";
const WORKSPACE = "/api/v1/workspaces/:workspace_id";

/** Workspaces: made, shown, changed and deleted by people; an API key sees its own. */
export function workspaceRoutes({ core, cleaner, config }: RouteParts): Route[] {
  const { workspaces } = core;

  return [
    route({
      method: "GET",
      path: WORKSPACES,
      summary: "List the workspaces that the caller is a member of; for an API key its own",
      access: PERMISSIONS.readWorkspaces,
      query: ListWorkspacesQuery,
      async handle({ principal, query }) {
        const { offset, limit } = query;
        const { workspaces: found, total } = await workspaces.listVisible(principal, { offset, limit });
        return { data: found.map(presentWorkspace), pagination: paginate(WORKSPACES, query, { offset, limit, total }) };
      },
    }),

    route({
      method: "POST",
      path: WORKSPACES,
      summary: "Make a workspace; its maker becomes its owner and admin",
      access: PERMISSIONS.manageWorkspaces,
      body: CreateWorkspaceBody,
      async handle({ principal: { userId }, body: { name, slug, color_idx } }) {
        const workspace = await workspaces.createOwned(
          {
            name,
            slug: slug ?? undefined,
            colorIdx: color_idx ?? 0,
            userId,
            storageBytesQuota: config.defaultQuotaBytes,
          },
          config.workspacesPerOwnerMax,
        );
        return { status: 201, data: presentWorkspace(workspace) };
      },
    }),

    route({
      method: "GET",
      path: WORKSPACE,
      summary: "Show a workspace",
      access: PERMISSIONS.readWorkspaces,
      params: WorkspaceParams,
      handle: ({ principal, params }) => ({
        data: presentWorkspace(workspaces.findVisible(principal, params.workspace_id)),
      }),
    }),

    route({
      method: "PATCH",
      path: WORKSPACE,
      summary: "Change a workspace's name, slug, colour or routing; for its admins",
      access: PERMISSIONS.manageWorkspaces,
      params: WorkspaceParams,
      body: PatchWorkspaceBody,
      async handle({ principal, params, body }) {
        const workspace = await workspaces.patch(principal, params.workspace_id, {
          name: body.name,
          slug: body.slug,
          colorIdx: body.color_idx,
          routingPriceSensitivity: body.routing_price_sensitivity,
          routingLlmFit: body.routing_llm_fit,
        });
        return { data: presentWorkspace(workspace) };
      },
    }),

    route({
      method: "DELETE",
      path: WORKSPACE,
      summary: "Delete a workspace: it is refused at once, its uploads are removed in the background; for its owner",
      access: PERMISSIONS.manageWorkspaces,
      params: WorkspaceParams,
      async handle({ principal, params }) {
        await workspaces.remove(principal, params.workspace_id);
        return { data: {}, after: cleaner.wake };
      },
    }),

    route({
      method: "GET",
      path: `${WORKSPACE}/settings`,
      summary: "Show a workspace's settings; nothing here has any, so they are null",
      access: PERMISSIONS.readWorkspaceSettings,
      params: WorkspaceParams,
      handle({ principal, params }) {
        workspaces.findVisible(principal, params.workspace_id);
        return { data: { default_language: null, theme: null } };
      },
    }),

    route({
      method: "GET",
      path: `${WORKSPACE}/plan`,
      summary: "Show the limits that a workspace is bound by",
      access: PERMISSIONS.readWorkspaces,
      params: WorkspaceParams,
      handle: ({ principal, params }) => ({
        data: presentLimits(config, workspaces.findVisible(principal, params.workspace_id)),
      }),
    }),
  ];
}

function presentWorkspace(workspace: Workspace): Record<string, unknown> {
  return {
    id: workspace.workspaceId,
    name: workspace.name,
    slug: workspace.slug,
    color_idx: workspace.colorIdx,
    created_by: workspace.createdBy,
    organization_id: null,
    created_at: timestamp(workspace.createdAtMs),
    updated_at: timestamp(workspace.updatedAtMs),
    routing_price_sensitivity: workspace.routingPriceSensitivity,
    routing_llm_fit: workspace.routingLlmFit,
  };
}
