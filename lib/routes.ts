import type { Cleaner } from "./cleaner.ts";
import type { Config } from "./config.ts";
import type { createConfirm } from "./confirm.ts";
import type { Core } from "./core.ts";
import type { Route } from "./http_routes.ts";
import type { ObjectRoutes } from "./object_routes.ts";
import type { ObjectStore } from "./objects.ts";
import { accountRoutes } from "./routes_account.ts";
import { memberRoutes } from "./routes_members.ts";
import { objectRoutes } from "./routes_objects.ts";
import { uploadRoutes } from "./routes_uploads.ts";
import { usageRoutes } from "./routes_usage.ts";
import { workflowRoutes } from "./routes_workflows.ts";
import { workspaceRoutes } from "./routes_workspaces.ts";

/** What handlers work with. */
export interface RouteParts {
  core: Core;
  objects: ObjectStore;
  confirm: ReturnType<typeof createConfirm>;
  cleaner: Cleaner;
  /** Null where clients speak to an S3 server. */
  objectRoutes: ObjectRoutes | null;
  config: Config;
}

/** Every path that the service answers. */
export function createRoutes(parts: RouteParts): Route[] {
  return [
    ...uploadRoutes(parts),
    ...workflowRoutes(parts),
    ...accountRoutes(parts),
    ...usageRoutes(parts),
    ...workspaceRoutes(parts),
    ...memberRoutes(parts),
    ...(parts.objectRoutes === null ? [] : objectRoutes(parts.objectRoutes)),
  ];
}
