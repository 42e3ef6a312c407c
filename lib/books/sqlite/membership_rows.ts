import type { Member } from "../members.ts";
import type { Role } from "../principals.ts";
import type { Db } from "./db/db.ts";

export interface MembershipId {
  workspaceId: string;
  userId: string;
}

export type MembershipRows = ReturnType<typeof createMembershipRows>;

/** The table `memberships` and its only writer. Used inside transactions. */
export function createMembershipRows(db: Db) {
  const columns = `user_id AS userId, role, m.created_at_ms AS createdAtMs,
    (SELECT email FROM users WHERE id = user_id) AS email, (SELECT name FROM users WHERE id = user_id) AS name`;
  const selectOne = db.prepare<MembershipId, Member>(`
    SELECT ${columns} FROM memberships m WHERE workspace_id = :workspaceId AND user_id = :userId`);
  const selectRole = db.prepare<MembershipId, { role: Role }>(`
    SELECT role FROM memberships m
     WHERE workspace_id = :workspaceId AND user_id = :userId
       AND (SELECT deleted_at_ms IS NULL FROM workspaces WHERE id = m.workspace_id)`);
  const selectMembers = db.prepare<{ workspaceId: string; afterId: string; rows: number }, Member>(`
    SELECT ${columns} FROM memberships m
     WHERE workspace_id = :workspaceId AND user_id > :afterId ORDER BY user_id LIMIT :rows`);
  const selectWorkspaces = db.prepare<
    { userId: string; afterId: string; rows: number },
    { workspaceId: string; exists: number }
  >(`
    SELECT workspace_id AS workspaceId,
           (SELECT deleted_at_ms IS NULL FROM workspaces WHERE id = m.workspace_id) AS "exists"
      FROM memberships m
     WHERE user_id = :userId AND workspace_id > :afterId ORDER BY workspace_id LIMIT :rows`);
  const count = db.prepare<[string], { members: number }>(
    "SELECT count(*) AS members FROM memberships WHERE workspace_id = ?",
  );
  const selectOtherAdmin = db.prepare<MembershipId & { signsIn: number }>(`
    SELECT 1 FROM memberships m
     WHERE workspace_id = :workspaceId AND role = 'admin' AND user_id <> :userId
       AND (NOT :signsIn OR (SELECT external_id IS NOT NULL FROM users WHERE id = m.user_id))
     LIMIT 1`);
  const insert = db.prepare<MembershipId & { role: Role; nowMs: number }>(`
    INSERT INTO memberships (workspace_id, user_id, role, created_at_ms) VALUES (:workspaceId, :userId, :role, :nowMs)`);
  const updateRole = db.prepare<MembershipId & { role: Role }>(`
    UPDATE memberships SET role = :role WHERE workspace_id = :workspaceId AND user_id = :userId`);
  const deleteOne = db.prepare<MembershipId>(
    "DELETE FROM memberships WHERE workspace_id = :workspaceId AND user_id = :userId",
  );
  const deleteAll = db.prepare<[string]>("DELETE FROM memberships WHERE workspace_id = ?");

  return {
    find: (id: MembershipId): Member | undefined => selectOne.get(id),
    /** Undefined if the user is no member, or the workspace is deleted. */
    findRole: (workspaceId: string, userId: string): Role | undefined => selectRole.get({ workspaceId, userId })?.role,
    /** A step of a workspace's members, by user id. */
    listMembers: (step: Parameters<typeof selectMembers.all>[0]) => selectMembers.all(step),
    /** A step of a user's workspaces, by workspace id. `exists` is 0 for deleted ones. */
    listWorkspaces: (step: Parameters<typeof selectWorkspaces.all>[0]) => selectWorkspaces.all(step),
    count: (workspaceId: string): number => count.get(workspaceId)?.members ?? 0,
    /** Whether there is another admin. With `signsIn`, owners created by the command line do not count: they cannot sign in. */
    hasOtherAdmin: (id: MembershipId, { signsIn }: { signsIn: boolean }): boolean =>
      selectOtherAdmin.get({ ...id, signsIn: Number(signsIn) }) !== undefined,
    insert: (row: Parameters<typeof insert.run>[0]) => void insert.run(row),
    setRole: (row: Parameters<typeof updateRole.run>[0]) => void updateRole.run(row),
    remove: (id: MembershipId) => void deleteOne.run(id),
    removeAll: (workspaceId: string) => void deleteAll.run(workspaceId),
  };
}
