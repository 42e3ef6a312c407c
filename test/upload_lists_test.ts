import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import type { Principal } from "../lib/core/principals.ts";
import { createUploadLists, type UploadFilter } from "../lib/core/upload_lists.ts";
import { DATABASE_FILE, type Db } from "../lib/db/db.ts";
import { type Json, startTestApp, type TestApp } from "./_app.ts";
import { queryPlans } from "./_query_plans.ts";
import { insertUploads, type UploadRow } from "./_upload_rows.ts";

const UPLOADS = "/api/v1/uploads";
const STRANGER = "01900000-0000-7000-8000-000000000000";

function keyOf({ workspaceId, userId, apiKeyId }: TestApp["owner"]): Principal {
  return { authKind: "api_key", userId, workspaceId, apiKeyId, scopes: [], checkedAtMs: 0 };
}

function personOf({ userId }: TestApp["owner"]): Principal {
  return { authKind: "clerk", userId, workspaceId: null, apiKeyId: null, role: null, scopes: [], checkedAtMs: 0 };
}

/** A database that tells of every statement that is run, with its parameters. */
function watched(db: Db, told: (sql: string, params: Json) => void): Db {
  const wrap = (sql: string, statement: Json): Json =>
    new Proxy(statement, {
      get: (target, name) => {
        if (name === "pluck") return () => wrap(sql, target.pluck());
        if (name !== "get" && name !== "all") return target[name];
        return (...params: Json[]) => {
          told(sql, params[0]);
          return target[name](...params);
        };
      },
    });
  return { ...db, prepare: (sql: string) => wrap(sql, db.prepare(sql)) };
}

/** A workspace with uploads of every kind, another's, and personal ones, mixed. */
async function seeded(app: TestApp): Promise<{ workflow: string; other: TestApp["owner"]; ids: string[] }> {
  const other = await app.addOwner();
  const create = async (key: string) => (await app.call("POST", "/api/v1/workflows", { key, body: {} })).json.data.id;
  const [workflow, foreign] = [await create(app.owner.key), await create(other.key)];
  const { userId, workspaceId } = app.owner;
  const rows = Array.from({ length: 60 }, (_, i): UploadRow => {
    const category = i % 7 === 0 ? "script" : "file";
    if (i % 5 === 4) return { ...other, category, contextId: foreign };
    if (i % 11 === 3) return { userId: other.userId, workspaceId: null, category };
    if (i % 4 === 1) return { userId, workspaceId, category };
    return { userId, workspaceId, category, contextId: i % 3 === 0 ? workflow : workspaceId };
  });
  rows.push({ ...app.owner, category: "dictionary", contextId: workflow });
  return { workflow, other, ids: insertUploads(app.sql, rows) };
}

test("every page and total is that of plain SQL, however short the steps", async (t) => {
  const app = await startTestApp(t);
  const { workflow, other } = await seeded(app);
  const key = keyOf(app.owner);
  const person = personOf(other);
  const filters: UploadFilter[] = [
    {},
    { status: "pending" },
    { status: "uploaded" },
    { category: "script" },
    { category: "dictionary" },
    { status: "pending", category: "script" },
    { contextId: workflow },
    { contextId: workflow, category: "script" },
    { contextId: workflow, status: "pending" },
    { contextId: app.owner.workspaceId },
    { contextId: STRANGER },
  ];
  const plain = app.sql
    .prepare<Json, string>(`
      SELECT id FROM uploads
       WHERE CASE WHEN :workspaceId IS NULL THEN workspace_id IS NULL AND user_id = :userId ELSE workspace_id = :workspaceId END
         AND (:status IS NULL OR status = :status) AND (:category IS NULL OR category = :category)
         AND (:contextId IS NULL OR context_id = :contextId) ORDER BY created_at_ms DESC, id DESC`)
    .pluck();
  for (const stepRows of [1, 2, 3, 7, 16, 1_000]) {
    const lists = createUploadLists(app.app.core.db, { stepRows });
    for (const principal of [key, person]) {
      for (const filter of filters) {
        const { workspaceId, userId } = principal;
        const all = plain.all({ workspaceId, userId, status: null, category: null, contextId: null, ...filter });
        for (const limit of [1, 4, 100]) {
          for (const offset of [0, 1, 5, 17, 100]) {
            const page = await lists.list(principal, filter, { offset, limit });
            const what = JSON.stringify([stepRows, workspaceId, filter, limit, offset]);
            const wanted = all.slice(offset, offset + limit);
            assert.deepEqual([page.uploads.map(({ uploadId }) => uploadId), page.total], [wanted, all.length], what);
            assert.equal(page.nextBeforeId, offset + limit < all.length ? wanted.at(-1) : null, what);
          }
        }
      }
    }
  }
});

test("a workflow's uploads are in one order, bound or named, however short the steps", async (t) => {
  const app = await startTestApp(t);
  const { workflow, ids } = await seeded(app);
  const key = keyOf(app.owner);
  // Every upload there is, by name: pending ones, another workspace's, and those that are bound anyway.
  const definitionJson = JSON.stringify({
    graph: { nodes: [ids, ids, STRANGER, { deep: [{ id: ids[0] }] }, 1, null] },
  });
  const confirmed = app.sql
    .prepare<Json, string>("SELECT id FROM uploads WHERE workspace_id = ? AND status = 'uploaded' ORDER BY id DESC")
    .pluck()
    .all(app.owner.workspaceId);
  for (const stepRows of [1, 2, 9, 20, 1_000]) {
    const lists = createUploadLists(app.app.core.db, { stepRows });
    for (const limit of [1, 4, 100]) {
      for (const offset of [0, 1, 5, 17, 100]) {
        const page = await lists.listOfWorkflow(key, { workflowId: workflow, definitionJson }, { offset, limit });
        assert.deepEqual(
          [page.uploads.map(({ uploadId }) => uploadId), page.total],
          [confirmed.slice(offset, offset + limit), confirmed.length],
          JSON.stringify([stepRows, limit, offset]),
        );
      }
    }
    const seen: string[] = [];
    let beforeId: string | undefined;
    do {
      const page = await lists.listOfWorkflow(
        key,
        { workflowId: workflow, definitionJson },
        { beforeId, offset: 0, limit: 3 },
      );
      seen.push(...page.uploads.map(({ uploadId }) => uploadId));
      beforeId = page.nextBeforeId ?? undefined;
    } while (beforeId !== undefined);
    assert.deepEqual(seen, confirmed);
  }
});

test("no statement reads more entries than a step has, and between steps others get their turn", async (t) => {
  const app = await startTestApp(t);
  const { workflow, ids } = await seeded(app);
  const stepRows = 8;
  const key = keyOf(app.owner);
  const entriesBetween = app.sql
    .prepare<Json, number>(`
      SELECT count(*) FROM uploads
       WHERE workspace_id = :workspaceId AND id >= :fromId AND id < :beforeId AND (:contextId IS NULL OR context_id = :contextId)`)
    .pluck();
  let [statements, together, mostTogether] = [0, 0, 0];
  const lists = createUploadLists(
    watched(app.app.core.db, (sql, params) => {
      if (!/:beforeId/.test(sql)) return;
      statements++;
      // A read that is woken goes on in a tick of its own.
      if (together === 0) {
        process.nextTick(() => {
          together = 0;
        });
      }
      mostTogether = Math.max(mostTogether, ++together);
      if (/:rows/.test(sql)) assert.ok(params.rows <= stepRows, `${params.rows} of ${stepRows}`);
      else {
        const entries = entriesBetween.get(params) ?? 0;
        assert.ok(entries <= stepRows, `${entries} of ${stepRows}: ${sql}`);
      }
    }),
    { stepRows },
  );
  for (const ask of [
    () => lists.list(key, { category: "dictionary", status: "pending" }, { offset: 0, limit: 1 }),
    () => lists.list(key, {}, { offset: 1_000_000, limit: 1 }),
    () => lists.list(key, { contextId: app.owner.workspaceId, category: "dictionary" }, { offset: 0, limit: 1 }),
    () =>
      lists.listOfWorkflow(
        key,
        { workflowId: workflow, definitionJson: JSON.stringify(ids) },
        { offset: 30, limit: 1 },
      ),
  ]) {
    statements = 0;
    await ask();
    assert.ok(statements > 10, `the read was made of ${statements} statements`);
  }
  // Three of the page's last step, and two of the count's first.
  assert.ok(mostTogether <= 5, `${mostTogether} together`);
});

test("every statement follows an index, and filters of a workspace or person need no row", async (t) => {
  const { dataDir } = await startTestApp(t);
  for (const { sql, steps } of queryPlans(join(dataDir, DATABASE_FILE), (db) => createUploadLists(db))) {
    assert.doesNotMatch(steps, /SCAN|TEMP B-TREE/, sql);
    if (/WHERE workspace_id = :workspaceId/.test(sql)) {
      assert.match(
        steps,
        /^SEARCH uploads USING COVERING INDEX uploads_by_workspace \(workspace_id=\? AND (id>\? AND )?id<\?\)$/,
        sql,
      );
    } else if (/WHERE workspace_id IS NULL/.test(sql)) {
      assert.match(
        steps,
        /^SEARCH uploads USING COVERING INDEX uploads_personal \(user_id=\? AND (id>\? AND )?id<\?\)$/,
        sql,
      );
    } else if (/WHERE context_id/.test(sql)) {
      assert.match(
        steps,
        /^SEARCH uploads USING (COVERING )?INDEX uploads_by_context \(context_id=\?( AND (id>\? AND )?id<\?)?\)$/,
        sql,
      );
    } else assert.match(steps, /^SEARCH uploads USING PRIMARY KEY \(id=\?\)$/, sql);
  }
});

test("a context of another workspace takes the same work as one that is not there", async (t) => {
  const app = await startTestApp(t);
  const { other } = await seeded(app);
  const workflow = app.sql.prepare("SELECT id FROM contexts WHERE workspace_id = ?").pluck().get(other.workspaceId);
  const ran: string[] = [];
  const lists = createUploadLists(
    watched(app.app.core.db, (sql) => void ran.push(sql)),
    { stepRows: 2 },
  );
  const work = async (contextId: string): Promise<string[]> => {
    ran.length = 0;
    const page = await lists.list(keyOf(app.owner), { contextId }, { offset: 0, limit: 10 });
    assert.deepEqual(page, { uploads: [], total: 0, nextBeforeId: null });
    return [...ran];
  };
  const unknown = await work(STRANGER);
  for (const id of [String(workflow), other.workspaceId]) assert.deepEqual(await work(id), unknown);
});

for (const list of ["uploads", "workflow"] as const) {
  test(`following next shows every one once, whatever comes and goes meanwhile: ${list}`, async (t) => {
    const app = await startTestApp(t);
    const { owner } = app;
    const workflow = (await app.call("POST", "/api/v1/workflows", { body: {} })).json.data.id;
    const path = list === "uploads" ? `${UPLOADS}?category=script` : `/api/v1/workflows/${workflow}/uploads?`;
    const row: UploadRow = { ...owner, category: "script", contextId: workflow };
    const ids = insertUploads(app.sql, Array(20).fill(row));
    const seen: string[] = [];
    let next: string | null = `${path}&limit=3`;
    for (let page = 0; next !== null; page++) {
      const { status, json, text } = await app.call("GET", next);
      assert.equal(status, 200, text);
      const shown = json.data.map(({ id }: Json) => id);
      seen.push(...shown);
      next = json.pagination.next;
      assert.equal(json.pagination.limit, 3);
      if (next !== null) {
        assert.match(next, /[?&]cursor=[A-Za-z0-9_-]+&/);
        assert.doesNotMatch(next, /offset/);
        if (list === "uploads") assert.match(next, /category=script/);
      }
      // What was shown last goes, with another that was shown before; two more come.
      for (const id of shown.slice(1)) await app.call("DELETE", `${UPLOADS}/${id}`);
      insertUploads(app.sql, [row, row], 100 + 2 * page);
    }
    assert.deepEqual(seen, ids.toReversed());
  });

  test(`a cursor that cannot be, or one beside an offset, is 422 and names it: ${list}`, async (t) => {
    const app = await startTestApp(t);
    const workflow = (await app.call("POST", "/api/v1/workflows", { body: {} })).json.data.id;
    const path = list === "uploads" ? UPLOADS : `/api/v1/workflows/${workflow}/uploads`;
    const cursor = (text: string) => Buffer.from(text).toString("base64url");
    const good = cursor(`${STRANGER} 50`);
    for (const query of [
      "cursor=",
      "cursor=1",
      "cursor=abc",
      `cursor=${good}=`,
      `cursor=${good}%20`,
      `cursor=${good.slice(1)}`,
      `cursor=${good}&cursor=${good}`,
      `cursor=${cursor(`${STRANGER} -1`)}`,
      `cursor=${cursor(`${STRANGER} 01`)}`,
      `cursor=${cursor(`${STRANGER.toUpperCase().replace("0", "G")} 1`)}`,
      `cursor=${cursor(`${STRANGER} 9999999999999999`)}`,
      `cursor=${good}&offset=0`,
      `cursor=${good}&offset=3`,
    ]) {
      const { status, json, text } = await app.call("GET", `${path}?${query}`);
      assert.equal(status, 422, `${query}: ${text}`);
      assert.deepEqual([json.error.code, json.error.details[0].field], ["VALIDATION_ERROR", "cursor"], query);
    }
    const { json } = await app.call("GET", `${path}?cursor=${good}&limit=7`);
    assert.deepEqual(json.pagination, { next: null, prev: `${path}?offset=43&limit=7`, limit: 7, total: 0 });
  });
}

test("those who list at once share a long count; a long one is kept, a short one is not", async (t) => {
  const app = await startTestApp(t);
  await seeded(app);
  const key = keyOf(app.owner);
  let counts = 0;
  const lists = (stepRows: number) =>
    createUploadLists(
      watched(app.app.core.db, (sql) => {
        if (/count\(\*\)/.test(sql)) counts++;
      }),
      { stepRows, keptFactor: 1e9 },
    );
  const [long, short] = [lists(1), lists(1_000)];
  const total = async (by: ReturnType<typeof lists>) => (await by.list(key, {}, { offset: 0, limit: 1 })).total;
  const [before = 0, ...others] = await Promise.all([total(long), total(long), total(long)]);
  assert.deepEqual(others, [before, before]);
  assert.ok(counts <= before + 1, `one pass for three: ${counts}`);
  assert.equal(await total(short), before);
  insertUploads(app.sql, [{ ...app.owner }], 1_000);
  assert.deepEqual([await total(long), await total(short)], [before, before + 1]);
});
