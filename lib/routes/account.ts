import { PERMISSIONS } from "../core/permissions.ts";
import { publicRoute, type Route, route } from "../http/routes.ts";
import { VERSION } from "../version.ts";
import { createReadiness } from "./readiness.ts";
import type { RouteParts } from "./routes.ts";

/** Who the caller is, and whether the service is well. */
export function accountRoutes(parts: RouteParts): Route[] {
  const readiness = createReadiness(parts);

  return [
    route({
      method: "GET",
      path: "/api/v1/auth/whoami",
      summary: "Show what the credential is and may do",
      access: PERMISSIONS.identify,
      handle: ({ principal }) => ({
        data: {
          auth_kind: principal.authKind,
          user_id: principal.userId,
          workspace_id: principal.workspaceId,
          api_key_id: principal.apiKeyId,
          scopes: principal.scopes,
        },
      }),
    }),
    publicRoute({
      method: "GET",
      path: "/health",
      summary: "Tell that the process is alive",
      handle: () => ({ bare: { status: "ok", version: VERSION } }),
    }),
    publicRoute({
      method: "GET",
      path: "/ready",
      summary: "Tell whether the database can be written; an outage of the store is a field, because deletes go on",
      handle: async ({ nowMs }) => ({ bare: await readiness(nowMs) }),
    }),
  ];
}
