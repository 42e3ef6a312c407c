import type { Run } from "./_connection_matrix_program.ts";
import { downloadUrl, made201, stagedUpload, type World } from "./_connection_matrix_world.ts";
import { type MatrixRow, PUBLIC_ROUTES, SECURITY_MATRIX } from "./_security_matrix.ts";

/** What a request waits for while it is answered, and a test can hold. */
export type Hold = "database" | "store";

/** A request made for one cell. */
export interface Prepared {
  target: string;
  headers: Record<string, string>;
  /** What the route reads; where it reads none, what is sent all the same. */
  body: string;
  /** Where a PUT goes: what is kept of it lies there. */
  objectKey: string | null;
}

/** One kind of request. Each row of the matrix has one, and most have three: HEAD and OPTIONS are answered too. */
export interface Lane {
  name: string;
  method: string;
  /** The route, as log and metrics name it. */
  route: string;
  /** What is read of the body before the response is made. */
  reads: "json" | "bytes" | null;
  holds: readonly Hold[];
  /** The status if nothing goes wrong. */
  usual: number;
  /** `big`: the response must be more than the kernel's buffers hold, where the route has such. */
  prepare: (world: World, run: Run, big: boolean) => Promise<Prepared>;
}

const UNREAD_BODY = "x".repeat(500);
const UNSENT_JSON = '{"filename":"a.bin","category":"file"}'.padEnd(200);
const CONFIRM = "POST /api/v1/uploads/:upload_id";
const JSON_TYPE = { "Content-Type": "application/json" };

/** Every request that the matrix sends: from the same rows as the security matrix, whose tests hold them to the route table. */
export const LANES: readonly Lane[] = [
  ...SECURITY_MATRIX.flatMap((row) => {
    const lane = laneOf(row);
    return lane.method === "GET" ? [lane, { ...lane, name: `HEAD ${lane.route}`, method: "HEAD" }] : [lane];
  }),
  ...["/health", "/ready", "/metrics"].flatMap((path) =>
    ["GET", "HEAD"].map((method) => plainLane({ method, route: path, usual: 200, target: path })),
  ),
  {
    ...{ name: "PUT /objects/*", method: "PUT", route: "/objects/*", reads: "bytes", holds: ["store"], usual: 200 },
    async prepare({ key }, run) {
      const { url } = await stagedUpload(run, key);
      const objectKey = url.pathname.slice("/objects/".length);
      return { target: url.pathname + url.search, headers: {}, body: "y".repeat(4_000), objectKey };
    },
  },
  ...["GET", "HEAD"].map(
    (method): Lane => ({
      ...{ name: `${method} /objects/*`, method, route: "/objects/*", reads: null, holds: ["store"], usual: 200 },
      async prepare({ key, shared }, run, big) {
        const { pathname, search } = await downloadUrl(run, key, big ? shared.bigUpload : shared.upload);
        return { target: pathname + search, headers: {}, body: UNREAD_BODY, objectKey: null };
      },
    }),
  ),
  ...["POST", "PATCH", "DELETE"].map((method) =>
    plainLane({ method, route: "/objects/*", usual: 403, target: "/objects/staging/x" }),
  ),
  ...[...new Set([...SECURITY_MATRIX.map(({ route }) => route), ...Object.keys(PUBLIC_ROUTES)].map(pathOf))].map(
    (path) => plainLane({ method: "OPTIONS", route: path, usual: 204, target: path.replaceAll(/:\w+|\*/g, "x") }),
  ),
  // Refused before a body is read.
  {
    ...plainLane({ method: "PUT", route: "/objects/*", usual: 403, target: "/objects/staging/x?signature=x" }),
    name: "PUT /objects/* with a bad signature",
  },
  {
    ...plainLane({ method: "POST", route: "/api/v1/uploads", usual: 401, target: "/api/v1/uploads" }),
    name: "POST /api/v1/uploads without a credential",
  },
  plainLane({ method: "PUT", route: "/health", usual: 405, target: "/health" }),
  plainLane({ method: "GET", route: "(unmatched)", usual: 404, target: "/nothing/here" }),
  plainLane({ method: "POST", route: "(unmatched)", usual: 404, target: "/nothing/here" }),
];

function pathOf(route: string): string {
  return route.split(" ")[1] ?? "";
}

function plainLane(its: { method: string; route: string; usual: number; target: string }): Lane {
  const { method, route, usual, target } = its;
  return {
    ...{ name: `${method} ${route}`, method, route, usual, reads: null, holds: [] },
    prepare: async () => ({ target, headers: {}, body: UNREAD_BODY, objectKey: null }),
  };
}

function laneOf(row: MatrixRow): Lane {
  const [method = "", route = ""] = row.route.split(" ");
  const usual = row.expected["who may"];
  if (usual === "own") throw new Error(`${row.route} has no status of its own`);
  const writes = method !== "GET";
  return {
    ...{ name: row.route, method, route, usual, reads: row.body === undefined ? null : "json" },
    holds: !writes ? [] : row.route === CONFIRM ? ["database", "store"] : ["database"],
    async prepare(world, run) {
      const scene = writes ? await changingScene(row, world, run) : await readScene(row, world, run);
      const body = row.body === undefined ? UNREAD_BODY : JSON.stringify(row.body(scene)).padEnd(UNSENT_JSON.length);
      const headers = {
        Authorization: `Bearer ${row.by === "key" ? world.key : world.ownerToken}`,
        ...(row.by === "owner" && !route.includes(":workspace_id") ? { "X-Workspace-Id": scene.workspace } : {}),
        ...(row.body === undefined ? {} : JSON_TYPE),
      };
      return { target: row.path(scene), headers, body, objectKey: null };
    },
  };
}

type Scene = Parameters<MatrixRow["path"]>[0];

const ownedWorkspaces = new WeakMap<World, Promise<string>>();

async function readScene(row: MatrixRow, world: World, run: Run): Promise<Scene> {
  if (row.by === "key") return world.shared;
  let owned = ownedWorkspaces.get(world);
  if (owned === undefined) {
    owned = newWorkspace(world, run);
    ownedWorkspaces.set(world, owned);
  }
  return { ...world.shared, workspace: await owned };
}

/** What one request changes or removes, and no other may meet. */
async function changingScene({ route, by }: MatrixRow, world: World, run: Run): Promise<Scene> {
  const { key, shared } = world;
  if (by === "owner") {
    const workspace = await newWorkspace(world, run);
    if (!route.includes(":member_id")) return { ...shared, workspace };
    const body = { email: "member@example.com", role: "editor" };
    const path = `/api/v1/workspaces/${workspace}/members`;
    return { ...shared, workspace, member: (await made201(run, path, world.ownerToken, body)).user_id };
  }
  if (route.includes("/uploads/:")) {
    const bytes = route === CONFIRM ? Buffer.from("bytes") : undefined;
    return { ...shared, upload: (await stagedUpload(run, key, bytes)).id };
  }
  if (!route.includes("/workflows/:")) return shared;
  return { ...shared, workflow: (await made201(run, "/api/v1/workflows", key, {})).id };
}

async function newWorkspace({ ownerToken }: World, run: Run): Promise<string> {
  return (await made201(run, "/api/v1/workspaces", ownerToken, { name: "Matrix" })).id;
}
