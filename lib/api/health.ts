import { bareRoute, bareRowOf, type JsonRoute } from "../http/route.ts";
import { VERSION } from "../version.ts";
import type { RouteParts } from "./parts.ts";
import { createReadiness } from "./readiness.ts";
import { HealthOut, ReadyOut } from "./wire/health.ts";

const HEALTH = {
  method: "GET",
  path: "/health",
  operationId: "getHealth",
  summary: "Tell that the process is alive",
  response: HealthOut,
} as const;
const READY = {
  method: "GET",
  path: "/ready",
  operationId: "getReadiness",
  summary: "Tell whether the database can be written; an outage of the store is a field, because deletes still work",
  response: ReadyOut,
} as const;

export const HEALTH_ROWS = [bareRowOf(HEALTH), bareRowOf(READY)];

/** Whether the process is alive, and whether it is well. Probes expect no envelope. */
export function healthRoutes(parts: Pick<RouteParts, "books" | "objects" | "guard">): JsonRoute<unknown, never>[] {
  const readiness = createReadiness(parts);
  return [
    bareRoute({ ...HEALTH, handle: () => ({ data: { status: "ok" as const, version: VERSION } }) }),
    bareRoute({ ...READY, handle: async ({ nowMs }) => ({ data: await readiness(nowMs) }) }),
  ];
}
