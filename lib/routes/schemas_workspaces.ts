import * as z from "zod";
import { ROLES } from "../core/principals.ts";
import { COLOR_IDX_MAX, WORKSPACE_NAME_CHARS_MAX } from "../core/workspaces.ts";
import { oneOf, PAGE_OFFSET_MAX, queryInteger, text, uuid } from "./schemas.ts";

const WORKSPACES_LIMIT_MAX = 100;
const WORKSPACES_LIMIT_DEFAULT = 20;
/** RFC 5321: the longest address. */
const EMAIL_CHARS_MAX = 320;

const bodyError = { error: "must be a JSON object" };
const colorError = `must be a whole number from 0 to ${COLOR_IDX_MAX}`;
const sensitivityError = "must be a number from 0.0 to 1.0";

const name = text("a name", { min: 1, max: WORKSPACE_NAME_CHARS_MAX });
const slug = z.string("must be a string");
const colorIdx = z.int(colorError).min(0, colorError).max(COLOR_IDX_MAX, colorError);

export const WorkspaceParams = z.object({ workspace_id: uuid });

export const MemberParams = z.object({ workspace_id: uuid, member_id: uuid });

export const ListWorkspacesQuery = z.object({
  offset: queryInteger(0, PAGE_OFFSET_MAX).default(0),
  limit: queryInteger(1, WORKSPACES_LIMIT_MAX).default(WORKSPACES_LIMIT_DEFAULT),
});

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

export const AddMemberBody = z
  .object(
    {
      user_id: uuid.optional(),
      email: z
        .string("must be a string")
        .trim()
        .max(EMAIL_CHARS_MAX, `must have at most ${EMAIL_CHARS_MAX} characters`)
        .regex(/^[^\s@]+@[^\s@]+$/, "must be an e-mail address")
        .optional(),
      role: oneOf(ROLES),
    },
    bodyError,
  )
  .refine(
    ({ user_id, email }) => (user_id === undefined) !== (email === undefined),
    "must have either user_id or email",
  );

export const SetRoleBody = z.object({ role: oneOf(ROLES) }, bodyError);
