import assert from "node:assert/strict";
import { test } from "node:test";
import { type Answer, type Json, startTestApp } from "./_app.ts";

const UPLOADS = "/api/v1/uploads";

function idsOf({ json }: Answer): string[] {
  return json.data.map(({ id }: { id: string }) => id);
}

test("the list is counted, newest first, of the workspace alone, with both states", async (t) => {
  const app = await startTestApp(t);
  const other = await app.addOwner();
  await app.createUpload({ key: other.key });
  const empty = await app.call("GET", UPLOADS, { key: other.key });
  assert.equal(empty.json.pagination.total, 1);
  const pending = await app.createUpload();
  const confirmed = await app.confirmedUpload("x");
  const list = await app.call("GET", UPLOADS);
  assert.equal(list.status, 200);
  assert.deepEqual(Object.keys(list.json), ["data", "pagination", "meta"]);
  assert.deepEqual(list.json.pagination, { next: null, prev: null, limit: 50, total: 2 });
  assert.deepEqual(idsOf(list), [confirmed.id, pending.id]);
  const [first, second] = list.json.data;
  assert.deepEqual({ ...first, download_url: "" }, { ...confirmed, download_url: "" });
  assert.equal((await app.call("GET", first.download_url, { key: "" })).text, "x");
  assert.equal(second.download_url, null);
  assert.deepEqual(Object.keys(second), Object.keys(first));
});

test("filters by status, category and context narrow the list and its total", async (t) => {
  const app = await startTestApp(t);
  const pending = await app.createUpload({ filename: "p.txt", category: "script" });
  const script = await app.confirmedUpload("x", { filename: "s.txt", category: "script" });
  const file = await app.confirmedUpload("x");
  const workflow = (await app.call("POST", "/api/v1/workflows", { body: {} })).json.data.id;
  const { id, uploadUrl } = await app.createUpload();
  await app.put(uploadUrl, "x");
  await app.call("POST", `${UPLOADS}/${id}`, { body: { context_type: "workflow", context_id: workflow } });
  for (const [query, ids] of [
    ["status=pending", [pending.id]],
    ["status=uploaded", [id, file.id, script.id]],
    ["category=script", [script.id, pending.id]],
    ["category=dictionary", []],
    ["status=uploaded&category=script", [script.id]],
    [`context_id=${workflow}`, [id]],
    [`context_id=${workflow.toUpperCase()}`, [id]],
    [`context_id=${app.owner.workspaceId}`, [file.id, script.id]],
    [`context_id=${pending.id}`, []],
    ["unknown=1&unknown=2", [id, file.id, script.id, pending.id]],
  ] as const) {
    const list = await app.call("GET", `${UPLOADS}?${query}`);
    assert.deepEqual(idsOf(list), ids, query);
    assert.equal(list.json.pagination.total, ids.length, query);
  }
});

test("the links lead through all pages and back, with the filters, and end", async (t) => {
  const app = await startTestApp(t);
  const ids: string[] = [];
  for (let i = 0; i < 7; i++) ids.unshift((await app.createUpload()).id);
  await app.confirmedUpload("x");
  const seen: string[] = [];
  let last: Json;
  for (let path: string | null = `${UPLOADS}?status=pending&limit=3`; path !== null; ) {
    const page = await app.call("GET", path);
    assert.equal(page.json.pagination.limit, 3);
    assert.equal(page.json.pagination.total, 7);
    seen.push(...idsOf(page));
    last = page.json.pagination;
    path = page.json.pagination.next;
    if (path !== null) assert.ok(path.startsWith("/api/v1/uploads?") && path.includes("status=pending"));
  }
  assert.deepEqual(seen, ids);
  const back = await app.call("GET", last.prev);
  assert.deepEqual(idsOf(back), ids.slice(3, 6));
  const first = await app.call("GET", back.json.pagination.prev);
  assert.deepEqual(idsOf(first), ids.slice(0, 3));
  assert.equal(first.json.pagination.prev, null);
  const exact = await app.call("GET", `${UPLOADS}?status=pending&limit=7`);
  assert.equal(exact.json.pagination.next, null, "a full last page is the last");
  const beyond = await app.call("GET", `${UPLOADS}?offset=1000`);
  assert.equal(beyond.status, 200);
  assert.deepEqual(beyond.json.data, []);
  assert.equal(beyond.json.pagination.next, null);
});

test("a page, filter or id that cannot be is 422 and names the parameter, on every list", async (t) => {
  const { call } = await startTestApp(t);
  const workflow = (await call("POST", "/api/v1/workflows", { body: {} })).json.data.id;
  const lists = [UPLOADS, "/api/v1/workflows", `/api/v1/workflows/${workflow}/uploads`];
  const page = [
    ...["0", "101", "-1", "abc", "", "1.5", "1e1", "0x1", "%201", "١", "99999999999999999999", "null"].map((value) => [
      `limit=${value}`,
      "limit",
    ]),
    ...["-1", "abc", "", "1.5", "99999999999999999999", "999999999"].map((value) => [`offset=${value}`, "offset"]),
    ["limit=1&limit=2", "limit"],
    ["limit=1&limit=1", "limit"],
    ["offset=1&offset=2", "offset"],
  ];
  const filters = [
    ["status=done", "status"],
    ["status=", "status"],
    ["status=pending&status=uploaded", "status"],
    ["category=x", "category"],
    ["context_id=x", "context_id"],
    ["context_id=", "context_id"],
    [`context_id=${workflow}&context_id=${workflow}`, "context_id"],
  ];
  for (const [list, cases] of [...lists.map((list) => [list, page] as const), [UPLOADS, filters] as const]) {
    for (const [query, field] of cases) {
      const answer = await call("GET", `${list}?${query}`);
      assert.equal(answer.status, 422, `${list}?${query}`);
      assert.equal(answer.json.error.code, "VALIDATION_ERROR");
      assert.equal(answer.json.error.details[0].field, field, query);
      assert.match(answer.json.error.message, new RegExp(`^Invalid ${field}: (?!Invalid)`));
    }
    for (const query of ["limit=1", "limit=100", "limit=001", "offset=0", "offset=10000000", "limit=5&offset=5"]) {
      assert.equal((await call("GET", `${list}?${query}`)).status, 200, query);
    }
  }
});
