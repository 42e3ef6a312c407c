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

/** Who makes a request. An API key acts for its workspace, by scope. */
export interface Principal {
  authKind: "api_key";
  userId: string;
  workspaceId: string;
  apiKeyId: string;
  scopes: readonly string[];
}
