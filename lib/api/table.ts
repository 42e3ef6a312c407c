import type { Permission } from "../books/permissions.ts";
import type { Principal } from "../books/principals.ts";
import type { Config } from "../config/config.ts";
import type { RawRow, Route } from "../http/route.ts";
import { accountOperations } from "./account.ts";
import { deletionOperations } from "./deletions.ts";
import { HEALTH_ROWS, healthRoutes } from "./health.ts";
import { memberOperations } from "./members.ts";
import { METRICS_ROW } from "./metrics.ts";
import { OBJECT_ROWS, objectRoutes } from "./objects.ts";
import type { ApiRow, Operation } from "./operation.ts";
import type { RouteParts } from "./parts.ts";
import { uploadOperations } from "./uploads.ts";
import { usageOperations } from "./usage.ts";
import { workflowOperations } from "./workflows.ts";
import { workspaceOperations } from "./workspaces.ts";

function operations(maxUploadBytes: number): Operation[] {
  return [
    ...uploadOperations(maxUploadBytes),
    ...deletionOperations,
    ...workflowOperations,
    ...accountOperations,
    ...usageOperations,
    ...workspaceOperations,
    ...memberOperations,
  ];
}

/** Every path of the public port, to be printed or checked: no handler is needed. */
export function describeRoutes({
  maxUploadBytes,
  store,
  metricsPort,
}: Pick<Config, "maxUploadBytes" | "store" | "metricsPort">): (ApiRow | RawRow)[] {
  return [
    ...operations(maxUploadBytes).map(({ row }) => row),
    ...HEALTH_ROWS.map((row) => ({ ...row, isRepeatable: false })),
    ...(metricsPort === null ? [METRICS_ROW] : []),
    ...(store === "disk" ? OBJECT_ROWS : []),
  ];
}

/** Every path of the service but `/metrics`, which may have a port of its own. */
export function createRoutes(parts: RouteParts): Route<Principal, Permission>[] {
  return [
    ...operations(parts.config.maxUploadBytes).map(({ serve }) => serve(parts)),
    ...healthRoutes(parts),
    ...(parts.objectRoutes === null ? [] : objectRoutes(parts.objectRoutes, parts.guard)),
  ];
}
