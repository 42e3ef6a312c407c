import { PERMISSIONS } from "../books/permissions.ts";
import { type Operation, operation } from "./operation.ts";
import { Empty } from "./wire/common.ts";
import { CountedPagination } from "./wire/envelope.ts";
import { AddMemberBody, MemberList, MemberOut, MemberParams, presentMember, SetRoleBody } from "./wire/members.ts";
import { WorkspaceParams } from "./wire/workspaces.ts";

const MEMBERS = "/api/v1/workspaces/:workspace_id/members";
const MEMBER = `${MEMBERS}/:member_id`;

/** The members of a workspace. A member's id is the user's. */
export const memberOperations: readonly Operation[] = [
  operation({
    method: "GET",
    path: MEMBERS,
    operationId: "listMembers",
    summary: "List a workspace's members: the caller, then admins, then the others; all at once",
    access: PERMISSIONS.manageMembers,
    params: WorkspaceParams,
    response: MemberList,
    pagination: CountedPagination,
    errors: ["not_found"],
    async handle({ principal, params }, { books }) {
      const members = await books.members.list(principal, params.workspace_id);
      return {
        data: members.map(presentMember),
        pagination: { next: null, prev: null, limit: members.length, total: members.length },
      };
    },
  }),

  operation({
    method: "POST",
    path: MEMBERS,
    operationId: "addMember",
    summary: "Add someone who has signed in before, by user id or e-mail address; for admins",
    access: PERMISSIONS.manageMembers,
    params: WorkspaceParams,
    body: AddMemberBody,
    status: 201,
    response: MemberOut,
    errors: ["conflict", "insufficient_storage", "not_found"],
    async handle({ principal, params, body: { user_id: userId, email, role } }, { books }) {
      const member = await books.members.add(principal, params.workspace_id, { userId, email, role });
      return { data: presentMember(member) };
    },
  }),

  operation({
    method: "PATCH",
    path: MEMBER,
    operationId: "setMemberRole",
    summary: "Change a member's role; for admins",
    access: PERMISSIONS.manageMembers,
    params: MemberParams,
    body: SetRoleBody,
    response: MemberOut,
    errors: ["conflict", "not_found"],
    async handle({ principal, params, body: { role } }, { books }) {
      const member = await books.members.setRole(principal, params.workspace_id, { userId: params.member_id, role });
      return { data: presentMember(member) };
    },
  }),

  operation({
    method: "DELETE",
    path: MEMBER,
    operationId: "removeMember",
    summary: "Remove a member; for admins, and for everyone who leaves",
    access: PERMISSIONS.manageMembers,
    params: MemberParams,
    response: Empty,
    errors: ["conflict", "not_found"],
    async handle({ principal, params }, { books }) {
      await books.members.remove(principal, params.workspace_id, params.member_id);
      return { data: {} };
    },
  }),
];
