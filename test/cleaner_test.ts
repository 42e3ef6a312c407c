import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import type { ListedObject } from "../lib/store/objects.ts";
import { initDataDir, startTestApp, temporaryFolder, testClock, testConfig } from "./_app.ts";
import { enterRemovals } from "./_enter_removals.ts";
import { DAY_MS, type FaultyApp, startFaultyApp, stillClock } from "./_faulty_app.ts";
import { createGate, faultyStore, noAnswer } from "./_faulty_store.ts";
import { until } from "./_until.ts";

const HOUR_MS = 3_600_000;
/** As many as the cleaner hands to the store at a time. */
const BATCH_KEYS = 4_000;

/** Confirms and deletes so many uploads; returns the keys of their objects, in order. */
async function deleted(its: FaultyApp, count: number): Promise<string[]> {
  const keys: string[] = [];
  for (let i = 0; i < count; i++) {
    const { id } = await its.confirmedUpload(`upload ${i}`);
    keys.push(its.keyOf(id));
    assert.equal((await its.call("DELETE", `/api/v1/uploads/${id}`)).status, 200);
  }
  return keys;
}

test("a removal that fails is repeated later each time, shows why, and is never given up", async (t) => {
  const its = await startFaultyApp(t);
  const { app, clock, hooks } = its;
  const [key = ""] = await deleted(its, 1);
  hooks.refuse = () => new Map([[key, "the disk is on fire"]]);
  const entryOfKey = () => {
    const entry = its.entries().find(({ object_key }) => object_key === key);
    assert.ok(entry !== undefined);
    return entry;
  };
  const waitsMs: number[] = [];
  for (let attempt = 1; attempt <= 40; attempt++) {
    assert.equal((await app.cleaner.runOnce()).failed, 1);
    const { attempts, last_error, taken_at_ms, due_at_ms } = entryOfKey();
    assert.deepEqual([attempts, last_error, taken_at_ms], [attempt, "the disk is on fire", null]);
    // Nothing before its time.
    assert.equal((await app.cleaner.runOnce()).failed, 0);
    waitsMs.push(due_at_ms - clock.now());
    clock.advance(due_at_ms - clock.now());
  }
  for (const [i, waitMs] of waitsMs.entries()) {
    const fullMs = Math.min(HOUR_MS, 1_000 * 2 ** i);
    assert.ok(waitMs <= fullMs && waitMs >= fullMs / 2, `the wait after attempt ${i + 1}: ${waitMs} ms`);
  }
  its.check();
  its.heal();
  await app.cleaner.runOnce();
  assert.deepEqual(
    its.files().filter((object) => object === key),
    [],
  );
  await its.checkEnd();
});

test("one key that cannot be removed does not hold up the others", async (t) => {
  const its = await startFaultyApp(t);
  const [bad = "", ...good] = await deleted(its, 5);
  its.hooks.refuse = () => new Map([[bad, "no"]]);
  await its.app.cleaner.runOnce();
  assert.deepEqual(its.files(), [bad]);
  assert.equal(good.length, 4);
  its.check();
  await its.checkEnd();
});

test("while the store is down one key probes, no attempt is burnt, and deletes go on", async (t) => {
  const its = await startFaultyApp(t);
  const { app, hooks } = its;
  const keys = await deleted(its, 5);
  const probes: (readonly string[])[] = [];
  hooks.before = (call) => {
    if (call.name !== "remove") return;
    probes.push(call.keys);
    throw noAnswer();
  };
  for (let pass = 0; pass < 6; pass++) {
    assert.deepEqual(await app.cleaner.runOnce(), { removed: 0, failed: 0, expired: 0 });
    its.clock.advance(1);
  }
  assert.ok((probes[0]?.length ?? 0) > 1, "the first batch found out");
  assert.deepEqual(
    probes.slice(1).map((probe) => probe.length),
    [1, 1, 1, 1, 1],
  );
  assert.ok(new Set(probes.slice(1).flat()).size > 1, "not the same key each time: it may be the one that is at fault");
  const before = its.entries();
  assert.deepEqual(
    before.filter(({ attempts, taken_at_ms }) => attempts > 0 || taken_at_ms !== null),
    [],
  );
  assert.ok(before.some(({ last_error }) => last_error === noAnswer().message));

  keys.push(...(await deleted(its, 3)));
  assert.equal(its.usedBytes(), 0);
  its.check();
  assert.deepEqual(
    its
      .files()
      .filter((key) => key.startsWith("final/"))
      .sort(),
    keys.sort(),
  );

  its.heal();
  await app.cleaner.runOnce();
  assert.deepEqual(its.files(), []);
  await its.checkEnd();
});

test("the running cleaner drains what a store that was down left behind, by itself", async (t) => {
  const its = await startFaultyApp(t, { cleansInBackground: true });
  let probes = 0;
  its.hooks.before = ({ name }) => {
    if (name !== "remove") return;
    probes++;
    throw noAnswer();
  };
  await deleted(its, 20);
  await until(() => probes >= 2, "a second probe");
  assert.ok(its.files().length >= 20);
  its.check();
  its.heal();
  await until(() => its.files().length === 0, "the backlog is drained");
  await its.close();
});

test("deletes that come in while the store is down do not hasten its probes", async (t) => {
  const its = await startFaultyApp(t, { cleansInBackground: true });
  let probes = 0;
  its.hooks.before = ({ name }) => {
    if (name !== "remove") return;
    probes++;
    throw noAnswer();
  };
  const upload = await its.confirmedUpload("first");
  await its.call("DELETE", `/api/v1/uploads/${upload.id}`);
  await until(() => probes >= 1, "the first probe");
  const startedMs = performance.now();
  const [probesBefore, wakes] = [probes, 200];
  for (let i = 0; i < wakes; i++) {
    its.app.cleaner.wake();
    await new Promise((resolve) => setImmediate(resolve));
  }
  // The shortest pause between two probes is half a second, so that many may have come and no more, however slow this is.
  assert.ok(probes - probesBefore <= 1 + Math.ceil((performance.now() - startedMs) / 500));
});

test("a delete during a pass is not forgotten when the pass ends", async (t) => {
  const its = await startFaultyApp(t, { cleansInBackground: true });
  const first = await its.confirmedUpload("first");
  const second = await its.confirmedUpload("second");
  await until(() => its.files().length === 2, "the staging objects are removed");
  const [firstKey, secondKey] = [its.keyOf(first.id), its.keyOf(second.id)];
  const gate = createGate();
  its.hooks.after = ({ name, keys }) => (name === "remove" && keys.includes(firstKey) ? gate.pass() : undefined);
  assert.equal((await its.call("DELETE", `/api/v1/uploads/${first.id}`)).status, 200);
  await gate.reached;
  assert.equal((await its.call("DELETE", `/api/v1/uploads/${second.id}`)).status, 200);
  assert.ok(its.files().includes(secondKey));
  gate.open();
  await until(() => its.files().length === 0, "the second object is removed as well");
});

test("stopping waits for the batch under way, books it, and begins no other", async (t) => {
  const its = await startFaultyApp(t, { cleansInBackground: true });
  await until(() => its.entries().every(({ due_at_ms }) => due_at_ms > 0), "nothing is left to do");
  const first = await its.confirmedUpload("first");
  const second = await its.confirmedUpload("second");
  const [firstKey, secondKey] = [its.keyOf(first.id), its.keyOf(second.id)];
  const gate = createGate();
  its.hooks.after = ({ name, keys }) => (name === "remove" && keys.includes(firstKey) ? gate.pass() : undefined);
  await its.call("DELETE", `/api/v1/uploads/${first.id}`);
  await gate.reached;
  await its.call("DELETE", `/api/v1/uploads/${second.id}`);
  const stopped = its.app.cleaner.stop();
  gate.open();
  await stopped;
  assert.deepEqual(
    its.entries().filter(({ object_key, taken_at_ms }) => object_key === firstKey || taken_at_ms !== null),
    [],
  );
  assert.ok(its.files().includes(secondKey));
  its.check();
  its.app.cleaner.wake();
  assert.deepEqual(await its.app.cleaner.runOnce(), { removed: 0, failed: 0, expired: 0 });
});

test("an object that is gone already is removed", async (t) => {
  const its = await startFaultyApp(t);
  const { id } = await its.createUpload();
  assert.equal((await its.call("DELETE", `/api/v1/uploads/${id}`)).status, 200);
  assert.deepEqual(await its.app.cleaner.runOnce(), { removed: 1, failed: 0, expired: 0 });
  await its.checkEnd();
});

test("entries that a killed process was removing are taken up at start", async (t) => {
  const dataDir = `${await temporaryFolder(t)}/data`;
  const clock = stillClock();
  const owner = await initDataDir(testConfig(dataDir), 1_000);
  const options = { dataDir, owner, clock };
  const killed = await startFaultyApp(t, options);
  await deleted(killed, 3);
  // As a kill leaves them: taken, durably, and never settled.
  killed.sql.prepare("UPDATE object_removals SET taken_at_ms = ?").run(clock.now());
  await killed.close();

  const its = await startFaultyApp(t, { ...options, cleansInBackground: true });
  await until(() => its.files().length === 0, "the objects are removed");
  await its.app.cleaner.stop();
  clock.advance(3 * DAY_MS);
  await its.close();
  const later = await startFaultyApp(t, options);
  await later.checkEnd();
});

test("a pass that could not book what it did is made good by the next", async (t) => {
  const its = await startFaultyApp(t);
  const { app, sql } = its;
  await deleted(its, 3);
  // A trigger of this test's own stands for a database that fails for a while.
  sql.exec(`CREATE TRIGGER test_fault BEFORE DELETE ON object_removals BEGIN SELECT RAISE(ABORT, 'out of order'); END`);
  await assert.rejects(app.cleaner.runOnce());
  its.check();
  sql.exec("DROP TRIGGER test_fault");
  await app.cleaner.runOnce();
  assert.deepEqual(its.files(), []);
  await its.checkEnd();
});

test("a backlog is removed by one call, more than one request of S3 takes, and each entry is booked for itself", async (t) => {
  const its = await startFaultyApp(t);
  const { app, hooks } = its;
  enterRemovals(its, 1_600);
  const sizes: number[] = [];
  const bad: string[] = [];
  hooks.before = ({ keys }) => void sizes.push(keys.length);
  // The first and the last, which are booked by different writes.
  hooks.refuse = (keys) => {
    const refused = new Set([keys.at(0) ?? "", keys.at(-1) ?? ""]);
    bad.push(...refused);
    return new Map([...refused].map((key) => [key, "no"]));
  };
  const { removed, failed } = await app.cleaner.runOnce();
  assert.deepEqual(sizes, [1_600]);
  assert.deepEqual([removed, failed], [1_598, 2]);
  assert.deepEqual(
    its
      .entries()
      .map(({ object_key, attempts, taken_at_ms }) => [object_key, attempts, taken_at_ms])
      .sort(),
    bad.map((key) => [key, 1, null]).sort(),
  );
  await its.checkEnd();
});

test("while the store removes a batch the one before is booked", async (t) => {
  const its = await startFaultyApp(t);
  enterRemovals(its, BATCH_KEYS + 1);
  const calls: number[] = [];
  its.hooks.before = async ({ keys }) => {
    if (calls.push(keys.length) === 2) await until(() => its.entries().length === 1, "the first batch is booked");
  };
  assert.deepEqual(await its.app.cleaner.runOnce(), { removed: BATCH_KEYS + 1, failed: 0, expired: 0 });
  assert.deepEqual(calls, [BATCH_KEYS, 1]);
  await its.checkEnd();
});

test("a booking that fails beside a removal ends the pass after that removal, and the next pass makes both good", async (t) => {
  const its = await startFaultyApp(t);
  const { app, sql, hooks } = its;
  enterRemovals(its, BATCH_KEYS + 1);
  const gate = createGate();
  let calls = 0;
  hooks.before = () => (++calls === 2 ? gate.pass() : undefined);
  hooks.after = () => {
    if (calls === 1) {
      sql.exec(
        `CREATE TRIGGER test_fault BEFORE DELETE ON object_removals BEGIN SELECT RAISE(ABORT, 'out of order'); END`,
      );
    }
  };
  let hasEnded = false;
  const pass = app.cleaner.runOnce().finally(() => {
    hasEnded = true;
  });
  pass.catch(() => {});
  await gate.reached;
  // The booking runs meanwhile, and fails.
  await delay(100);
  assert.equal(hasEnded, false, "the marks of a removal that is under way must not be cleared");
  gate.open();
  await assert.rejects(pass, /out of order/);
  its.check();
  sql.exec("DROP TRIGGER test_fault");
  hooks.before = undefined;
  await app.cleaner.runOnce();
  assert.deepEqual(its.entries(), []);
  await its.checkEnd();
});

test("expired uploads go in bounded steps, all of them", async (t) => {
  const its = await startFaultyApp(t);
  const { app, sql, clock, owner } = its;
  const installationId = app.core.workspaces.installationId();
  sql.exec(`
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1201),
         ids(id) AS (SELECT printf('0190a000-0000-7000-8000-%012x', i) FROM n)
    INSERT INTO uploads (id, user_id, workspace_id, filename, category, content_type, status, object_key, url_expires_at_ms,
                         expires_at_ms, created_at_ms, updated_at_ms)
    SELECT id, '${owner.userId}', '${owner.workspaceId}', 'a.bin', 'file', 'application/octet-stream', 'pending',
           'staging/${installationId}/' || id || '/' || printf('%032x', 1), 1, 1, 1, 1 FROM ids`);
  const { id } = await its.staged("young");
  assert.deepEqual(await app.cleaner.runOnce(), { removed: 1_201, failed: 0, expired: 1_201 });
  assert.equal(its.statusOf(id), "pending");
  clock.advance(DAY_MS);
  assert.equal((await app.cleaner.runOnce()).expired, 1);
  await its.checkEnd();
});

test("the running cleaner looks through staging by itself, once an hour, and a foreign object does not stop it", async (t) => {
  const clock = testClock();
  const { hooks, wrapStore } = faultyStore();
  let late: ListedObject | undefined;
  let looks = 0;
  const its = await startTestApp(t, {
    clock,
    wrapStore: (objects) => ({
      ...wrapStore(objects),
      async *list(prefix) {
        looks++;
        const [sizeBytes, etag, modifiedAtMs] = [4, '"4"', 1];
        // A bucket can hold what others have put there, under our prefix too.
        yield { objectKey: `${prefix}README`, sizeBytes, etag, modifiedAtMs };
        if (late !== undefined) yield late;
        yield* objects.list(prefix);
      },
    }),
  });
  const removed: string[] = [];
  hooks.before = ({ name, keys }) => {
    if (name === "remove") removed.push(...keys);
  };
  const installationId = its.app.core.workspaces.installationId();
  const objectKey = `staging/${installationId}/0190a000-0000-7000-8000-000000000000/${"a".repeat(32)}`;
  late = { objectKey, sizeBytes: 4, etag: '"4"', modifiedAtMs: 1 };
  its.app.cleaner.wake();
  await its.confirmedUpload("something to do");
  assert.equal(looks, 0);
  clock.advance(HOUR_MS);
  its.app.cleaner.wake();
  await until(() => removed.includes(objectKey), "the late arrival is removed");
  its.app.cleaner.wake();
  await its.confirmedUpload("something to do");
  assert.equal(looks, 1);
  await its.app.cleaner.stop();
  await its.close();
});

test("a look that fails is made again an hour later", async (t) => {
  const clock = testClock();
  let looks = 0;
  const its = await startTestApp(t, {
    clock,
    wrapStore: (objects) => ({
      ...objects,
      // biome-ignore lint/correctness/useYield: it fails before it has found anything
      async *list() {
        looks++;
        throw noAnswer();
      },
    }),
  });
  for (let hour = 1; hour <= 2; hour++) {
    clock.advance(HOUR_MS);
    its.app.cleaner.wake();
    await until(() => looks === hour, `look ${hour}`);
  }
  await its.confirmedUpload("things go on");
});
