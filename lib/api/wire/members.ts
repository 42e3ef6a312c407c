import * as z from "zod";
import type { Member } from "../../books/members.ts";
import { ROLES } from "../../books/principals.ts";
import { timestamp } from "../../timestamp.ts";
import { bodyError, id, oneOf, pathId, time, uuid } from "./common.ts";

/** RFC 5321: the longest address. */
const EMAIL_CHARS_MAX = 320;

export const MemberParams = z.object({ workspace_id: pathId, member_id: pathId });

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

export const MemberOut = z.strictObject({
  /** The user's: a membership has no id of its own. */
  id,
  user_id: id,
  /** Empty if it is not known. */
  email: z.string(),
  first_name: z.string().nullable(),
  last_name: z.null(),
  image_url: z.null(),
  role: z.enum(ROLES),
  last_active_at: z.null(),
  status: z.literal("active"),
  created_at: time,
});

export const MemberList = z.array(MemberOut);

/** Presents a member. */
export function presentMember({ userId, email, name, role, createdAtMs }: Member): z.infer<typeof MemberOut> {
  return {
    id: userId,
    user_id: userId,
    // Clients insist on a string.
    email: email ?? "",
    // The whole name as the identity provider has it, because nothing tells the first name from the rest.
    first_name: name,
    last_name: null,
    image_url: null,
    role,
    last_active_at: null,
    status: "active",
    created_at: timestamp(createdAtMs),
  };
}
