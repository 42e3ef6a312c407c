import type { Member } from "../core/members.ts";
import { PERMISSIONS } from "../core/permissions.ts";
import { type Route, route } from "../http/routes.ts";
import { timestamp } from "../timestamp.ts";
import type { RouteParts } from "./routes.ts";
import { AddMemberBody, MemberParams, SetRoleBody, WorkspaceParams } from "./schemas_workspaces.ts";

const MEMBERS = "/api/v1/workspaces/:workspace_id/members";
const MEMBER = `${MEMBERS}/:member_id`;

/** The members of a workspace. A member's id is the user's. */
export function memberRoutes({ core }: RouteParts): Route[] {
  const { members } = core;

  return [
    route({
      method: "GET",
      path: MEMBERS,
      summary: "List a workspace's members: the caller, then admins, then the others; all at once",
      access: PERMISSIONS.manageMembers,
      params: WorkspaceParams,
      async handle({ principal, params }) {
        const found = await members.list(principal, params.workspace_id);
        return {
          data: found.map(presentMember),
          pagination: { next: null, prev: null, limit: found.length, total: found.length },
        };
      },
    }),

    route({
      method: "POST",
      path: MEMBERS,
      summary: "Add someone who has signed in before, by user id or e-mail address; for admins",
      access: PERMISSIONS.manageMembers,
      params: WorkspaceParams,
      body: AddMemberBody,
      async handle({ principal, params, body: { user_id: userId, email, role } }) {
        const member = await members.add(principal, params.workspace_id, { userId, email, role });
        return { status: 201, data: presentMember(member) };
      },
    }),

    route({
      method: "PATCH",
      path: MEMBER,
      summary: "Change a member's role; for admins",
      access: PERMISSIONS.manageMembers,
      params: MemberParams,
      body: SetRoleBody,
      async handle({ principal, params, body: { role } }) {
        const member = await members.setRole(principal, params.workspace_id, { userId: params.member_id, role });
        return { data: presentMember(member) };
      },
    }),

    route({
      method: "DELETE",
      path: MEMBER,
      summary: "Remove a member; for admins, and for everyone who leaves",
      access: PERMISSIONS.manageMembers,
      params: MemberParams,
      async handle({ principal, params }) {
        await members.remove(principal, params.workspace_id, params.member_id);
        return { data: {} };
      },
    }),
  ];
}

function presentMember({ userId, email, name, role, createdAtMs }: Member): Record<string, unknown> {
  return {
    id: userId,
    user_id: userId,
    // Clients insist on a string.
    email: email ?? "",
    // As the identity provider has it: where a name ends and another begins is not known here.
    first_name: name,
    last_name: null,
    image_url: null,
    role,
    last_active_at: null,
    status: "active",
    created_at: timestamp(createdAtMs),
  };
}
