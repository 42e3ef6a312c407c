// Goal: a confirm that copies nothing keeps the same promises: NO-GHOST, NO-ORPHAN, ONCE, and no late PUT comes through.
// Method: the real service on the embedded store, whose small objects are sealed; races at every distance that matters.
import assert from "node:assert/strict";
import { test } from "node:test";
import { startFaultyApp } from "../help/faulty_app.ts";
import { rawStamp } from "../help/raw_objects.ts";

const DISK = { seals: true, env: { STOWAGE_STORE: "disk" } };

test("a confirm of a small object copies nothing and leaves nothing to remove", async (t) => {
  const its = await startFaultyApp(t, DISK);
  const calls: string[] = [];
  its.hooks.before = ({ name }) => void calls.push(name);
  const { id } = await its.staged("some text", { filename: "a.txt", category: "script" });
  const stagingKey = its.keyOf(id);
  const { status, json } = await its.confirm(id);
  assert.deepEqual([status, json.data.char_count], [200, 9]);
  assert.deepEqual(calls, ["stat", "read"]);
  assert.equal(its.keyOf(id), stagingKey.replace("staging", "final"));
  assert.deepEqual(its.entries(), []);
  assert.deepEqual(its.files(), [its.keyOf(id)]);
  its.check();
  assert.equal(await its.app.cleaner.scanStaging(), 0);
  assert.equal((await its.call("DELETE", `/api/v1/uploads/${id}`)).status, 200);
  await its.checkEnd();
  assert.deepEqual(its.files(), []);
});

test("the scan of staging enters no sealed object, however old it is and whichever key it has", async (t) => {
  const its = await startFaultyApp(t, DISK);
  const { id } = await its.staged("first");
  rawStamp(its.dataDir, its.keyOf(id), its.clock.now() - 10 * 86_400_000);
  assert.equal((await its.confirm(id)).status, 200);
  assert.equal(await its.app.cleaner.scanStaging(), 0);
  await its.checkEnd();
  assert.equal(its.bytesOf(id), "first");
});

for (const { what, bytes } of [
  { what: "small", bytes: "the other" },
  { what: "large", bytes: "y".repeat(100_000) },
]) {
  test(`a ${what} PUT that races a confirm comes before or after it, never both`, async (t) => {
    const its = await startFaultyApp(t, DISK);
    const outcomes = new Set<string>();
    for (let round = 0; round < 60; round++) {
      const { id, uploadUrl } = await its.staged("first");
      const [putFirst, turns] = [round % 2 === 0, Math.floor(round / 2)];
      const start = [() => its.put(uploadUrl, bytes), () => its.confirm(id)] as const;
      const early = putFirst ? start[0]() : start[1]();
      for (let turn = 0; turn < turns; turn++) await new Promise(setImmediate);
      const late = putFirst ? start[1]() : start[0]();
      const [put, confirmed] = putFirst ? [await early, await late] : [await late, await early];
      outcomes.add(`${put.status}, ${confirmed.status}`);
      assert.ok([200, 404].includes(put.status) && [200, 503].includes(confirmed.status), `${[...outcomes]}`);
      assert.ok(put.status === 200 || confirmed.status === 200, "one of the two succeeds");
      if (confirmed.status === 503) assert.equal((await its.confirm(id)).status, 200);
      assert.equal(its.bytesOf(id), put.status === 200 ? bytes : "first");
      its.check();
    }
    t.diagnostic([...outcomes].join("; "));
    await its.checkEnd();
  });
}

test("of many confirms and deletes of one upload at once the books keep one order", async (t) => {
  const its = await startFaultyApp(t, DISK);
  for (let round = 0; round < 20; round++) {
    const { id } = await its.staged("first");
    const confirms = Array.from({ length: 4 }, () => its.confirm(id));
    for (let turn = 0; turn < round; turn++) await new Promise(setImmediate);
    const deleted = await its.call("DELETE", `/api/v1/uploads/${id}`);
    assert.equal(deleted.status, 200);
    for (const { status } of await Promise.all(confirms)) assert.ok(status === 200 || status === 404, String(status));
    its.check();
  }
  assert.equal(its.usedBytes(), 0);
  await its.checkEnd();
  assert.deepEqual(its.files(), []);
});

test("a confirm over the quota charges nothing, and the object can be confirmed once there is room", async (t) => {
  const its = await startFaultyApp(t, { ...DISK, quotaBytes: 4 });
  const { id } = await its.staged("first");
  assert.equal((await its.confirm(id)).status, 402);
  assert.equal(its.statusOf(id), "pending");
  its.check();
  its.sql.exec("UPDATE workspaces SET storage_bytes_quota = 5");
  assert.equal((await its.confirm(id)).status, 200);
  await its.checkEnd();
  assert.equal(its.bytesOf(id), "first");
});

test("a repeated confirm with an Idempotency-Key returns the sealed upload", async (t) => {
  const its = await startFaultyApp(t, DISK);
  const { id } = await its.staged("first");
  const repeated = () =>
    its.call("POST", `/api/v1/uploads/${id}`, {
      body: { context_type: "workspace", context_id: its.owner.workspaceId },
      headers: { "Idempotency-Key": "once" },
    });
  assert.deepEqual([(await repeated()).status, (await repeated()).status], [200, 200]);
  assert.equal(its.usedBytes(), 5);
  await its.checkEnd();
});
