import { PERMISSIONS } from "../core/permissions.ts";
import { AppError } from "../errors.ts";
import { publicRoute, type Route, route } from "../http/routes.ts";
import { VERSION } from "../version.ts";
import type { RouteParts } from "./routes.ts";

/** A strangers' flood of probes costs at most this many writes a second. */
const READY_KEPT_MS = 500;
/** A store that has not answered by then counts as unavailable. */
const STORE_PROBE_MS_MAX = 2_000;

/** Who the caller is, and whether the service is well. */
export function accountRoutes({ core, objects, cleaner }: RouteParts): Route[] {
  const { workspaces } = core;
  const readiness = kept(READY_KEPT_MS, async () => {
    const [database, store] = await Promise.allSettled([
      workspaces.checkWritable(),
      within(STORE_PROBE_MS_MAX, objects.probe()),
    ]);
    if (database.status === "rejected") {
      throw new AppError("storage_unavailable", "The database cannot be written at the moment", {
        cause: database.reason,
      });
    }
    // There only while a person has to decide: see `ledger_marker.ts`.
    const paused = cleaner.pauseReason();
    return {
      status: "ok",
      version: VERSION,
      database: "ok",
      store: store.status === "fulfilled" ? "ok" : "unavailable",
      ...(paused === null ? {} : { cleaner: `paused: ${paused}` }),
    };
  });

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
      handle: async () => ({ bare: await readiness() }),
    }),
  ];
}

/** Asks again only when the last answer is older than `keptMs`; those who ask meanwhile share one question. */
function kept<T>(keptMs: number, ask: () => Promise<T>): () => Promise<T> {
  let answer: Promise<T> | null = null;
  return () => {
    if (answer === null) {
      answer = ask();
      const forget = (): void => {
        setTimeout(() => {
          answer = null;
        }, keptMs).unref();
      };
      answer.then(forget, forget);
    }
    return answer;
  };
}

async function within<T>(timeoutMs: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`No answer within ${timeoutMs} ms`)), timeoutMs);
  });
  try {
    return await Promise.race([work, timeout]);
  } finally {
    clearTimeout(timer);
  }
}
