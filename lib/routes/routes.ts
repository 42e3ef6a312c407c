import type { Config } from "../config/config.ts";
import type { Core } from "../core/core.ts";
import type { Route } from "../http/routes.ts";
import type { Cleaner } from "../operations/cleaner.ts";
import type { createConfirm } from "../operations/confirm.ts";
import type { StoreGuard } from "../operations/store_guard.ts";
import type { ObjectRoutes } from "../store/disk/object_routes.ts";
import type { ObjectStore } from "../store/objects.ts";
import { accountRoutes } from "./account.ts";
import { deletionRoutes } from "./deletions.ts";
import { memberRoutes } from "./members.ts";
import { objectRoutes } from "./objects.ts";
import { uploadRoutes } from "./uploads.ts";
import { usageRoutes } from "./usage.ts";
import { workflowRoutes } from "./workflows.ts";
import { workspaceRoutes } from "./workspaces.ts";

/** What handlers work with. */
export interface RouteParts {
  core: Core;
  objects: ObjectStore;
  confirm: ReturnType<typeof createConfirm>;
  cleaner: Cleaner;
  guard: StoreGuard;
  /** Null where clients speak to an S3 server. */
  objectRoutes: ObjectRoutes | null;
  config: Config;
}

/** Every path that the service answers. */
export function createRoutes(parts: RouteParts): Route[] {
  return [
    ...uploadRoutes(parts),
    ...deletionRoutes(parts),
    ...workflowRoutes(parts),
    ...accountRoutes(parts),
    ...usageRoutes(parts),
    ...workspaceRoutes(parts),
    ...memberRoutes(parts),
    ...(parts.objectRoutes === null ? [] : objectRoutes(parts.objectRoutes, parts.guard)),
  ];
}
