import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, request } from "node:http";
import { type TestContext, test } from "node:test";
import { describeRoutes } from "../../lib/api/table.ts";
import type { App } from "../../lib/app.ts";
import { type Json, startTestApp } from "../help/app.ts";
import { startPeopleApp } from "../help/people.ts";
import { FIRST_CREATED_AT_MS, insertUploads } from "../help/upload_rows.ts";

// Goal: a script can trust a list: what it asked for is what it got, and following the links misses nothing.

const UPLOADS = "/api/v1/uploads";

const API_ROWS = describeRoutes({ maxUploadBytes: 1_000, store: "disk", metricsPort: null }).flatMap((row) =>
  row.kind === "json" && row.access !== "public" ? [row] : [],
);

test("a query parameter that an operation does not have is 422 and names the known ones, on every operation", async (t) => {
  const its = await startPeopleApp(t);
  const ann = await its.signIn("ann");
  const workspace = await its.makeWorkspace(ann);
  const body = {
    ...{ filename: "a.txt", category: "file", context_type: "workspace", context_id: workspace },
    ...{ name: "name", role: "viewer", user_id: ann.userId },
  };
  for (const { method, path, operationId, query, body: schema } of API_ROWS) {
    const there = path.replace(":workspace_id", workspace).replace(/:\w+/, "01890a5d-ac96-774b-bcce-b302099a8057");
    for (const name of ["filenam", "Status", "page", "X".repeat(1_000)]) {
      const target = `${there}?${name}=pending`;
      const call = { workspace, ...(schema === undefined ? {} : { body }) };
      const { status, json, text } = await ann.call(method, target, call);
      assert.equal(status, 422, `${operationId} ${text}`);
      const [{ field, message }] = json.error.details;
      assert.ok(name.startsWith(field.replace("…", "")) && field.length <= 101, field);
      assert.match(message, query === undefined ? /which has none$/ : /the known ones are (\w+, )*\w+$/);
      assert.ok(json.error.message.startsWith(`Invalid ${field}: `));
    }
  }
  const { json } = await ann.call("GET", `${UPLOADS}?filenam=a&status=pending&Limit=2`, { workspace });
  assert.deepEqual(
    json.error.details.map(({ field }: Json) => field),
    ["filenam", "Limit"],
  );
  assert.match(json.error.message, /the known ones are category, context_id, created_after, .*, offset, status;/);
});

test("what the published clients send is accepted by each published list", async (t) => {
  const its = await startPeopleApp(t);
  const ann = await its.signIn("ann");
  const workspace = await its.makeWorkspace(ann);
  const workflow = (await ann.call("POST", "/api/v1/workflows", { workspace, body: {} })).json.data.id;
  const time = "2026-05-01T00:00:00Z";
  for (const target of [
    "/workspaces?offset=0&limit=50",
    `/workspaces/${workspace}/members`,
    `/workflows?status=draft&search=a&sort=name&sort=updated_at&order=asc&order=desc&last_run_after=${time}&last_run_before=${time}&has_failed_run=false&include_definition=true&offset=0&limit=50`,
    `/workflows/${workflow}/uploads?offset=0&limit=50`,
    `/usage/activity?range=30d&type=workflow_run&user_id=${ann.userId}&limit=20&cursor=abc&timezone=UTC`,
    "/usage/summary?range=30d&activity_view=daily&timezone=UTC",
    "/usage/by-language?range=30d&activity_view=daily&timezone=UTC",
  ]) {
    const { status, text } = await ann.call("GET", `/api/v1${target}`, { workspace });
    assert.equal(status, 200, `${target} ${text}`);
  }
});

/** A proxy that serves the app below a path, as nginx does; `serve` says which app. */
async function startProxy(t: TestContext, prefix: string) {
  let target = "";
  const server = createServer((req, res) => {
    const { method, headers } = req;
    const forwarded = request(target + (req.url ?? "").slice(prefix.length), { method, headers }, (response) => {
      res.writeHead(response.statusCode ?? 500, response.headers);
      response.pipe(res);
    });
    req.pipe(forwarded);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  return {
    url: `http://127.0.0.1:${address.port}${prefix}`,
    serve: ({ metricsUrl }: App) => {
      target = new URL(metricsUrl).origin;
    },
  };
}

for (const prefix of ["", "/files/api"]) {
  test(`following next deletes everything, and every link begins with the public URL's path: "${prefix}"`, async (t) => {
    const proxy = await startProxy(t, prefix);
    const its = await startPeopleApp(t, { env: { STOWAGE_PUBLIC_URL: proxy.url } });
    proxy.serve(its.app);
    const ann = await its.signIn("ann");
    const workspace = await its.makeWorkspace(ann);
    insertUploads(its.sql, Array(25).fill({ userId: ann.userId, workspaceId: workspace, contextId: workspace }));
    for (let i = 0; i < 25; i++) {
      const body = { name: `${i % 3} name é "quoted"` };
      await ann.call("POST", "/api/v1/workflows", { workspace, body });
    }
    for (let i = 0; i < 7; i++) await its.makeWorkspace(ann);

    for (const [list, count] of [
      [`${UPLOADS}?limit=10`, 25],
      ["/api/v1/workflows?limit=10", 25],
      ["/api/v1/workspaces?limit=3", 8],
    ] as const) {
      let deleted = 0;
      for (let target: string | null = list; target !== null; ) {
        const { json } = await ann.call("GET", target, { workspace });
        const { next, prev, total } = json.pagination;
        assert.equal(total, count - deleted, target);
        for (const { id } of json.data) {
          const { status } = await ann.call("DELETE", `${list.split("?")[0]}/${id}`, { workspace });
          assert.equal(status, 200);
          deleted++;
        }
        for (const link of [next, prev]) {
          if (link !== null) assert.ok(link.startsWith(`${prefix}/api/v1/`), link);
        }
        target = next === null ? null : new URL(next, proxy.url).href;
      }
      assert.equal(deleted, count, list);
    }
  });

  test(`the links of a workflow's uploads and of the storage events begin with it too: "${prefix}"`, async (t) => {
    const proxy = await startProxy(t, prefix);
    const { app, call, owner, sql } = await startTestApp(t, { env: { STOWAGE_PUBLIC_URL: proxy.url } });
    proxy.serve(app);
    const workflow = (await call("POST", "/api/v1/workflows", { body: {} })).json.data.id;
    insertUploads(sql, Array(3).fill({ ...owner, contextId: workflow }));
    for (const list of [`/api/v1/workflows/${workflow}/uploads`, "/api/v1/usage/storage-events"]) {
      const { next } = (await call("GET", `${list}?limit=1`)).json.pagination;
      assert.ok(next.startsWith(`${prefix}${list}?`), next);
      const second = await call("GET", new URL(next, proxy.url).href);
      assert.equal(second.json.data.length, 1);
    }
  });
}

test("workflows and workspaces: following next shows each once while others come and go, in every order", async (t) => {
  const its = await startPeopleApp(t);
  const ann = await its.signIn("ann");
  const workspace = await its.makeWorkspace(ann);
  for (const query of ["", "&sort=name&order=asc", "&sort=name&sort=updated_at&order=desc&order=asc", "&order=asc"]) {
    const create = async (name: string): Promise<string> =>
      (await ann.call("POST", "/api/v1/workflows", { workspace, body: { name } })).json.data.id;
    const ids = new Set<string>();
    for (let i = 0; i < 12; i++) ids.add(await create(`${i % 4}`));
    const seen: string[] = [];
    for (let target: string | null = `/api/v1/workflows?limit=5${query}`; target !== null; ) {
      const { json }: Json = await ann.call("GET", target, { workspace });
      for (const { id } of json.data) {
        seen.push(id);
        await ann.call("DELETE", `/api/v1/workflows/${id}`, { workspace });
      }
      // In whatever order, one of these comes before the place that the next page begins at.
      if (json.pagination.next !== null) for (const name of [" !", "zz"]) await create(name);
      target = json.pagination.next;
    }
    assert.deepEqual(seen.filter((id) => ids.has(id)).toSorted(), [...ids].toSorted(), query);
    assert.equal(new Set(seen).size, seen.length, query);
    const rest = await ann.call("GET", "/api/v1/workflows?limit=100", { workspace });
    for (const { id } of rest.json.data) await ann.call("DELETE", `/api/v1/workflows/${id}`, { workspace });
  }
});

test("a cursor that cannot be, or one beside an offset, is 422 and names it: workflows and workspaces", async (t) => {
  const { call, owner } = await startTestApp(t);
  const cursor = (text: string) => Buffer.from(text).toString("base64url");
  const cases: [string, string][] = [
    ["/api/v1/workflows", `["${owner.workspaceId}",1,"a"] 5`],
    ["/api/v1/workspaces", `${owner.workspaceId} 5`],
  ];
  for (const [list, good] of cases) {
    assert.equal((await call("GET", `${list}?cursor=${cursor(good)}`)).status, 200);
    for (const query of [
      ...["cursor=", "cursor=1", `cursor=${cursor(`${good}x`)}`, `cursor=${cursor(`["x",1,"a"] 5`)}`],
      `cursor=${cursor(good)}&offset=0`,
      `cursor=${cursor(good)}&cursor=${cursor(good)}`,
      `cursor=${cursor("null 5")}`,
    ]) {
      const { status, json, text } = await call("GET", `${list}?${query}`);
      assert.equal(status, 422, `${query}: ${text}`);
      assert.equal(json.error.details[0].field, "cursor", query);
    }
  }
});

test("filters by name and time of creation, alone and together, for a workspace, a context and a person", async (t) => {
  const its = await startPeopleApp(t);
  const ann = await its.signIn("ann");
  const workspace = await its.makeWorkspace(ann);
  const names = ["notes.txt", "Notes.txt", "notes-2.txt", "caf\u00e9.txt", "100%_a.txt", "\u{1f600}x.txt"];
  const rows = (workspaceId: string | null) => names.map((filename) => ({ userId: ann.userId, workspaceId, filename }));
  insertUploads(its.sql, [
    ...rows(workspace).map((row) => ({ ...row, contextId: workspace })),
    ...rows(workspace).map((row) => ({ ...row, category: "script" })),
  ]);
  insertUploads(its.sql, [...rows(null), ...rows(null)], 100);
  const at = (index: number) => new Date(FIRST_CREATED_AT_MS + index).toISOString();
  const cases: [query: string, indexes: number[]][] = [
    ["filename=notes.txt", [0, 6]],
    ["filename=Notes.txt", [1, 7]],
    ["filename=notes", []],
    ["filename=cafe%CC%81.txt", [3, 9]],
    ["filename_prefix=notes", [0, 2, 6, 8]],
    ["filename_prefix=100%25_", [4, 10]],
    ["filename_prefix=%F0%9F%98%80", [5, 11]],
    ["filename_prefix=notes&filename=notes-2.txt", [2, 8]],
    [`created_after=${at(4)}&created_before=${at(7)}`, [4, 5, 6]],
    [`created_after=${at(7)}&filename_prefix=notes`, [8]],
    [`created_before=${at(0)}`, []],
    [`created_after=${at(11).replace("Z", "%2B00:00")}`, [11]],
  ];
  for (const workspaceHeader of [workspace, undefined]) {
    const first = workspaceHeader === undefined ? 100 : 0;
    for (const [query, indexes] of cases) {
      const shifted = query.replace(/(created_\w+=)([^&]+)/g, (_, name, time) => {
        const ms = Date.parse(decodeURIComponent(time)) + first;
        return `${name}${new Date(ms).toISOString()}`;
      });
      const wanted = indexes.map((index) => at(first + index)).reverse();
      const seen: string[] = [];
      for (let target: string | null = `${UPLOADS}?${shifted}&limit=1`; target !== null; ) {
        const { json, text }: Json = await ann.call(
          "GET",
          target,
          workspaceHeader === undefined ? {} : { workspace: workspaceHeader },
        );
        assert.equal(json.pagination?.total, wanted.length, `${query} ${text}`);
        seen.push(...json.data.map((upload: Json) => upload.created_at));
        target = json.pagination.next;
      }
      assert.deepEqual(seen, wanted, query);
    }
  }
  const inContext = await ann.call("GET", `${UPLOADS}?filename_prefix=notes&context_id=${workspace}`, { workspace });
  assert.equal(inContext.json.pagination.total, 2);
});

test("a name or time that cannot be is 422 and names the parameter", async (t) => {
  const { call } = await startTestApp(t);
  for (const [query, field] of [
    ["filename=", "filename"],
    ["filename=a&filename=b", "filename"],
    [`filename_prefix=${"a".repeat(3_000)}`, "filename_prefix"],
    ["created_after=yesterday", "created_after"],
    ["created_after=2026-05-01", "created_after"],
    ["created_after=2026-05-01T00:00:00", "created_after"],
    ["created_before=2026-05-01T00:00:00+02:00", "created_before"],
    ["created_before=", "created_before"],
  ] as const) {
    const { status, json, text } = await call("GET", `${UPLOADS}?${query}`);
    assert.equal(status, 422, text);
    assert.equal(json.error.details[0].field, field);
  }
});
