import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { createLedger } from "../lib/core/ledger.ts";
import { DATABASE_FILE } from "../lib/db/db.ts";
import { type Json, startTestApp, type TestApp } from "./_app.ts";
import { queryPlans } from "./_query_plans.ts";

const EVENTS = "/api/v1/usage/storage-events";

async function events({ call }: TestApp, path = EVENTS): Promise<{ data: Json[]; pagination: Json }> {
  const { status, json, text } = await call("GET", path);
  assert.equal(status, 200, text);
  return json;
}

/** Follows the links from page to page. */
async function allPages(
  app: TestApp,
  path: string,
  between: () => Promise<unknown> = async () => {},
): Promise<Json[][]> {
  const pages: Json[][] = [];
  for (let next: string | null = path; next !== null; ) {
    const { data, pagination } = await events(app, next);
    pages.push(data);
    next = pagination.next;
    await between();
  }
  return pages;
}

/** Writes an adjustment of nothing: the only one that the schema takes while the books are true. */
function adjust({ sql, owner }: TestApp): void {
  sql
    .prepare(`
      INSERT INTO storage_events (workspace_id, kind, bytes, balance_bytes, at_ms)
      SELECT id, 'adjust', 0, storage_bytes_used, 1750000000000 FROM workspaces WHERE id = ?`)
    .run(owner.workspaceId);
}

test("every change of storage is listed, the newest first, with the balance after it", async (t) => {
  const app = await startTestApp(t);
  assert.deepEqual(await events(app).then(({ data, pagination }) => [data, pagination]), [
    [],
    { next: null, prev: null, limit: 50 },
  ]);
  const beforeMs = Date.now();
  const first = await app.confirmedUpload("12345");
  const second = await app.confirmedUpload("12");
  await app.call("DELETE", `/api/v1/uploads/${first.id}`);
  adjust(app);

  const { data } = await events(app);
  const workspace_id = app.owner.workspaceId;
  const booked = data.map(({ seq, created_at, ...event }) => event);
  assert.deepEqual(booked, [
    { workspace_id, upload_id: null, kind: "adjust", bytes: 0, balance_bytes: 2 },
    { workspace_id, upload_id: first.id, kind: "release", bytes: -5, balance_bytes: 2 },
    { workspace_id, upload_id: second.id, kind: "charge", bytes: 2, balance_bytes: 7 },
    { workspace_id, upload_id: first.id, kind: "charge", bytes: 5, balance_bytes: 5 },
  ]);
  assert.deepEqual(
    data.map(({ seq }) => seq),
    [4, 3, 2, 1],
  );
  assert.equal(data[0].created_at, "2025-06-15T15:06:40.000Z");
  assert.match(data[3].created_at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  assert.ok(Math.abs(Date.parse(data[3].created_at) - beforeMs) < 60_000);
});

test("following next shows each event once, whatever is booked meanwhile", async (t) => {
  const app = await startTestApp(t);
  for (let i = 0; i < 6; i++) await app.confirmedUpload("x".repeat(i));
  const pages = await allPages(app, `${EVENTS}?limit=2`, () => app.confirmedUpload("later"));
  assert.deepEqual(
    pages.map((page) => page.map(({ seq }) => seq)),
    [
      [6, 5],
      [4, 3],
      [2, 1],
    ],
  );
  const { pagination } = await events(app, `${EVENTS}?limit=9`);
  assert.deepEqual(pagination, { next: null, prev: null, limit: 9 }, "a full last page has no next");
});

test("filters by kind and upload hold on every page", async (t) => {
  const app = await startTestApp(t);
  const ids: string[] = [];
  for (let i = 0; i < 5; i++) ids.push((await app.confirmedUpload("x")).id);
  adjust(app);
  for (const id of ids) await app.call("DELETE", `/api/v1/uploads/${id}`);

  const kinds = async (query: string) =>
    (await allPages(app, `${EVENTS}?${query}`)).flat().map(({ kind, seq }) => [kind, seq]);
  assert.deepEqual(
    await kinds("kind=charge&limit=2"),
    [5, 4, 3, 2, 1].map((seq) => ["charge", seq]),
  );
  assert.deepEqual(
    await kinds("kind=release&limit=2"),
    [11, 10, 9, 8, 7].map((seq) => ["release", seq]),
  );
  assert.deepEqual(await kinds("kind=adjust"), [["adjust", 6]]);
  assert.deepEqual(await kinds(`upload_id=${ids[1]?.toUpperCase()}&limit=1`), [
    ["release", 8],
    ["charge", 2],
  ]);
  assert.deepEqual(await kinds(`upload_id=${ids[1]}&kind=charge`), [["charge", 2]]);
  assert.deepEqual(await kinds(`upload_id=${ids[1]}&kind=adjust`), []);
});

test("another workspace's events are not seen, nor whether its upload exists", async (t) => {
  const app = await startTestApp(t);
  const other = await app.addOwner();
  const own = await app.confirmedUpload("own");
  const { id } = await app.confirmedUpload("foreign", { owner: other });
  assert.deepEqual(
    (await events(app)).data.map(({ upload_id }) => upload_id),
    [own.id],
  );
  const unknown = "01900000-0000-7000-8000-000000000000";
  for (const uploadId of [id, unknown]) {
    const { data, pagination } = await events(app, `${EVENTS}?upload_id=${uploadId}`);
    assert.deepEqual([data, pagination], [[], { next: null, prev: null, limit: 50 }]);
  }
});

test("the search for one kind finds the same in steps of any length", async (t) => {
  const app = await startTestApp(t);
  const other = await app.addOwner();
  for (let i = 0; i < 4; i++) {
    const { id } = await app.confirmedUpload("x");
    await app.confirmedUpload("x", { owner: other });
    if (i % 2 === 0) await app.call("DELETE", `/api/v1/uploads/${id}`);
  }
  const { workspaceId } = app.owner;
  for (const stepRows of [1, 2, 3, 4, 1_000]) {
    const ledger = createLedger(app.app.core.db, { stepRows });
    const seqs = async (kind: "charge" | "release" | "adjust", limit: number, beforeSeq?: number) =>
      (await ledger.list(workspaceId, { kind, limit, beforeSeq })).map(({ seq }) => seq);
    assert.deepEqual(await seqs("charge", 10), [9, 6, 4, 1]);
    assert.deepEqual(await seqs("charge", 2), [9, 6]);
    assert.deepEqual(await seqs("charge", 10, 6), [4, 1]);
    assert.deepEqual(await seqs("release", 10), [8, 3]);
    assert.deepEqual(await seqs("adjust", 10), []);
  }
});

test("a page is read by indexes alone", async (t) => {
  const { dataDir, sql } = await startTestApp(t);
  const plans = queryPlans(join(dataDir, DATABASE_FILE), (db) => createLedger(db)).map(({ steps }) => steps);
  const index = "SEARCH storage_events USING INDEX storage_events_by_workspace";
  const [newest, ofUpload, ofKind, stepEnd] = plans;
  assert.equal(newest, `${index} (workspace_id=? AND seq<?)`);
  assert.match(ofUpload ?? "", /^SEARCH storage_events USING INDEX storage_events_once \(upload_id=\?\)/);
  assert.equal(ofKind, `${index} (workspace_id=? AND seq>? AND seq<?)`);
  assert.equal(
    stepEnd,
    "SEARCH storage_events USING COVERING INDEX storage_events_by_workspace (workspace_id=? AND seq<?)",
  );
  // SQLite looks at the kind before it looks at the row, but its plans do not say so.
  const columns = sql.prepare("SELECT name FROM pragma_index_info('storage_events_by_workspace')").pluck().all();
  assert.deepEqual(columns, ["workspace_id", "seq", "kind"]);
});
