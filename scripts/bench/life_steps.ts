import type { RawClient, RawRequest, RawResponse } from "./life_client.ts";

/** How one kind of server is asked for a whole life of a file. */
export type Dialect = "stowage" | "bare";

/** What a step knows of the life that it is part of. */
export interface Life {
  client: RawClient;
  workspaceId: string;
  key: string;
  file: Buffer;
  /** What the steps before have left for those after. */
  id: string;
  putPath: string;
  getPath: string;
}

export interface Step {
  name: string;
  run: (life: Life) => Promise<unknown>;
}

/** The steps of a life in this dialect, in order. */
export function stepsOf(dialect: Dialect): readonly Step[] {
  return { stowage: STOWAGE_STEPS, bare: BARE_STEPS }[dialect];
}

const STOWAGE_STEPS: readonly Step[] = [
  {
    name: "create",
    async run(life) {
      const body = JSON.stringify({ filename: "file.bin", category: "file" });
      const created = await ok(life, { method: "POST", path: "/api/v1/uploads", headers: asJson(life), body });
      life.id = find(created, /"id":"([^"]+)"/);
      life.putPath = find(created, /"upload_url":"https?:\/\/[^/]+([^"]+)"/);
    },
  },
  { name: "PUT", run: (life) => ok(life, { method: "PUT", path: life.putPath, body: life.file }) },
  {
    name: "confirm",
    async run(life) {
      const body = JSON.stringify({ context_type: "workspace", context_id: life.workspaceId });
      const path = `/api/v1/uploads/${life.id}`;
      const confirmed = await ok(life, { method: "POST", path, headers: asJson(life), body });
      life.getPath = find(confirmed, /"download_url":"https?:\/\/[^/]+([^"]+)"/);
    },
  },
  { name: "download", run: (life) => ok(life, { method: "GET", path: life.getPath, discardsBody: true }) },
  {
    name: "delete",
    run: (life) => ok(life, { method: "DELETE", path: `/api/v1/uploads/${life.id}`, headers: authorized(life) }),
  },
];

/** The ceiling's own: see life_ceiling.ts. */
const BARE_STEPS: readonly Step[] = [
  {
    name: "create",
    async run(life) {
      const body = JSON.stringify({ filename: "file.bin", category: "file" });
      life.id = find(await ok(life, { method: "POST", path: `/uploads/${life.workspaceId}`, body }), /"id":"([^"]+)"/);
    },
  },
  { name: "PUT", run: (life) => ok(life, { method: "PUT", path: `/objects/${life.id}`, body: life.file }) },
  { name: "confirm", run: (life) => ok(life, { method: "POST", path: `/uploads/${life.workspaceId}/${life.id}` }) },
  { name: "delete", run: (life) => ok(life, { method: "DELETE", path: `/uploads/${life.workspaceId}/${life.id}` }) },
];

function authorized({ key }: Life): Record<string, string> {
  return { authorization: `Bearer ${key}` };
}

function asJson(life: Life): Record<string, string> {
  return { ...authorized(life), "content-type": "application/json" };
}

async function ok({ client }: Life, request: RawRequest): Promise<RawResponse> {
  const response = await client.send(request);
  if (response.status >= 300) {
    throw new Error(`${request.method} ${request.path}: ${response.status} ${response.body.toString("utf8", 0, 300)}`);
  }
  return response;
}

/** By a pattern: parsing whole bodies would cost the generator more than it sends. */
function find({ body }: RawResponse, pattern: RegExp): string {
  const found = pattern.exec(body.toString())?.[1];
  if (found === undefined) throw new Error(`No ${pattern} in ${body.toString("utf8", 0, 300)}`);
  return found;
}
