import assert from "node:assert/strict";
import { linkSync, statSync } from "node:fs";
import { test } from "node:test";
import { rawPathOf } from "./_books.ts";
import { DAY_MS, type FaultyApp, LEASE_MS, startFaultyApp } from "./_faulty_app.ts";
import { createGate, noAnswer, type StoreCall } from "./_faulty_store.ts";

// Where the confirm is held while its lease runs out. (A script in plain text is read for its counts.)
const HELD: { where: string; hook: "before" | "after"; call: StoreCall["name"] }[] = [
  { where: "before the copy", hook: "before", call: "promote" },
  { where: "after the copy", hook: "after", call: "promote" },
  { where: "before counting", hook: "before", call: "read" },
  { where: "after counting began", hook: "after", call: "read" },
];

// What the cleaner has made of the object by the time the confirm goes on. In none of these may it be charged: even
// where the entry is no longer marked as taken, the object may be gone.
const CLEANED: { what: string; clean: (its: FaultyApp) => Promise<() => Promise<unknown>> }[] = [
  {
    what: "is removing it",
    async clean({ app, hooks }) {
      const gate = createGate();
      hooks.before = ({ name }) => (name === "remove" ? gate.pass() : undefined);
      const pass = app.cleaner.runOnce();
      await gate.reached;
      return () => {
        gate.open();
        return pass;
      };
    },
  },
  {
    what: "has removed it",
    async clean({ app }) {
      await app.cleaner.runOnce();
      return async () => {};
    },
  },
  {
    what: "could not remove it",
    async clean({ app, hooks }) {
      hooks.refuse = (keys) => new Map(keys.map((key) => [key, "the store refused"]));
      await app.cleaner.runOnce();
      return async () => {};
    },
  },
  {
    what: "has removed it and never heard so",
    async clean({ app, hooks }) {
      hooks.after = ({ name }) => {
        if (name === "remove") throw noAnswer();
      };
      await app.cleaner.runOnce();
      return async () => {};
    },
  },
  {
    what: "has removed it, could not book that, and begins anew",
    async clean({ app, clock, sql }) {
      // A trigger of this test's own stands for a database that fails for a while.
      sql.exec(`CREATE TRIGGER test_fault BEFORE UPDATE ON object_removals WHEN NEW.taken_at_ms IS NULL
                BEGIN SELECT RAISE(ABORT, 'out of order'); END`);
      await assert.rejects(app.cleaner.runOnce());
      sql.exec("DROP TRIGGER test_fault");
      // The next pass clears the marks, and as the clock was set back it takes nothing anew.
      clock.setBy(-2 * LEASE_MS);
      await app.cleaner.runOnce();
      return async () => {};
    },
  },
];

for (const { where, hook, call } of HELD) {
  for (const { what, clean } of CLEANED) {
    test(`a confirm held ${where} beyond its lease charges nothing while the cleaner ${what}`, async (t) => {
      const its = await startFaultyApp(t);
      const { hooks, heal, confirm, clock, staged } = its;
      const { id } = await staged("some text", { filename: "a.txt", category: "script" });

      const gate = createGate();
      hooks[hook] = ({ name }) => (name === call ? gate.pass() : undefined);
      const slow = confirm(id);
      await gate.reached;
      heal();
      clock.advance(LEASE_MS + 1);
      const endCleaning = await clean(its);
      gate.open();

      assert.equal((await slow).status, 503);
      await endCleaning();
      assert.equal(its.statusOf(id), "pending");
      assert.equal(its.usedBytes(), 0);
      its.check();

      heal();
      assert.equal((await confirm(id)).status, 200);
      assert.equal(its.usedBytes(), 9);
      await its.checkEnd();
      assert.equal(its.bytesOf(id), "some text");
    });
  }
}

test("a confirm that was asleep for two days leaves no object, though both removals came before its copy", async (t) => {
  const its = await startFaultyApp(t);
  const { app, hooks, heal, confirm, clock, staged } = its;
  const { id } = await staged("some text");
  const gate = createGate();
  hooks.before = ({ name }) => (name === "promote" ? gate.pass() : undefined);
  const slow = confirm(id);
  await gate.reached;
  heal();
  // As when a laptop sleeps: wall time goes on, monotonic time does not, so nothing expires, but the lease is over.
  clock.setBy(2 * DAY_MS);
  await app.cleaner.runOnce();
  assert.deepEqual(its.entries(), []);
  gate.open();
  assert.equal((await slow).status, 503);
  assert.equal(its.statusOf(id), "pending");
  its.check();
  await its.checkEnd();
});

test("a confirm within its lease keeps its row from expiring and its object from being removed", async (t) => {
  const its = await startFaultyApp(t, {
    env: { STOWAGE_PENDING_TTL_SECONDS: "60", STOWAGE_UPLOAD_URL_TTL_SECONDS: "60" },
  });
  const { app, hooks, heal, confirm, clock, staged } = its;
  const { id } = await staged("some text");
  const gate = createGate();
  hooks.after = ({ name }) => (name === "promote" ? gate.pass() : undefined);
  clock.advance(59_000);
  const slow = confirm(id);
  await gate.reached;
  heal();
  clock.advance(LEASE_MS - 1_000);
  const { expired } = await app.cleaner.runOnce();
  assert.equal(expired, 0);
  gate.open();
  assert.equal((await slow).status, 200);
  await its.checkEnd();
  assert.equal(its.bytesOf(id), "some text");
});

test("an upload that expires before its confirm has reserved anything is gone, and nothing is charged", async (t) => {
  const its = await startFaultyApp(t);
  const { app, hooks, heal, confirm, clock, staged } = its;
  const { id } = await staged("some text");
  const gate = createGate();
  hooks.after = ({ name }) => (name === "stat" ? gate.pass() : undefined);
  const slow = confirm(id);
  await gate.reached;
  heal();
  clock.advance(2 * DAY_MS);
  const { expired } = await app.cleaner.runOnce();
  assert.equal(expired, 1);
  gate.open();
  assert.equal((await slow).status, 404);
  assert.equal(its.usedBytes(), 0);
  its.check();
  await its.checkEnd();
});

// What the store says of the copy decides whether the final key is removed once or twice.
for (const { what, isDone, hook } of [
  { what: "without an answer, undone", isDone: false, hook: "before" },
  { what: "without an answer, done", isDone: true, hook: "after" },
] as const) {
  test(`a copy ${what}, fails the confirm and is removed at once and once more a day later`, async (t) => {
    const its = await startFaultyApp(t);
    const { app, hooks, confirm, clock, staged } = its;
    const { id } = await staged("some text");
    hooks[hook] = ({ name }) => {
      if (name === "promote") throw noAnswer();
    };
    assert.equal((await confirm(id)).status, 503);
    assert.equal(its.statusOf(id), "pending");
    its.check();
    assert.equal(its.files().filter((key) => key.startsWith("final/")).length, isDone ? 1 : 0);
    const [lease] = its.entries();
    assert.ok(lease !== undefined && lease.due_at_ms <= clock.now());
    assert.deepEqual(await app.cleaner.runOnce(), { removed: 1, failed: 0, expired: 0 });
    const [again] = its.entries();
    assert.ok(again !== undefined && again.due_at_ms > clock.now() + DAY_MS - 60_000);
    await its.checkEnd();
  });
}

test("a confirm that is refused over quota after its copy gives the object up at once, and for good", async (t) => {
  const its = await startFaultyApp(t, { quotaBytes: 10 });
  const { app, hooks, heal, confirm, sql, staged } = its;
  const { id } = await staged("some text");
  hooks.after = ({ name }) => {
    if (name === "promote") sql.exec("UPDATE workspaces SET storage_bytes_quota = 8");
  };
  const refused = await confirm(id);
  assert.equal(refused.status, 402);
  assert.equal(its.statusOf(id), "pending");
  assert.equal(its.usedBytes(), 0);
  its.check();
  heal();
  await app.cleaner.runOnce();
  assert.deepEqual(its.entries(), []);
  sql.exec("UPDATE workspaces SET storage_bytes_quota = 9");
  assert.equal((await confirm(id)).status, 200);
  await its.checkEnd();
});

test("a confirm whose upload was confirmed by another hand meanwhile answers with what is true, and charges nothing more", async (t) => {
  const its = await startFaultyApp(t);
  const { app, hooks, heal, confirm, sql, dataDir, owner, staged } = its;
  const { id } = await staged("some text");
  const byHand = `final/${app.core.workspaces.installationId()}/${id}/${"a".repeat(32)}`;
  hooks.after = ({ name }) => {
    if (name !== "promote") return;
    heal();
    const path = rawPathOf(dataDir, byHand);
    linkSync(rawPathOf(dataDir, its.keyOf(id)), path);
    const { size, mtimeNs } = statSync(path, { bigint: true });
    const etag = `"${size.toString(16)}-${(mtimeNs / 1000n).toString(16)}"`;
    sql
      .prepare(
        "UPDATE uploads SET status = 'uploaded', object_key = ?, size_bytes = 9, etag = ?, workspace_id = ? WHERE id = ?",
      )
      .run(byHand, etag, owner.workspaceId, id);
  };
  const answer = await confirm(id);
  assert.equal(answer.status, 200);
  assert.equal(answer.json.data.status, "uploaded");
  assert.equal(its.usedBytes(), 9);
  its.check();
  await its.checkEnd();
  assert.equal(its.keyOf(id), byHand);
});
