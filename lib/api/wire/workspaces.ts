import * as z from "zod";
import { COLOR_IDX_MAX, WORKSPACE_NAME_CHARS_MAX, type Workspace } from "../../books/workspaces.ts";
import { timestamp } from "../../timestamp.ts";
import { bodyError, id, pathId, queryOf, text, time } from "./common.ts";
import { BEGINS_TWICE, beginsOnce, ID_KEY, pageQuery } from "./pages.ts";

const WORKSPACES_LIMIT_DEFAULT = 20;

const colorError = `must be a whole number from 0 to ${COLOR_IDX_MAX}`;
const sensitivityError = "must be a number from 0.0 to 1.0";

const name = text("a name", { min: 1, max: WORKSPACE_NAME_CHARS_MAX });
const slug = z.string("must be a string");
const colorIdx = z.int(colorError).min(0, colorError).max(COLOR_IDX_MAX, colorError);

export const WorkspaceParams = z.object({ workspace_id: pathId });

export const ListWorkspacesQuery = queryOf(pageQuery(ID_KEY, { limitDefault: WORKSPACES_LIMIT_DEFAULT })).refine(
  beginsOnce,
  BEGINS_TWICE,
);

export const CreateWorkspaceBody = z.object({ name, slug: slug.nullish(), color_idx: colorIdx.nullish() }, bodyError);

export const PatchWorkspaceBody = z.object(
  {
    name: name.optional(),
    slug: slug.optional(),
    color_idx: colorIdx.optional(),
    routing_price_sensitivity: z.number(sensitivityError).min(0, sensitivityError).max(1, sensitivityError).optional(),
    routing_llm_fit: z.boolean("must be true or false").optional(),
  },
  bodyError,
);

export const WorkspaceOut = z.strictObject({
  id,
  name: z.string(),
  slug: z.string(),
  color_idx: z.int().min(0).max(COLOR_IDX_MAX),
  /** The owner. */
  created_by: id,
  organization_id: z.null(),
  created_at: time,
  updated_at: time,
  routing_price_sensitivity: z.number().min(0).max(1),
  routing_llm_fit: z.boolean(),
});

export const WorkspaceList = z.array(WorkspaceOut);

/** Clients expect the fields; nothing here has settings. */
export const WorkspaceSettingsOut = z.strictObject({ default_language: z.null(), theme: z.null() });

export const NO_SETTINGS: z.infer<typeof WorkspaceSettingsOut> = { default_language: null, theme: null };

/** Presents a workspace. */
export function presentWorkspace(workspace: Workspace): z.infer<typeof WorkspaceOut> {
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
