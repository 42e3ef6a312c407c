import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { createWorkflowList, type WorkflowFilter } from "../lib/core/workflow_list.ts";
import { DATABASE_FILE } from "../lib/db/db.ts";
import { startTestApp, type TestApp } from "./_app.ts";
import { queryPlans } from "./_query_plans.ts";

type Order = WorkflowFilter["order"];

const everything = { offset: 0, limit: 100, withDefinitions: false };

function insertWorkflows({ sql, owner }: TestApp, count: number): void {
  const insert = sql.prepare(`
    INSERT INTO contexts (id, type, workspace_id, user_id, name, name_source, definition_json, created_at_ms, updated_at_ms)
    VALUES (:id, 'workflow', :workspaceId, :userId, :name, 'user', '{"graph":{}}', 1, :atMs)`);
  for (let i = 0; i < count; i++) {
    const id = `0190a000-0000-7000-8000-${String(i).padStart(12, "0")}`;
    const { workspaceId, userId } = owner;
    insert.run({ id, workspaceId, userId, name: `${"Abc"[(i * 7) % 3]} ${i % 4}`, atMs: (i * 5) % 6 });
  }
}

test("workflows are in the order of plain SQL, however short the steps", async (t) => {
  const app = await startTestApp(t);
  insertWorkflows(app, 24);
  const orders: [Order, string][] = [
    [[{ by: "updated_at", direction: "desc" }], "updated_at_ms DESC"],
    [[{ by: "updated_at", direction: "asc" }], "updated_at_ms"],
    [[{ by: "name", direction: "asc" }], "name"],
    [
      [
        { by: "name", direction: "desc" },
        { by: "updated_at", direction: "asc" },
      ],
      "name DESC, updated_at_ms",
    ],
  ];
  for (const stepRows of [1, 2, 5, 22, 1_000]) {
    const list = createWorkflowList(app.app.core.db, { stepRows });
    for (const [order, orderBy] of orders) {
      for (const search of [undefined, "B", "c 1", "none"]) {
        const wanted = app.sql
          .prepare<unknown[], string>(`
            SELECT id FROM contexts
             WHERE instr(lower(name), lower(?)) > 0 ORDER BY ${orderBy}, id DESC`)
          .pluck()
          .all(search ?? "");
        for (const [offset, limit] of [
          [0, 100],
          [3, 2],
          [20, 5],
        ] as const) {
          const page = await list(app.owner.workspaceId, { ...everything, search, order, offset, limit });
          const ids = page.workflows.map(({ workflowId }) => workflowId);
          assert.deepEqual([ids, page.total], [wanted.slice(offset, offset + limit), wanted.length], orderBy);
        }
      }
    }
  }
});

test("a workflow that changes while the list is read is on it once", async (t) => {
  const app = await startTestApp(t);
  insertWorkflows(app, 6);
  const list = createWorkflowList(app.app.core.db, { stepRows: 1 });
  const order: Order = [{ by: "updated_at", direction: "desc" }];
  const reading = list(app.owner.workspaceId, { ...everything, order });
  // The first step has been made: what it read moves behind all others.
  app.sql.exec("UPDATE contexts SET updated_at_ms = 100 WHERE updated_at_ms = 0");
  const { workflows, total } = await reading;
  const names = workflows.map(({ workflowId }) => workflowId);
  assert.deepEqual([new Set(names).size, total], [6, 6]);
  assert.equal(workflows[0]?.updatedAtMs, 100);
});

test("the list is ordered and searched by an index alone", async (t) => {
  const { dataDir } = await startTestApp(t);
  const [entries, row] = queryPlans(join(dataDir, DATABASE_FILE), (db) => createWorkflowList(db));
  assert.equal(
    entries?.steps,
    "SEARCH contexts USING COVERING INDEX contexts_by_workspace (workspace_id=? AND type=? AND (updated_at_ms,id)>(?,?))",
  );
  assert.equal(row?.steps, "SEARCH contexts USING PRIMARY KEY (id=?)");
});
