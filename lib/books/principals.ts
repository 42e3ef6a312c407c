/** The scopes of API keys. `uploads:read` does not exist: a key with any scope may read its workspace's uploads. */
export const SCOPES = [
  "catalog:read",
  "dictionary:read",
  "dictionary:write",
  "templates:read",
  "uploads:write",
  "voices:read",
  "voices:write",
  "workflows:read",
  "workflows:run",
  "workflows:write",
  "workspace:read",
] as const;

export type Scope = (typeof SCOPES)[number];

/** The roles of a workspace's members, lowest first: each may do everything that those before it may. */
export const ROLES = ["viewer", "editor", "admin"] as const;

export type Role = (typeof ROLES)[number];

interface Checked {
  /** When the credential and its permissions were checked, in milliseconds of `performance.now()`; never later than the reads. */
  checkedAtMs: number;
}

/** An API key acts for its workspace, by scope, and has no role. */
export interface ApiKeyPrincipal extends Checked {
  authKind: "api_key";
  userId: string;
  workspaceId: string;
  apiKeyId: string;
  scopes: readonly string[];
}

/** A session acts for a person, by the role that they have in a workspace. */
export interface SessionPrincipal extends Checked {
  authKind: "clerk";
  userId: string;
  /** The workspace that the header selects, of which the person is a member; null if none was selected. */
  workspaceId: string | null;
  /** The role in the selected workspace. */
  role: Role | null;
  apiKeyId: null;
  /** All of them: a session is limited by its role alone. */
  scopes: readonly string[];
}

/** The caller of a request. */
export type Principal = ApiKeyPrincipal | SessionPrincipal;

/**
 * The manager of workspaces and members: a person, within the rights of their role, or an administrator at the command line,
 * who may manage every workspace.
 */
export type Manager = { userId: string } | "administrator";
