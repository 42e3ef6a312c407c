import { rolesFrom } from "../permissions.ts";
import type { Principal, Role } from "../principals.ts";

/**
 * SQL that is true if `:userId` has at least this role in the workspace of `column`, and the workspace is not deleted. The
 * column must be named with its table: alone it would mean the subquery's own. Subqueries, not joins: SQLite plans a join
 * with a parameter anew each time it runs.
 */
export function hasRoleSql(column: `${string}.${string}`, needed: Role): string {
  const roles = rolesFrom(needed)
    .map((role) => `'${role}'`)
    .join(", ");
  return `(EXISTS (SELECT 1 FROM memberships m
                     WHERE m.workspace_id = ${column} AND m.user_id = :userId AND m.role IN (${roles}))
           AND (SELECT w.deleted_at_ms IS NULL FROM workspaces w WHERE w.id = ${column}))`;
}

/** The parameters of the SQL below. */
export interface SessionParams {
  userId: string;
  /** The selected workspace, if any: the session then sees nothing of others. */
  selectedId: string | null;
}

const inSelectedSql = "(:selectedId IS NULL OR workspace_id IS NULL OR workspace_id = :selectedId)";

/** True for the uploads that a session may see: its own personal ones, and all in workspaces that its user is a member of. */
export const SEES_UPLOAD_SQL = `
  ${inSelectedSql}
  AND CASE WHEN workspace_id IS NULL THEN user_id = :userId ELSE ${hasRoleSql("uploads.workspace_id", "viewer")} END`;

/**
 * True for the uploads that a session may confirm and delete: its own, and those of workspaces in which its user is an editor
 * or admin. Uploads stay with the workspace, which pays for them, when a member leaves.
 */
export const CHANGES_UPLOAD_SQL = `
  ${inSelectedSql}
  AND CASE WHEN workspace_id IS NULL THEN user_id = :userId
           ELSE ${hasRoleSql("uploads.workspace_id", "editor")} OR user_id = :userId AND ${hasRoleSql("uploads.workspace_id", "viewer")} END`;

/** The parameters of a session for the SQL above. */
export function sessionParams({ userId, workspaceId }: Principal): SessionParams {
  return { userId, selectedId: workspaceId };
}
