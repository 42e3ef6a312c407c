import { giveWay } from "../../pacer.ts";
import {
  alreadyMember,
  ambiguousEmail,
  lastAdmin,
  MEMBERS_MAX,
  type Member,
  type Members,
  type NewMember,
  noMember,
  noUser,
  ownerStaysAdmin,
  sortMembers,
  tooManyMembers,
} from "../members.ts";
import { checkRole } from "../permissions.ts";
import type { Manager, Role } from "../principals.ts";
import { noSuchWorkspace, noWorkspace } from "../workspaces.ts";
import type { Db } from "./db/db.ts";
import type { MembershipId, MembershipRows } from "./membership_rows.ts";
import type { UserRows } from "./user_rows.ts";
import type { WorkspaceRows } from "./workspace_rows.ts";

/** Members that one statement reads: about 1 ms of work. */
const STEP_ROWS = 200;

export interface MembersParts {
  memberships: MembershipRows;
  users: UserRows;
  workspaces: WorkspaceRows;
  now: () => number;
}

export function createMembers(db: Db, { memberships, users, workspaces, now }: MembersParts): Members {
  async function findRole(workspaceId: string, userId: string): Promise<Role | undefined> {
    return memberships.findRole(workspaceId, userId);
  }

  async function list(manager: Manager, workspaceId: string): Promise<Member[]> {
    if (manager === "administrator") checkExists(workspaceId);
    else checkMember(manager, workspaceId);
    const members: Member[] = [];
    for (let afterId = ""; ; ) {
      const step = memberships.listMembers({ workspaceId, afterId, rows: STEP_ROWS });
      members.push(...step);
      const last = step.at(-1);
      if (last === undefined || step.length < STEP_ROWS) return sortMembers(members, manager);
      afterId = last.userId;
      await giveWay(workspaceId);
    }
  }

  async function add(manager: Manager, workspaceId: string, { userId, email, role }: NewMember): Promise<Member> {
    // An administrator at the command line watches the disk themselves.
    if (manager !== "administrator") db.checkFreeSpace();
    return db.write(() => {
      checkAdmin(manager, workspaceId);
      const member = { workspaceId, userId: findUser({ userId, email }) };
      if (memberships.find(member) !== undefined) throw alreadyMember();
      if (memberships.count(workspaceId) >= MEMBERS_MAX) throw tooManyMembers();
      memberships.insert({ ...member, role, nowMs: now() });
      return findMember(member);
    });
  }

  function setRole(manager: Manager, workspaceId: string, change: { userId: string; role: Role }): Promise<Member> {
    const { userId, role } = change;
    return db.write(() => {
      checkAdmin(manager, workspaceId);
      const member = findMember({ workspaceId, userId });
      if (role !== "admin" && member.role === "admin") checkMayLose(manager, { workspaceId, userId });
      memberships.setRole({ workspaceId, userId, role });
      return { ...member, role };
    });
  }

  function remove(manager: Manager, workspaceId: string, userId: string): Promise<void> {
    return db.write(() => {
      const isLeaving = manager !== "administrator" && manager.userId === userId;
      if (isLeaving) checkMember(manager, workspaceId);
      else checkAdmin(manager, workspaceId);
      const member = findMember({ workspaceId, userId });
      if (member.role === "admin" || !isLeaving) checkMayLose(manager, { workspaceId, userId });
      memberships.remove({ workspaceId, userId });
    });
  }

  /** Throws if the workspace would be left without an admin, or someone else would unseat the owner. */
  function checkMayLose(manager: Manager, member: MembershipId): void {
    const isOwner = workspaces.find(member.workspaceId)?.createdBy === member.userId;
    if (isOwner && manager !== "administrator" && manager.userId !== member.userId) throw ownerStaysAdmin();
    if (memberships.find(member)?.role !== "admin") return;
    // A person must leave behind an admin who can sign in; an administrator can always make another.
    const signsIn = manager !== "administrator";
    if (!memberships.hasOtherAdmin(member, { signsIn })) throw lastAdmin();
  }

  function checkAdmin(manager: Manager, workspaceId: string): void {
    if (manager === "administrator") checkExists(workspaceId);
    else checkRole(checkMember(manager, workspaceId), "admin");
  }

  function checkExists(workspaceId: string): void {
    if (workspaces.find(workspaceId) === undefined) throw noSuchWorkspace(workspaceId);
  }

  /** Returns the manager's role. */
  function checkMember({ userId }: { userId: string }, workspaceId: string): Role {
    const role = memberships.findRole(workspaceId, userId);
    if (role === undefined) throw noWorkspace();
    return role;
  }

  function findMember(id: MembershipId): Member {
    const member = memberships.find(id);
    if (member === undefined) throw noMember();
    return member;
  }

  function findUser({ userId, email = "" }: Pick<NewMember, "userId" | "email">): string {
    if (userId !== undefined) {
      if (!users.exists(userId)) throw noUser("user_id");
      return userId;
    }
    const [id, second] = users.findByEmail(email);
    if (second !== undefined) throw ambiguousEmail();
    if (id === undefined) throw noUser("email");
    return id;
  }

  return { findRole, list, add, setRole, remove };
}
