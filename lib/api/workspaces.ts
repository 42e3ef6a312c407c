import { PERMISSIONS } from "../books/permissions.ts";
import { type Operation, operation } from "./operation.ts";
import { PlanLimitsOut, presentLimits } from "./wire/account.ts";
import { Empty } from "./wire/common.ts";
import { CountedPagination } from "./wire/envelope.ts";
import { ID_KEY, pageStart, paginate, publicPath } from "./wire/pages.ts";
import {
  CreateWorkspaceBody,
  ListWorkspacesQuery,
  NO_SETTINGS,
  PatchWorkspaceBody,
  presentWorkspace,
  WorkspaceList,
  WorkspaceOut,
  WorkspaceParams,
  WorkspaceSettingsOut,
} from "./wire/workspaces.ts";

const WORKSPACES = "/api/v1/workspaces";
const WORKSPACE = `${WORKSPACES}/:workspace_id`;

/** Workspaces: people create, change and delete them; an API key sees its own. */
export const workspaceOperations: readonly Operation[] = [
  operation({
    method: "GET",
    path: WORKSPACES,
    operationId: "listWorkspaces",
    summary: "List the workspaces that the caller is a member of; for an API key its own",
    access: PERMISSIONS.readWorkspaces,
    query: ListWorkspacesQuery,
    response: WorkspaceList,
    pagination: CountedPagination,
    async handle({ principal, query }, { books, config }) {
      const { lastKey: afterId, ...rows } = pageStart(query);
      const page = await books.workspaces.listVisible(principal, { afterId, ...rows });
      const { nextAfterId: nextKey, total } = page;
      return {
        data: page.workspaces.map(presentWorkspace),
        pagination: paginate(ID_KEY, publicPath(config, WORKSPACES), query, { nextKey, total }),
      };
    },
  }),

  operation({
    method: "POST",
    path: WORKSPACES,
    operationId: "createWorkspace",
    summary: "Create a workspace; the caller becomes its owner and admin",
    access: PERMISSIONS.manageWorkspaces,
    body: CreateWorkspaceBody,
    status: 201,
    response: WorkspaceOut,
    errors: ["insufficient_storage", "workspace_limit_exceeded", "workspace_slug_taken"],
    async handle({ principal, body: { name, slug, color_idx } }, { books, config }) {
      const workspace = await books.workspaces.create(principal, {
        name,
        slug: slug ?? undefined,
        colorIdx: color_idx ?? undefined,
        storageBytesQuota: config.defaultQuotaBytes,
      });
      return { data: presentWorkspace(workspace) };
    },
  }),

  operation({
    method: "GET",
    path: WORKSPACE,
    operationId: "getWorkspace",
    summary: "Show a workspace",
    access: PERMISSIONS.readWorkspaces,
    params: WorkspaceParams,
    response: WorkspaceOut,
    errors: ["not_found"],
    handle: async ({ principal, params }, { books }) => ({
      data: presentWorkspace(await books.workspaces.findVisible(principal, params.workspace_id)),
    }),
  }),

  operation({
    method: "PATCH",
    path: WORKSPACE,
    operationId: "patchWorkspace",
    summary: "Change a workspace's name, slug, colour or routing; for its admins",
    access: PERMISSIONS.manageWorkspaces,
    params: WorkspaceParams,
    body: PatchWorkspaceBody,
    response: WorkspaceOut,
    errors: ["not_found", "workspace_slug_taken"],
    async handle({ principal, params, body }, { books }) {
      const workspace = await books.workspaces.patch(principal, params.workspace_id, {
        name: body.name,
        slug: body.slug,
        colorIdx: body.color_idx,
        routingPriceSensitivity: body.routing_price_sensitivity,
        routingLlmFit: body.routing_llm_fit,
      });
      return { data: presentWorkspace(workspace) };
    },
  }),

  operation({
    method: "DELETE",
    path: WORKSPACE,
    operationId: "deleteWorkspace",
    summary: "Delete a workspace: it is refused at once, its uploads are removed in the background; for its owner",
    access: PERMISSIONS.manageWorkspaces,
    params: WorkspaceParams,
    response: Empty,
    errors: ["not_found"],
    async handle({ principal, params }, { books, cleaner }) {
      await books.workspaces.remove(principal, params.workspace_id);
      return { data: {}, after: cleaner.wake };
    },
  }),

  operation({
    method: "GET",
    path: `${WORKSPACE}/settings`,
    operationId: "getWorkspaceSettings",
    summary: "Show a workspace's settings; nothing here has any, so they are null",
    access: PERMISSIONS.readWorkspaceSettings,
    params: WorkspaceParams,
    response: WorkspaceSettingsOut,
    errors: ["not_found"],
    async handle({ principal, params }, { books }) {
      await books.workspaces.findVisible(principal, params.workspace_id);
      return { data: NO_SETTINGS };
    },
  }),

  operation({
    method: "GET",
    path: `${WORKSPACE}/plan`,
    operationId: "getWorkspacePlan",
    summary: "Show the limits that a workspace is bound by",
    access: PERMISSIONS.readWorkspaces,
    params: WorkspaceParams,
    response: PlanLimitsOut,
    errors: ["not_found"],
    handle: async ({ principal, params }, { books, config }) => ({
      data: presentLimits(config, await books.workspaces.findVisible(principal, params.workspace_id)),
    }),
  }),
];
