import { AppError } from "../errors.ts";
import { type Principal, ROLES, type Role, type Scope } from "./principals.ts";

/** The demands of a route on its caller, checked before anything else of the request is read. */
export interface Permission {
  /** The scope that an API key needs; null: any valid key will do. */
  scope: Scope | null;
  /** The role that a session needs in the workspace that its header selects; null: none. */
  role: Role | null;
  /**
   * Tells whether a session's header must select the workspace, may select it, or is ignored because the path names the
   * workspace. In the last case only the verb that follows knows the role there.
   */
  workspace: "required" | "optional" | "in_path";
  /** An API key acts inside its workspace and manages none. */
  sessionsOnly?: true;
}

const anyone = { scope: null, role: null, workspace: "optional" } as const;
const inPath = { scope: null, role: null, workspace: "in_path" } as const;
const management = { ...inPath, sessionsOnly: true } as const;

/**
 * All permissions, in one place. Rules that depend on a row (whose upload it is, what a confirm binds to) are decided by the
 * statement that reads or changes the row. `docs/permissions.md` shows both kinds.
 */
export const PERMISSIONS = {
  identify: anyone,
  /** A personal upload belongs to no workspace yet and needs no role. */
  createUpload: { scope: "uploads:write", role: "editor", workspace: "optional" },
  /** The role is checked in the workspace that the upload is bound to. */
  confirmUpload: { scope: "uploads:write", role: null, workspace: "optional" },
  /** Deleting one's own upload needs no role. */
  deleteUpload: { scope: "uploads:write", role: null, workspace: "optional" },
  readUploads: anyone,
  readWorkflows: { scope: "workflows:read", role: "viewer", workspace: "required" },
  writeWorkflows: { scope: "workflows:write", role: "editor", workspace: "required" },
  readUsage: { scope: "workspace:read", role: "viewer", workspace: "required" },
  readLimits: anyone,
  readWorkspaces: inPath,
  readWorkspaceSettings: { ...inPath, scope: "workspace:read" },
  manageWorkspaces: management,
  manageMembers: management,
} as const satisfies Record<string, Permission>;

/** Throws `forbidden` if the caller lacks the scope or the role, `bad_request` if a session must select a workspace and does not. */
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

/** Throws `forbidden` if the role is below the one that is needed. */
export function checkRole(role: Role, needed: Role): void {
  if (isAtLeast(role, needed)) return;
  throw new AppError(
    "forbidden",
    `Your role in this workspace is ${role}: this needs ${rolesFrom(needed).join(" or ")}`,
  );
}

function isAtLeast(role: Role, needed: Role): boolean {
  return ROLES.indexOf(role) >= ROLES.indexOf(needed);
}

/** Returns the workspace that a request is about. Throws `bad_request` if a session selects none. */
export function selectedWorkspace({ workspaceId }: Principal): string {
  if (workspaceId !== null) return workspaceId;
  throw new AppError(
    "bad_request",
    "Select a workspace: a session needs the header X-Workspace-Id here. GET /api/v1/workspaces lists yours",
  );
}

/** The needed role and those above it, lowest first. */
export function rolesFrom(needed: Role): readonly Role[] {
  return ROLES.slice(ROLES.indexOf(needed));
}
