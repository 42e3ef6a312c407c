import assert from "node:assert/strict";
import { test } from "node:test";
import { createOutboxReader } from "../lib/core/outbox.ts";
import { createTotals } from "../lib/core/totals.ts";
import { DATABASE_FILE } from "../lib/db/db.ts";
import { startFaultyApp } from "./_faulty_app.ts";
import { queryPlans } from "./_query_plans.ts";

const HEX_32 = "0123456789abcdef0123456789abcdef";

test("the totals are those of plain SQL, however short the steps", async (t) => {
  const its = await startFaultyApp(t);
  const { app, sql, owner, clock } = its;
  const owners = [owner, await its.addOwner(), await its.addOwner()];
  for (const [i, by] of owners.entries()) {
    await its.confirmedUpload("x".repeat(i + 1), { owner: by });
    for (let n = 0; n <= i; n++) await its.createUpload({ key: by.key, size_bytes: 100 + n });
    await its.createUpload({ key: by.key });
  }
  // Two people without a workspace, as sessions have them, and uploads of theirs.
  const installationId = app.core.workspaces.installationId();
  const insert = sql.prepare(`
    INSERT INTO uploads (id, user_id, filename, category, content_type, status, stated_size_bytes, object_key,
                         url_expires_at_ms, expires_at_ms, created_at_ms, updated_at_ms)
    VALUES (:id, :userId, 'a', 'file', 'text/plain', 'pending', :size, :key, 1, 1, 1, 1)`);
  for (const [i, by] of owners.slice(0, 2).entries()) {
    for (let n = 0; n < 3; n++) {
      const id = `0190a000-0000-7000-8000-00000000000${i * 3 + n}`;
      insert.run({ id, userId: by.userId, size: 1_000 * i + n, key: `staging/${installationId}/${id}/${HEX_32}` });
    }
  }
  const nowMs = clock.now() + 1_000;
  sql.exec(`
    UPDATE object_removals SET attempts = 3, due_at_ms = ${nowMs + 9_000}, last_error = 'no', entered_at_ms = ${nowMs - 5_000} WHERE seq = 1;
    UPDATE object_removals SET due_at_ms = ${nowMs + 1}, first_due_at_ms = ${nowMs + 1} WHERE seq = 2`);

  const plain = sql
    .prepare<[], object>(`
      SELECT (SELECT sum(storage_bytes_used) FROM workspaces) AS bytesUsed,
             count(*) AS uploadsPending, sum(stated_size_bytes) AS bytesPendingStated
        FROM uploads WHERE status = 'pending'`)
    .get();
  assert.deepEqual(plain, { bytesUsed: 6, uploadsPending: 15, bytesPendingStated: 3_610 });
  for (const stepRows of [1, 2, 3, 1_000]) {
    const steps = { stepRows, keptFactor: 0 };
    const reader = createOutboxReader(app.core.db, steps);
    const totals = await createTotals(app.core.db, { outbox: reader, ...steps }).read(nowMs);
    const outbox = { due: 1, failing: 1, waiting: 1, oldestDueSinceMs: nowMs - 5_000, deletedOverdue: 0 };
    assert.deepEqual(totals, { ...plain, outbox }, `${stepRows} rows a step`);
  }
});

test("those who ask at once share one reading; a long one is kept, a short one is not", async (t) => {
  const its = await startFaultyApp(t);
  const { app, confirmedUpload } = its;
  await confirmedUpload("1");
  const { outbox } = app.core;
  const [one, other] = [outbox.read(0), outbox.read(0)];
  assert.equal(one, other);
  const short = createTotals(app.core.db, { outbox });
  assert.equal((await short.read(0)).bytesUsed, 1);
  const long = createTotals(app.core.db, { outbox, stepRows: 1, keptFactor: 1e6 });
  // Each takes a step of its own.
  for (let i = 0; i < 10; i++) await its.addOwner();
  for (let i = 0; i < 10; i++) await confirmedUpload("2");
  assert.equal((await short.read(0)).bytesUsed, 11);
  assert.equal((await long.read(0)).bytesUsed, 11);
  await confirmedUpload("3");
  assert.equal((await short.read(0)).bytesUsed, 12);
  assert.equal((await long.read(0)).bytesUsed, 11);
});

test("no statement of the totals reads a table from its beginning, and the pending ones read no row", async (t) => {
  const { dataDir } = await startFaultyApp(t);
  for (const { sql, steps } of queryPlans(`${dataDir}/${DATABASE_FILE}`, (db) =>
    createTotals(db, { outbox: createOutboxReader(db) }),
  )) {
    assert.doesNotMatch(steps, /SCAN (workspaces|uploads|object_removals)|TEMP B-TREE/, sql);
    if (/FROM uploads\b/.test(sql) && !/object_removals/.test(sql))
      assert.doesNotMatch(steps, /uploads USING (?!COVERING)/, sql);
  }
});
