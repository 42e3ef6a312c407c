import assert from "node:assert/strict";
import { test } from "node:test";
import { type Answer, type Json, startTestApp, type TestApp } from "./_app.ts";

const WORKFLOWS = "/api/v1/workflows";
const STRANGER = "01890a5d-ac96-774b-bcce-b302099a8057";
const TIMESTAMP = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3,6}Z$/;
const FIELDS = [
  ...["id", "user_id", "name", "name_source", "description", "definition", "runs_count", "last_run_at"],
  ...["last_run_status", "run_status_counts", "created_at", "updated_at"],
];

function assertError(answer: Answer, status: number, code: string, field?: string): void {
  assert.equal(answer.status, status, answer.text);
  assert.equal(answer.json.error.code, code);
  assert.equal(answer.json.error.details?.[0]?.field, field);
}

async function create({ call }: TestApp, body: unknown = {}): Promise<Json> {
  const answer = await call("POST", WORKFLOWS, { body });
  assert.equal(answer.status, 201, answer.text);
  return answer.json.data;
}

const namesOf = ({ json }: Answer): string[] => json.data.map(({ name }: { name: string }) => name);

test("create answers 201 with every field, for both versions of the client", async (t) => {
  const app = await startTestApp(t);
  const definition = {
    graph: { nodes: [{ id: "n", type: "x" }], edges: [] },
    execution: { steps: [], params: {} },
    own: 1,
  };
  const full = await create(app, { name: "  Ünï 名  ", description: " d ", definition });
  assert.deepEqual(Object.keys(full), FIELDS);
  const { id, created_at, updated_at, ...rest } = full;
  assert.match(id, /^[0-9a-f-]{36}$/);
  assert.match(created_at, TIMESTAMP);
  assert.equal(updated_at, created_at);
  const never = {
    ...{ runs_count: 0, last_run_at: null, last_run_status: null },
    run_status_counts: { pending: 0, running: 0, completed: 0, failed: 0, cancelled: 0, paused: 0 },
  };
  assert.deepEqual(rest, {
    user_id: app.owner.userId,
    ...{ name: "Ünï 名", name_source: "user", description: "d", definition },
    ...never,
  });
  const { id: _id, created_at: _created, updated_at: _updated, ...bare } = await create(app, {});
  assert.deepEqual(bare, {
    user_id: app.owner.userId,
    ...{ name: "Untitled workflow", name_source: "placeholder", description: null, definition: {} },
    ...never,
  });
  assert.equal((await create(app, { name: "Ünï 名" })).name, "Ünï 名", "names need not be unique");
  assert.deepEqual((await app.call("GET", `${WORKFLOWS}/${id}`)).json.data, full);
});

test("what a workflow cannot be is 422 and names the field", async (t) => {
  const app = await startTestApp(t);
  const { id } = await create(app);
  for (const [body, field] of [
    [{ name: "" }, "name"],
    [{ name: " \t " }, "name"],
    [{ name: "x".repeat(201) }, "name"],
    [{ name: null }, "name"],
    [{ name: 5 }, "name"],
    [{ name: "a\u0007" }, "name"],
    [{ description: "x".repeat(5_001) }, "description"],
    [{ description: 5 }, "description"],
    [{ definition: null }, "definition"],
    [{ definition: [] }, "definition"],
    [{ definition: "{}" }, "definition"],
    [{ definition: { graph: [] } }, "definition.graph"],
    [{ definition: { graph: { nodes: {} } } }, "definition.graph.nodes"],
    [{ definition: { graph: { nodes: [5] } } }, "definition.graph.nodes.0"],
    [{ definition: { graph: { edges: "x" } } }, "definition.graph.edges"],
    [{ definition: { execution: 5 } }, "definition.execution"],
    [[], "body"],
    ["null", "body"],
  ] as const) {
    assertError(await app.call("POST", WORKFLOWS, { body }), 422, "VALIDATION_ERROR", field);
    assertError(await app.call("PATCH", `${WORKFLOWS}/${id}`, { body }), 422, "VALIDATION_ERROR", field);
  }
  for (const body of [
    { name: "👍".repeat(200) },
    { description: "👍".repeat(5_000) },
    { description: null },
    { x: 1 },
  ]) {
    await create(app, body);
  }
});

test("PATCH changes what is given and nothing else; nothing given is 422", async (t) => {
  const app = await startTestApp(t);
  const made = await create(app, { description: "d", definition: { a: 1 } });
  const patch = (body: unknown) => app.call("PATCH", `${WORKFLOWS}/${made.id}`, { body });
  app.clock.advance(1_000);
  const named = await patch({ name: "N" });
  assert.equal(named.status, 200);
  const { data } = named.json;
  assert.deepEqual(data, { ...made, name: "N", name_source: "user", updated_at: data.updated_at });
  assert.ok(data.updated_at > made.updated_at);
  assert.equal((await patch({ description: null })).json.data.description, null);
  assert.deepEqual((await patch({ definition: {} })).json.data.definition, {});
  assert.equal((await patch({ description: "" })).json.data.name, "N");
  for (const body of [{}, { unknown: 1 }]) assertError(await patch(body), 422, "VALIDATION_ERROR", "body");
});

test("the list is counted, newest change first, and leaves out definitions unless asked", async (t) => {
  const app = await startTestApp(t);
  const empty = await app.call("GET", WORKFLOWS);
  assert.deepEqual(empty.json.data, []);
  assert.deepEqual(empty.json.pagination, { next: null, prev: null, limit: 50, total: 0 });
  const ids: string[] = [];
  for (const name of ["Beta", "alpha", "Gamma beta"]) {
    ids.push((await create(app, { name })).id);
    app.clock.advance(10);
  }
  await app.call("PATCH", `${WORKFLOWS}/${ids[0]}`, { body: { description: "touched" } });
  const list = await app.call("GET", WORKFLOWS);
  assert.deepEqual(namesOf(list), ["Beta", "Gamma beta", "alpha"]);
  assert.deepEqual(list.json.pagination, { next: null, prev: null, limit: 50, total: 3 });
  const withoutDefinition = FIELDS.filter((field) => field !== "definition");
  for (const query of ["", "include_definition=false"]) {
    const { data } = (await app.call("GET", `${WORKFLOWS}?${query}`)).json;
    for (const item of data) assert.deepEqual(Object.keys(item), withoutDefinition);
  }
  const { data } = (await app.call("GET", `${WORKFLOWS}?include_definition=true`)).json;
  for (const item of data) assert.deepEqual(Object.keys(item), FIELDS);

  for (const [query, names] of [
    ["search=BETA", ["Beta", "Gamma beta"]],
    ["search=%25", []],
    ["search=", ["Beta", "Gamma beta", "alpha"]],
    ["sort=name&order=asc", ["Beta", "Gamma beta", "alpha"]],
    ["sort=name&order=desc", ["alpha", "Gamma beta", "Beta"]],
    ["sort=name", ["alpha", "Gamma beta", "Beta"]],
    ["sort=updated_at&order=asc", ["alpha", "Gamma beta", "Beta"]],
    ["sort=runs_count&sort=name&order=desc&order=asc", ["Beta", "Gamma beta", "alpha"]],
    ["sort=name&sort=name&sort=updated_at&order=asc", ["Beta", "Gamma beta", "alpha"]],
    ["order=asc", ["alpha", "Gamma beta", "Beta"]],
    ["status=draft", ["Beta", "Gamma beta", "alpha"]],
    ["status=completed", []],
    ["status=cancelled", []],
    ["has_failed_run=true", []],
    ["has_failed_run=false", ["Beta", "Gamma beta", "alpha"]],
    ["last_run_after=2026-05-01T00:00:00Z", []],
    ["last_run_before=2026-05-01T00:00:00%2B02:00", []],
  ] as const) {
    const found = await app.call("GET", `${WORKFLOWS}?${query}`);
    assert.deepEqual(namesOf(found), names, query);
    assert.equal(found.json.pagination.total, names.length, query);
  }
  const page = await app.call("GET", `${WORKFLOWS}?sort=name&order=asc&search=a&limit=2`);
  assert.deepEqual(namesOf(page), ["Beta", "Gamma beta"]);
  const next = await app.call("GET", page.json.pagination.next);
  assert.deepEqual(namesOf(next), ["alpha"]);
  assert.equal(next.json.pagination.next, null);
  assert.deepEqual(namesOf(await app.call("GET", next.json.pagination.prev)), ["Beta", "Gamma beta"]);
});

test("a filter or order that cannot be is 422 and names the parameter", async (t) => {
  const { call } = await startTestApp(t);
  for (const [query, field] of [
    ["status=done", "status"],
    ["status=draft&status=draft", "status"],
    ["sort=size", "sort.0"],
    ["sort=name&sort=id;DROP", "sort.1"],
    ["order=up", "order.0"],
    ["search=a&search=b", "search"],
    [`search=${"x".repeat(201)}`, "search"],
    ["has_failed_run=yes", "has_failed_run"],
    ["include_definition=1", "include_definition"],
    ["last_run_after=2026-05-01T00:00:00", "last_run_after"],
    ["last_run_before=yesterday", "last_run_before"],
    ["last_run_after=", "last_run_after"],
  ] as const) {
    assertError(await call("GET", `${WORKFLOWS}?${query}`), 422, "VALIDATION_ERROR", field);
  }
});

test("an unknown, foreign or deleted workflow is 404, alike; a malformed or empty id 422", async (t) => {
  const app = await startTestApp(t);
  const other = await app.addOwner();
  const foreign = (await app.call("POST", WORKFLOWS, { key: other.key, body: {} })).json.data.id;
  const deleted = (await create(app)).id;
  const removed = await app.call("DELETE", `${WORKFLOWS}/${deleted}`);
  assert.equal(removed.status, 200);
  assert.deepEqual(removed.json.data, {});
  for (const [method, rest] of [
    ["GET", ""],
    ["PATCH", ""],
    ["DELETE", ""],
    ["GET", "/uploads"],
  ] as const) {
    const call = method === "PATCH" ? { body: { name: "x" } } : {};
    const seen = new Set<string>();
    for (const id of [STRANGER, foreign, deleted]) {
      const answer = await app.call(method, `${WORKFLOWS}/${id}${rest}`, call);
      assertError(answer, 404, "NOT_FOUND");
      seen.add(answer.text.replace(/"meta".*/, ""));
    }
    assert.equal(seen.size, 1);
    for (const id of ["", "x", "wf-1"]) {
      assertError(await app.call(method, `${WORKFLOWS}/${id}${rest}`, call), 422, "VALIDATION_ERROR", "workflow_id");
    }
  }
  assert.equal((await app.call("GET", WORKFLOWS)).json.pagination.total, 0);
  assert.equal((await app.call("GET", `${WORKFLOWS}/${foreign}`, { key: other.key })).status, 200);
  for (const path of ["/validate", `/${foreign}/markdown`, `/${foreign}/runs`, `/${foreign}/duplicate`]) {
    const answer = await app.call("POST", WORKFLOWS + path, { body: {} });
    assert.ok(answer.status === 404 || answer.status === 405, path);
  }
});

test("a workflow's uploads are the confirmed ones bound to it or named by it, newest first", async (t) => {
  const app = await startTestApp(t);
  const workflow = (await create(app)).id;
  const bind = async (context_type: string, context_id: string, key = app.owner.key): Promise<string> => {
    const { id, uploadUrl } = await app.createUpload({ key });
    await app.put(uploadUrl, "x");
    const answer = await app.call("POST", `/api/v1/uploads/${id}`, { key, body: { context_type, context_id } });
    assert.equal(answer.status, 200, answer.text);
    app.clock.advance(10);
    return id;
  };
  const path = `${WORKFLOWS}/${workflow}/uploads`;
  const empty = await app.call("GET", path);
  assert.deepEqual(empty.json.data, []);
  assert.deepEqual(empty.json.pagination, { next: null, prev: null, limit: 50, total: 0 });

  const elsewhere = await bind("workspace", app.owner.workspaceId);
  const bound = [await bind("workflow", workflow), await bind("workflow", workflow)];
  const pending = (await app.createUpload()).id;
  const other = await app.addOwner();
  const foreign = await bind("workspace", other.workspaceId, other.key);
  await bind("workflow", (await create(app)).id);
  assert.deepEqual(
    (await app.call("GET", path)).json.data.map(({ id }: Json) => id),
    [...bound].reverse(),
  );

  // The definition names some by id; none of them shows what its caller could not see anyway.
  const nodes = [elsewhere, pending, foreign, STRANGER, bound[0]].map((upload_id) => ({
    type: "script_input",
    upload_id,
  }));
  await app.call("PATCH", `${WORKFLOWS}/${workflow}`, { body: { definition: { graph: { nodes, edges: [] } } } });
  const list = await app.call("GET", path);
  const expected = [...bound].reverse().concat(elsewhere);
  assert.deepEqual(
    list.json.data.map(({ id }: Json) => id),
    expected,
  );
  assert.equal(list.json.pagination.total, 3);
  for (const item of list.json.data) {
    const shown = (await app.call("GET", `/api/v1/uploads/${item.id}`)).json.data;
    assert.deepEqual({ ...item, download_url: "" }, { ...shown, download_url: "" });
    assert.equal((await app.call("GET", item.download_url, { key: "" })).text, "x");
  }
  const seen: string[] = [];
  for (let next: string | null = `${path}?limit=2`; next !== null; ) {
    const page: Answer = await app.call("GET", next);
    seen.push(...page.json.data.map(({ id }: Json) => id));
    next = page.json.pagination.next;
  }
  assert.deepEqual(seen, expected);

  assert.equal((await app.call("DELETE", `/api/v1/uploads/${bound[1]}`)).status, 200);
  assert.equal((await app.call("GET", path)).json.pagination.total, 2);
  await app.call("DELETE", `${WORKFLOWS}/${workflow}`);
  assert.equal((await app.call("GET", `/api/v1/uploads/${bound[0]}`)).status, 200, "uploads outlive their workflow");
  assert.equal((await app.call("DELETE", `/api/v1/uploads/${bound[0]}`)).status, 200);
});
