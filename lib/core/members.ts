import type { Db } from "../db/db.ts";
import { AppError, invalidField } from "../errors.ts";
import { giveWay } from "../pacer.ts";
import { checkRole } from "./permissions.ts";
import type { Role } from "./principals.ts";
import { noSuchWorkspace, noWorkspace, type Workspaces } from "./workspaces.ts";

/** Members of one workspace. The whole list is answered at once, as clients expect it, so it has to end. */
const MEMBERS_MAX = 1_000;

/** Members that one statement reads: 1 ms or so. */
const STEP_ROWS = 200;

export interface Member {
  userId: string;
  email: string | null;
  name: string | null;
  role: Role;
  createdAtMs: number;
}

/** Someone who was seen already, by id or by address. */
export interface NewMember {
  userId?: string | undefined;
  email?: string | undefined;
  role: Role;
}

/** Who manages members: a session's user, or an administrator at the command line. */
export type Manager = { userId: string } | "administrator";

export type Members = ReturnType<typeof createMembers>;

/** Who belongs to a workspace, and as what. Every rule is looked at inside the transaction that changes something. */
export function createMembers(db: Db, { workspaces, now }: { workspaces: Workspaces; now: () => number }) {
  const columns = `user_id AS userId, role, m.created_at_ms AS createdAtMs,
    (SELECT email FROM users WHERE id = user_id) AS email, (SELECT name FROM users WHERE id = user_id) AS name`;
  const selectStep = db.prepare<{ workspaceId: string; afterId: string; rows: number }, Member>(`
    SELECT ${columns} FROM memberships m
     WHERE workspace_id = :workspaceId AND user_id > :afterId ORDER BY user_id LIMIT :rows`);
  const selectOne = db.prepare<{ workspaceId: string; userId: string }, Member>(`
    SELECT ${columns} FROM memberships m WHERE workspace_id = :workspaceId AND user_id = :userId`);
  const count = db.prepare<[string], { members: number }>(
    "SELECT count(*) AS members FROM memberships WHERE workspace_id = ?",
  );
  // The owner that the command line makes is a name in the books: nobody signs in as it.
  const selectOtherAdmin = db.prepare<{ workspaceId: string; userId: string; signsIn: number }, { found: number }>(`
    SELECT 1 AS found FROM memberships m
     WHERE workspace_id = :workspaceId AND role = 'admin' AND user_id <> :userId
       AND (NOT :signsIn OR (SELECT external_id IS NOT NULL FROM users WHERE id = m.user_id))
     LIMIT 1`);
  const selectUser = db.prepare<[string], { userId: string }>("SELECT id AS userId FROM users WHERE id = ?");
  const selectByEmail = db.prepare<[string], { userId: string }>(
    "SELECT id AS userId FROM users WHERE lower(email) = lower(?) AND email IS NOT NULL LIMIT 2",
  );
  const insert = db.prepare<{ workspaceId: string; userId: string; role: Role; nowMs: number }>(`
    INSERT INTO memberships (workspace_id, user_id, role, created_at_ms) VALUES (:workspaceId, :userId, :role, :nowMs)`);
  const updateRole = db.prepare<{ workspaceId: string; userId: string; role: Role }>(`
    UPDATE memberships SET role = :role WHERE workspace_id = :workspaceId AND user_id = :userId`);
  const deleteOne = db.prepare<{ workspaceId: string; userId: string }>(
    "DELETE FROM memberships WHERE workspace_id = :workspaceId AND user_id = :userId",
  );

  /** All members: the one who asks, then admins, then the others, each in the order of joining. Throws `not_found` for others. */
  async function list(manager: Manager, workspaceId: string): Promise<Member[]> {
    if (manager === "administrator") checkThere(workspaceId);
    else roleOf(manager, workspaceId);
    const found: Member[] = [];
    for (let afterId = ""; ; ) {
      const step = selectStep.all({ workspaceId, afterId, rows: STEP_ROWS });
      found.push(...step);
      const last = step.at(-1);
      if (last === undefined || step.length < STEP_ROWS) break;
      afterId = last.userId;
      await giveWay(workspaceId);
    }
    const rank = ({ userId, role }: Member): number => {
      if (manager !== "administrator" && userId === manager.userId) return 0;
      return role === "admin" ? 1 : 2;
    };
    // Sorting is stable: those who joined at one moment stay in the order of their ids.
    return found.sort((a, b) => rank(a) - rank(b) || a.createdAtMs - b.createdAtMs);
  }

  /**
   * Adds someone who has been here before. Throws `not_found` (workspace or user), `forbidden` (no admin), `conflict` where
   * they are a member already, `validation_error` where the address is more than one user's, `insufficient_storage`.
   */
  async function add(manager: Manager, workspaceId: string, { userId, email, role }: NewMember): Promise<Member> {
    // An administrator at the command line sees to the disk.
    if (manager !== "administrator") db.checkFreeSpace();
    return db.write(() => {
      checkAdmin(manager, workspaceId);
      const member = { workspaceId, userId: knownUser({ userId, email }) };
      if (selectOne.get(member) !== undefined) {
        throw new AppError("conflict", "This user is a member already: change the role instead");
      }
      if ((count.get(workspaceId)?.members ?? 0) >= MEMBERS_MAX) {
        throw invalidField("workspace_id", `the workspace has ${MEMBERS_MAX} members, which is the most allowed`);
      }
      insert.run({ ...member, role, nowMs: now() });
      return there(member);
    });
  }

  /**
   * Changes a member's role. Throws `not_found` (workspace or member), `forbidden` (no admin), `conflict` for the last admin
   * and for the owner, whom only the owner and an administrator may demote.
   */
  function setRole(manager: Manager, workspaceId: string, change: { userId: string; role: Role }): Promise<Member> {
    const { userId, role } = change;
    return db.write(() => {
      checkAdmin(manager, workspaceId);
      const member = there({ workspaceId, userId });
      if (role !== "admin" && member.role === "admin") checkMayLose(manager, { workspaceId, userId });
      updateRole.run({ workspaceId, userId, role });
      return { ...member, role };
    });
  }

  /** Removes a member; everyone may leave. Throws as `setRole` does. */
  function remove(manager: Manager, workspaceId: string, userId: string): Promise<void> {
    return db.write(() => {
      const leaves = manager !== "administrator" && manager.userId === userId;
      if (leaves) roleOf(manager, workspaceId);
      else checkAdmin(manager, workspaceId);
      const member = there({ workspaceId, userId });
      if (member.role === "admin" || !leaves) checkMayLose(manager, { workspaceId, userId });
      deleteOne.run({ workspaceId, userId });
    });
  }

  /** Throws where the workspace would be left without an admin, or where someone else would unseat the owner. */
  function checkMayLose(manager: Manager, { workspaceId, userId }: { workspaceId: string; userId: string }): void {
    const isOwner = workspaces.find(workspaceId)?.createdBy === userId;
    if (isOwner && manager !== "administrator" && manager.userId !== userId) {
      throw new AppError("conflict", "The owner of a workspace stays its admin: only the owner can step back");
    }
    const isAdmin = selectOne.get({ workspaceId, userId })?.role === "admin";
    const signsIn = manager === "administrator" ? 0 : 1;
    if (isAdmin && selectOtherAdmin.get({ workspaceId, userId, signsIn }) === undefined) {
      throw new AppError("conflict", "This is the last admin of the workspace: make another member admin first");
    }
  }

  function checkAdmin(manager: Manager, workspaceId: string): void {
    if (manager === "administrator") checkThere(workspaceId);
    else checkRole(roleOf(manager, workspaceId), "admin");
  }

  function checkThere(workspaceId: string): void {
    if (workspaces.find(workspaceId) === undefined) throw noSuchWorkspace(workspaceId);
  }

  function roleOf({ userId }: { userId: string }, workspaceId: string): Role {
    const role = workspaces.roleOf(workspaceId, userId);
    if (role === undefined) throw noWorkspace();
    return role;
  }

  function there(member: { workspaceId: string; userId: string }): Member {
    const found = selectOne.get(member);
    if (found === undefined) throw new AppError("not_found", "There is no such member of this workspace");
    return found;
  }

  function knownUser({ userId, email }: Pick<NewMember, "userId" | "email">): string {
    const field = userId !== undefined ? "user_id" : "email";
    const found = userId !== undefined ? [selectUser.get(userId)] : selectByEmail.all(email ?? "");
    if (found.length > 1) {
      throw invalidField(field, "is the address of more than one user: give the user_id instead");
    }
    const user = found[0];
    if (user !== undefined) return user.userId;
    const message = `${field} names nobody who has used this service: they have to sign in once before`;
    throw new AppError("not_found", message, { details: [{ field, message }] });
  }

  return { list, add, setRole, remove };
}
