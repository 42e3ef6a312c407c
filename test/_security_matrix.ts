import type { Scope } from "../lib/core/principals.ts";

/** Callers whose credential does not hold: wherever one is asked for, all of them get 401. */
export const REFUSED = [
  "no credential",
  "malformed header",
  "malformed key",
  "reserved kind of key",
  "unknown key",
  "expired key",
  "revoked key",
  "key of a deleted workspace",
  "session that expired",
  "session of another issuer",
  "session without signature",
] as const;

/** Callers whose credential holds, but who lack something. The last one lacks nothing: it shows that the request itself is good. */
export const HELD_BACK = [
  "key without the scope",
  "key, and the header of another workspace",
  "key of another tenant",
  "session of no member",
  "session of a viewer",
  "who may",
] as const;

export type HeldBack = (typeof HELD_BACK)[number];

/** What is made anew for each route: a workspace and what is in it. */
export interface MatrixScene {
  workspace: string;
  workflow: string;
  /** Pending, and its bytes are there. */
  upload: string;
  /** Was as the other one, and is deleted. */
  deletedUpload: string;
  member: string;
}

export interface MatrixRow {
  route: string;
  /** What an API key needs; null: nothing but to be valid. */
  scope: Scope | null;
  /** Who may is an API key with the scope, or where keys may not at all, the owner's session. */
  by: "key" | "owner";
  path: (scene: MatrixScene) => string;
  body?: (scene: MatrixScene) => unknown;
  /** The status for each; `own` where nothing in the request names another's things, so that the caller gets its own. */
  expected: Record<HeldBack, number | "own">;
}

const V1 = "/api/v1";

interface Statuses {
  withoutScope: number;
  tenant: number | "own";
  viewer: number;
  stranger?: number | "own";
  ok?: number;
}

function expect({ withoutScope, tenant, viewer, stranger = 404, ok = 200 }: Statuses): MatrixRow["expected"] {
  return {
    "key without the scope": withoutScope,
    "key, and the header of another workspace": 403,
    "key of another tenant": tenant,
    "session of no member": stranger,
    "session of a viewer": viewer,
    "who may": ok,
  };
}

/** What reads something of the workspace that the credential or the header names. */
function reads(route: string, scope: Scope | null): MatrixRow {
  return {
    ...{ route: `GET ${V1}${route}`, scope, by: "key", path: () => V1 + route },
    expected: expect({ withoutScope: scope === null ? 200 : 403, tenant: "own", viewer: 200 }),
  };
}

/** What reads a thing that the path names. */
function readsOne(route: string, scope: Scope | null, path: MatrixRow["path"]): MatrixRow {
  return {
    ...{ route: `GET ${V1}${route}`, scope, by: "key", path: (scene) => V1 + path(scene) },
    expected: expect({ withoutScope: scope === null ? 200 : 403, tenant: 404, viewer: 200 }),
  };
}

/** What only sessions may do. */
function manages(
  route: string,
  { path, body, viewer, stranger, ok }: Pick<MatrixRow, "path" | "body"> & Pick<Statuses, "viewer" | "stranger" | "ok">,
): MatrixRow {
  const [method = "", pattern = ""] = route.split(" ");
  return {
    route: `${method} ${V1}${pattern}`,
    scope: null,
    by: "owner",
    path: (scene) => V1 + path(scene),
    ...(body === undefined ? {} : { body }),
    expected: expect({
      ...{ withoutScope: 403, tenant: 403, viewer },
      ...(stranger === undefined ? {} : { stranger }),
      ...(ok === undefined ? {} : { ok }),
    }),
  };
}

/** One row for each route that asks for a credential. A route that is missing here fails the test: add a row for it. */
export const SECURITY_MATRIX: readonly MatrixRow[] = [
  {
    ...{ route: `POST ${V1}/uploads`, scope: "uploads:write", by: "key", path: () => `${V1}/uploads` },
    body: () => ({ filename: "a.bin", category: "file" }),
    expected: expect({ withoutScope: 403, tenant: "own", viewer: 403, ok: 201 }),
  },
  {
    route: `POST ${V1}/uploads/:upload_id`,
    ...{ scope: "uploads:write", by: "key", path: ({ upload }) => `${V1}/uploads/${upload}` },
    body: ({ workflow }) => ({ context_type: "workflow", context_id: workflow }),
    expected: expect({ withoutScope: 403, tenant: 404, viewer: 404 }),
  },
  {
    route: `DELETE ${V1}/uploads/:upload_id`,
    ...{ scope: "uploads:write", by: "key", path: ({ upload }) => `${V1}/uploads/${upload}` },
    expected: expect({ withoutScope: 403, tenant: 404, viewer: 404 }),
  },
  {
    route: `GET ${V1}/uploads/:upload_id/deletion`,
    ...{ scope: "uploads:write", by: "key", path: ({ deletedUpload }) => `${V1}/uploads/${deletedUpload}/deletion` },
    expected: expect({ withoutScope: 403, tenant: 404, viewer: 404 }),
  },
  readsOne("/uploads/:upload_id", null, ({ upload }) => `/uploads/${upload}`),
  reads("/uploads", null),
  {
    ...{ route: `POST ${V1}/workflows`, scope: "workflows:write", by: "key", path: () => `${V1}/workflows` },
    body: () => ({ name: "New" }),
    expected: expect({ withoutScope: 403, tenant: "own", viewer: 403, ok: 201 }),
  },
  reads("/workflows", "workflows:read"),
  readsOne("/workflows/:workflow_id", "workflows:read", ({ workflow }) => `/workflows/${workflow}`),
  {
    route: `PATCH ${V1}/workflows/:workflow_id`,
    ...{ scope: "workflows:write", by: "key", path: ({ workflow }) => `${V1}/workflows/${workflow}` },
    body: () => ({ name: "Changed" }),
    expected: expect({ withoutScope: 403, tenant: 404, viewer: 403 }),
  },
  {
    route: `DELETE ${V1}/workflows/:workflow_id`,
    ...{ scope: "workflows:write", by: "key", path: ({ workflow }) => `${V1}/workflows/${workflow}` },
    expected: expect({ withoutScope: 403, tenant: 404, viewer: 403 }),
  },
  readsOne("/workflows/:workflow_id/uploads", "workflows:read", ({ workflow }) => `/workflows/${workflow}/uploads`),
  reads("/auth/whoami", null),
  reads("/usage/summary", "workspace:read"),
  reads("/usage/activity", "workspace:read"),
  reads("/usage/by-language", "workspace:read"),
  reads("/usage/storage-events", "workspace:read"),
  reads("/users/me/limits", null),
  reads("/users/me/credits", null),
  {
    ...{ route: `GET ${V1}/workspaces`, scope: null, by: "key", path: () => `${V1}/workspaces` },
    expected: expect({ withoutScope: 200, tenant: "own", viewer: 200, stranger: "own" }),
  },
  manages("POST /workspaces", {
    ...{ path: () => "/workspaces", body: () => ({ name: "New" }), viewer: 201, stranger: "own", ok: 201 },
  }),
  readsOne("/workspaces/:workspace_id", null, ({ workspace }) => `/workspaces/${workspace}`),
  readsOne("/workspaces/:workspace_id/plan", null, ({ workspace }) => `/workspaces/${workspace}/plan`),
  readsOne(
    "/workspaces/:workspace_id/settings",
    "workspace:read",
    ({ workspace }) => `/workspaces/${workspace}/settings`,
  ),
  manages("PATCH /workspaces/:workspace_id", {
    ...{ path: ({ workspace }) => `/workspaces/${workspace}`, body: () => ({ color_idx: 1 }), viewer: 404 },
  }),
  manages("GET /workspaces/:workspace_id/members", {
    ...{ path: ({ workspace }) => `/workspaces/${workspace}/members`, viewer: 200 },
  }),
  manages("POST /workspaces/:workspace_id/members", {
    path: ({ workspace }) => `/workspaces/${workspace}/members`,
    body: () => ({ email: "newcomer@example.com", role: "viewer" }),
    ...{ viewer: 403, ok: 201 },
  }),
  manages("PATCH /workspaces/:workspace_id/members/:member_id", {
    path: ({ workspace, member }) => `/workspaces/${workspace}/members/${member}`,
    ...{ body: () => ({ role: "viewer" }), viewer: 403 },
  }),
  manages("DELETE /workspaces/:workspace_id/members/:member_id", {
    ...{ path: ({ workspace, member }) => `/workspaces/${workspace}/members/${member}`, viewer: 403 },
  }),
  manages("DELETE /workspaces/:workspace_id", {
    ...{ path: ({ workspace }) => `/workspaces/${workspace}`, viewer: 404 },
  }),
];

/** Routes that ask for no credential, and what everyone gets who asks without more. Signed URLs are their own credential. */
export const PUBLIC_ROUTES: Readonly<Record<string, number>> = {
  "GET /health": 200,
  "GET /ready": 200,
  "GET /metrics": 200,
  "PUT /objects/*": 403,
  "GET /objects/*": 403,
  "POST /objects/*": 403,
  "PATCH /objects/*": 403,
  "DELETE /objects/*": 403,
};

/** The tables as the documentation has them. */
export function printSecurityMatrix(): string {
  const head = ["route", "scope of a key", "credential that does not hold", ...HELD_BACK];
  const rows = SECURITY_MATRIX.map(({ route, scope, by, expected }) => [
    `\`${route}\``,
    by === "owner" ? "sessions only" : scope === null ? "any" : `\`${scope}\``,
    "401",
    ...HELD_BACK.map((who) => String(expected[who])),
  ]);
  const open = Object.entries(PUBLIC_ROUTES).map(([route, status]) => [`\`${route}\``, String(status)]);
  return [
    `A credential that does not hold: ${REFUSED.join(", ")}.`,
    printed([head, ...rows]),
    "These ask for no credential, and answer each of the callers above alike:",
    printed([["route", "everyone"], ...open]),
  ].join("\n\n");
}

function printed([head = [], ...rows]: readonly (readonly string[])[]): string {
  return [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}
