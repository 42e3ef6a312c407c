/** What an API key may be allowed to do. `uploads:read` does not exist: a key with any scope may read its workspace's uploads. */
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

/** What a member may be in a workspace, the least first: each may do what those before it may. */
export const ROLES = ["viewer", "editor", "admin"] as const;

export type Role = (typeof ROLES)[number];

interface Checked {
  /** When it was looked whether the credential holds and what it may do, in milliseconds of `performance.now()`. */
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
  /** The one that the header selects, of which the person is a member; null: none was selected. */
  workspaceId: string | null;
  /** In the selected workspace. */
  role: Role | null;
  apiKeyId: null;
  /** Every one: a session is limited by its role alone. */
  scopes: readonly string[];
}

/** Who makes a request. */
export type Principal = ApiKeyPrincipal | SessionPrincipal;
