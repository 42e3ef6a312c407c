import { AppError } from "../errors.ts";
import { type Principal, ROLES, type Role, type Scope } from "./principals.ts";

/** What a route asks for before its request is looked at. */
export interface Permission {
  /** What an API key needs; null: nothing but to be valid. */
  scope: Scope | null;
  /** What a session needs in the workspace that its header selects; null: nothing. */
  role: Role | null;
  /**
   * Whether a session's header selects the workspace, may be left out, or is not looked at because the path names the
   * workspace. Only the SQL that follows knows the role there.
   */
  workspace: "required" | "optional" | "in_path";
  /** An API key acts inside its workspace: it manages none. */
  sessionsOnly?: true;
}

const whoever = { scope: null, role: null, workspace: "optional" } as const;
const inPath = { scope: null, role: null, workspace: "in_path" } as const;
const management = { ...inPath, sessionsOnly: true } as const;

/**
 * Who may do what, in one place. What depends on the row (whose upload it is, what a confirm binds to) is decided by the
 * statement that reads or changes the row, with the SQL below. `docs/permissions.md` shows both.
 */
export const PERMISSIONS = {
  identify: whoever,
  /** A personal upload, of no workspace yet, asks for no role. */
  createUpload: { scope: "uploads:write", role: "editor", workspace: "optional" },
  /** The role is asked for in the workspace that is bound to. */
  confirmUpload: { scope: "uploads:write", role: null, workspace: "optional" },
  /** One's own asks for no role. */
  deleteUpload: { scope: "uploads:write", role: null, workspace: "optional" },
  readUploads: whoever,
  readWorkflows: { scope: "workflows:read", role: "viewer", workspace: "required" },
  writeWorkflows: { scope: "workflows:write", role: "editor", workspace: "required" },
  readUsage: { scope: "workspace:read", role: "viewer", workspace: "required" },
  readLimits: whoever,
  readWorkspaces: inPath,
  readWorkspaceSettings: { ...inPath, scope: "workspace:read" },
  manageWorkspaces: management,
  manageMembers: management,
} as const satisfies Record<string, Permission>;

/** Throws `forbidden` where the caller lacks the scope or the role, `bad_request` where a session selects no workspace and has to. */
export function authorize(principal: Principal, permission: Permission): void {
  const { scope, role, workspace, sessionsOnly } = permission;
  if (principal.authKind === "api_key") {
    if (sessionsOnly) {
      throw new AppError("forbidden", "This needs a session: an API key works inside its workspace and manages none");
    }
    if (scope !== null && !principal.scopes.includes(scope)) {
      throw new AppError("forbidden", `This API key lacks the scope "${scope}"`);
    }
    return;
  }
  if (workspace === "required") selectedWorkspace(principal);
  if (role !== null && principal.role !== null) checkRole(principal.role, role);
}

/** Throws `forbidden` for a role below the one that is needed. */
export function checkRole(role: Role, needed: Role): void {
  if (isAtLeast(role, needed)) return;
  throw new AppError(
    "forbidden",
    `Your role in this workspace is ${role}: this needs ${rolesFrom(needed).join(" or ")}`,
  );
}

export function isAtLeast(role: Role, needed: Role): boolean {
  return ROLES.indexOf(role) >= ROLES.indexOf(needed);
}

/** The workspace that a request is about. Throws `bad_request` where a session selects none. */
export function selectedWorkspace({ workspaceId }: Principal): string {
  if (workspaceId !== null) return workspaceId;
  throw new AppError(
    "bad_request",
    "Select a workspace: a session needs the header X-Workspace-Id here. GET /api/v1/workspaces lists yours",
  );
}

function rolesFrom(needed: Role): readonly Role[] {
  return ROLES.slice(ROLES.indexOf(needed));
}

/**
 * SQL that is true where `:userId` has at least this role in the workspace of `column`, and the workspace is not deleted.
 * The column has to be named with its table: alone it would mean the subquery's own. Subqueries, not joins: SQLite plans a
 * join with a parameter anew each time it runs.
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
  /** The selected workspace: what lies in another one is then out of sight. */
  selectedId: string | null;
}

const inSelectedSql = "(:selectedId IS NULL OR workspace_id IS NULL OR workspace_id = :selectedId)";

/** What a session may see of uploads: its own personal ones, and all of the workspaces that it is a member of. */
export const SEES_UPLOAD_SQL = `
  ${inSelectedSql}
  AND CASE WHEN workspace_id IS NULL THEN user_id = :userId ELSE ${hasRoleSql("uploads.workspace_id", "viewer")} END`;

/**
 * What a session may confirm and delete: its own uploads, and those of workspaces in which it is an editor or admin. Who is
 * no longer a member has lost what they uploaded there: it is the workspace's, which pays for it.
 */
export const CHANGES_UPLOAD_SQL = `
  ${inSelectedSql}
  AND CASE WHEN workspace_id IS NULL THEN user_id = :userId
           ELSE ${hasRoleSql("uploads.workspace_id", "editor")} OR user_id = :userId AND ${hasRoleSql("uploads.workspace_id", "viewer")} END`;

/** The parameters of a session for the SQL above. */
export function sessionParams({ userId, workspaceId }: Principal): SessionParams {
  return { userId, selectedId: workspaceId };
}
