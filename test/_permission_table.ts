import type { Scope } from "../lib/core/principals.ts";

/** Who calls. Sessions send the header with the workspace where the path does not name it. */
export const CALLERS = ["key", "keyWithout", "otherKey", "owner", "admin", "editor", "viewer", "stranger"] as const;
export type Caller = (typeof CALLERS)[number];

/** How the callers are told of in the documentation. */
export const CALLER_TITLES: Record<Caller, string> = {
  key: "key with the scope",
  keyWithout: "key without it",
  otherKey: "key of another workspace",
  owner: "owner",
  admin: "admin",
  editor: "editor",
  viewer: "viewer",
  stranger: "no member",
};

/** What is made anew for each cell, before the caller comes. */
export interface Scene {
  workspace: string;
  workflow: string;
  /** A member beside the caller, an editor. */
  otherMember: string;
  /** Pending in the workspace and PUT: made by the caller, or where that is no member, by the other member. */
  own: string;
  /** The same, always made by the other member. */
  anothers: string;
  /** The other member's, of no workspace. */
  personal: string;
  caller: string;
}

type Cells = Record<Caller, number | null>;

export interface Row {
  what: string;
  /** The route that the row is about. */
  route: string;
  scope: Scope | null;
  request: (scene: Scene) => { path: string; body?: unknown; header: boolean };
  /** The status for each caller; null: the request names nothing of another workspace, so the caller gets its own. */
  cells: Cells;
}

const V1 = "/api/v1";
const NEW_UPLOAD = { filename: "a.bin", category: "file" };

/** Everyone who belongs to the workspace, key or session, with the answer `ok`; the key needs the scope. */
function members(ok: number, other: number | null): Cells {
  return { key: ok, keyWithout: 403, otherKey: other, owner: ok, admin: ok, editor: ok, viewer: ok, stranger: 404 };
}

const anyKey = (cells: Cells): Cells => ({ ...cells, keyWithout: cells.key });
const noViewer = (cells: Cells): Cells => ({ ...cells, viewer: 403 });
const noKey = (cells: Cells): Cells => ({ ...cells, key: 403, keyWithout: 403, otherKey: 403 });
/** Those below the role are told that there is no such thing. */
const unseenBy = (cells: Cells, ...callers: Caller[]): Cells => ({
  ...cells,
  ...Object.fromEntries(callers.map((caller) => [caller, 404])),
});

const read = (what: string, route: string, scope: Scope | null, path: (scene: Scene) => string, other: number | null) =>
  ({
    what,
    route: `GET ${V1}${route}`,
    scope,
    request: (scene) => ({ path: path(scene), header: true }),
    cells: scope === null ? anyKey(members(200, other)) : members(200, other),
  }) satisfies Row;

const confirmBody = ({ workspace }: Scene) => ({ context_type: "workspace", context_id: workspace });

/** A deletion is shown to those who could have deleted the upload. */
const showDeletion = (whose: string, id: (scene: Scene) => string, cells: Cells) =>
  ({
    what: `show the deletion of ${whose}`,
    route: `GET ${V1}/uploads/:upload_id/deletion`,
    scope: "uploads:write",
    request: (scene) => ({ path: `/uploads/${id(scene)}/deletion`, header: false }),
    cells,
  }) satisfies Row;

/** Each operation and what becomes of it for each caller. `docs/permissions.md` is printed from it, the test asks every cell. */
export const PERMISSION_TABLE: readonly { title: string; rows: readonly Row[] }[] = [
  {
    title: "Uploads",
    rows: [
      {
        what: "create one in the workspace",
        route: `POST ${V1}/uploads`,
        scope: "uploads:write",
        request: () => ({ path: "/uploads", body: NEW_UPLOAD, header: true }),
        cells: noViewer(members(201, null)),
      },
      {
        what: "create a personal one: a session without `X-Workspace-Id`; a key's is always its workspace's",
        route: `POST ${V1}/uploads`,
        scope: "uploads:write",
        request: () => ({ path: "/uploads", body: NEW_UPLOAD, header: false }),
        cells: { ...members(201, null), stranger: 201 },
      },
      read("list the workspace's", "/uploads", null, () => "/uploads", null),
      read("show one", "/uploads/:upload_id", null, ({ anothers }) => `/uploads/${anothers}`, 404),
      {
        ...read(
          "show another person's personal one",
          "/uploads/:upload_id",
          null,
          ({ personal }) => `/uploads/${personal}`,
          404,
        ),
        cells: anyKey(members(404, 404)),
      },
      {
        what: "confirm one's own",
        route: `POST ${V1}/uploads/:upload_id`,
        scope: "uploads:write",
        request: (scene) => ({ path: `/uploads/${scene.own}`, body: confirmBody(scene), header: false }),
        cells: noViewer(members(200, 404)),
      },
      {
        what: "confirm another member's",
        route: `POST ${V1}/uploads/:upload_id`,
        scope: "uploads:write",
        request: (scene) => ({ path: `/uploads/${scene.anothers}`, body: confirmBody(scene), header: false }),
        cells: unseenBy(members(200, 404), "viewer"),
      },
      {
        what: "confirm another person's personal one",
        route: `POST ${V1}/uploads/:upload_id`,
        scope: "uploads:write",
        request: (scene) => ({ path: `/uploads/${scene.personal}`, body: confirmBody(scene), header: false }),
        cells: unseenBy(members(404, 404)),
      },
      {
        what: "delete one's own",
        route: `DELETE ${V1}/uploads/:upload_id`,
        scope: "uploads:write",
        request: ({ own }) => ({ path: `/uploads/${own}`, header: false }),
        cells: members(200, 404),
      },
      {
        what: "delete another member's",
        route: `DELETE ${V1}/uploads/:upload_id`,
        scope: "uploads:write",
        request: ({ anothers }) => ({ path: `/uploads/${anothers}`, header: false }),
        cells: unseenBy(members(200, 404), "viewer"),
      },
      {
        what: "delete another person's personal one",
        route: `DELETE ${V1}/uploads/:upload_id`,
        scope: "uploads:write",
        request: ({ personal }) => ({ path: `/uploads/${personal}`, header: false }),
        cells: unseenBy(members(404, 404)),
      },
      showDeletion("one's own", ({ own }) => own, members(200, 404)),
      showDeletion("another member's", ({ anothers }) => anothers, unseenBy(members(200, 404), "viewer")),
      showDeletion("another person's personal one", ({ personal }) => personal, unseenBy(members(404, 404))),
    ],
  },
  {
    title: "Workflows",
    rows: [
      read("list", "/workflows", "workflows:read", () => "/workflows", null),
      read("show", "/workflows/:workflow_id", "workflows:read", ({ workflow }) => `/workflows/${workflow}`, 404),
      read(
        "list a workflow's uploads",
        "/workflows/:workflow_id/uploads",
        "workflows:read",
        ({ workflow }) => `/workflows/${workflow}/uploads`,
        404,
      ),
      {
        what: "create",
        route: `POST ${V1}/workflows`,
        scope: "workflows:write",
        request: () => ({ path: "/workflows", body: {}, header: true }),
        cells: noViewer(members(201, null)),
      },
      {
        what: "change",
        route: `PATCH ${V1}/workflows/:workflow_id`,
        scope: "workflows:write",
        request: ({ workflow }) => ({ path: `/workflows/${workflow}`, body: { name: "x" }, header: true }),
        cells: noViewer(members(200, 404)),
      },
      {
        what: "delete",
        route: `DELETE ${V1}/workflows/:workflow_id`,
        scope: "workflows:write",
        request: ({ workflow }) => ({ path: `/workflows/${workflow}`, header: true }),
        cells: noViewer(members(200, 404)),
      },
    ],
  },
  {
    title: "Usage and oneself",
    rows: [
      ...["summary", "activity", "by-language", "storage-events"].map((name) =>
        read(`show \`/usage/${name}\``, `/usage/${name}`, "workspace:read", () => `/usage/${name}`, null),
      ),
      read("show one's limits in the workspace", "/users/me/limits", null, () => "/users/me/limits", null),
      read("show one's credits", "/users/me/credits", null, () => "/users/me/credits", null),
      read("`whoami`", "/auth/whoami", null, () => "/auth/whoami", null),
    ],
  },
  {
    title: "Workspaces and members",
    rows: [
      {
        ...read("list one's own", "/workspaces", null, () => "/workspaces", null),
        cells: { ...anyKey(members(200, null)), stranger: null },
      },
      read("show", "/workspaces/:workspace_id", null, ({ workspace }) => `/workspaces/${workspace}`, 404),
      read(
        "show the plan",
        "/workspaces/:workspace_id/plan",
        null,
        ({ workspace }) => `/workspaces/${workspace}/plan`,
        404,
      ),
      read(
        "show the settings",
        "/workspaces/:workspace_id/settings",
        "workspace:read",
        ({ workspace }) => `/workspaces/${workspace}/settings`,
        404,
      ),
      {
        what: "create",
        route: `POST ${V1}/workspaces`,
        scope: null,
        request: () => ({ path: "/workspaces", body: { name: "New" }, header: false }),
        cells: { ...noKey(members(201, null)), stranger: 201 },
      },
      {
        what: "change",
        route: `PATCH ${V1}/workspaces/:workspace_id`,
        scope: null,
        request: ({ workspace }) => ({ path: `/workspaces/${workspace}`, body: { color_idx: 1 }, header: false }),
        cells: unseenBy(noKey(members(200, null)), "editor", "viewer"),
      },
      {
        what: "delete",
        route: `DELETE ${V1}/workspaces/:workspace_id`,
        scope: null,
        request: ({ workspace }) => ({ path: `/workspaces/${workspace}`, header: false }),
        cells: unseenBy(noKey(members(200, null)), "admin", "editor", "viewer"),
      },
      {
        ...read(
          "list members",
          "/workspaces/:workspace_id/members",
          null,
          ({ workspace }) => `/workspaces/${workspace}/members`,
          403,
        ),
        cells: noKey(members(200, null)),
      },
      {
        what: "add a member",
        route: `POST ${V1}/workspaces/:workspace_id/members`,
        scope: null,
        request: ({ workspace }) => ({
          path: `/workspaces/${workspace}/members`,
          body: { email: "newcomer@example.com", role: "viewer" },
          header: false,
        }),
        cells: { ...noViewer(noKey(members(201, null))), editor: 403 },
      },
      {
        what: "change a member's role",
        route: `PATCH ${V1}/workspaces/:workspace_id/members/:member_id`,
        scope: null,
        request: ({ workspace, otherMember }) => ({
          path: `/workspaces/${workspace}/members/${otherMember}`,
          body: { role: "viewer" },
          header: false,
        }),
        cells: { ...noViewer(noKey(members(200, null))), editor: 403 },
      },
      {
        what: "remove another member",
        route: `DELETE ${V1}/workspaces/:workspace_id/members/:member_id`,
        scope: null,
        request: ({ workspace, otherMember }) => ({
          path: `/workspaces/${workspace}/members/${otherMember}`,
          header: false,
        }),
        cells: { ...noViewer(noKey(members(200, null))), editor: 403 },
      },
      {
        what: "leave",
        route: `DELETE ${V1}/workspaces/:workspace_id/members/:member_id`,
        scope: null,
        request: ({ workspace, caller }) => ({ path: `/workspaces/${workspace}/members/${caller}`, header: false }),
        cells: noKey(members(200, null)),
      },
    ],
  },
];

/** The tables as the documentation has them. */
export function printPermissions(): string {
  return PERMISSION_TABLE.map(({ title, rows }) => {
    const head = [title, "scope of a key", ...CALLERS.map((caller) => CALLER_TITLES[caller])];
    const lines = rows.map(({ what, scope, cells }) => [
      what,
      scope === null ? "any" : `\`${scope}\``,
      ...CALLERS.map((caller) => shown(cells[caller])),
    ]);
    return [head, head.map(() => "---"), ...lines].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
  }).join("\n\n");
}

function shown(status: number | null): string {
  if (status === null) return "its own";
  return status < 300 ? "yes" : String(status);
}
