import assert from "node:assert/strict";
import { newObjectKey } from "../../../lib/books/object_keys.ts";
import { newId } from "../../../lib/ids.ts";
import { DAY_MS, type Its, LEASE_MS, promise } from "./contract.ts";

/** Takes what is due. */
function take(its: Its, limit = 100) {
  return its.books.removals.takeDue(its.nowMs(), limit);
}

/** Enters an object that a scan has found. */
async function enter(its: Its, sizeBytes = 1): Promise<{ objectKey: string; uploadId: string }> {
  const uploadId = newId();
  const objectKey = newObjectKey("final", its.books.installationId, uploadId);
  assert.ok(await its.books.removals.enterFound({ objectKey, uploadId, sizeBytes, nowMs: its.nowMs() }));
  return { objectKey, uploadId };
}

promise("an entry is taken once, and stays until it is settled", async (its) => {
  const entered = [await enter(its), await enter(its), await enter(its)];
  const first = await take(its, 2);
  const second = await take(its, 2);
  assert.deepEqual([first.length, second.length, (await take(its)).length], [2, 1, 0]);
  assert.deepEqual(
    [...first, ...second].map(({ objectKey }) => objectKey).sort(),
    entered.map(({ objectKey }) => objectKey).sort(),
  );
  await its.books.removals.settle(first, new Map(), its.nowMs());
  for (const { objectKey } of first) assert.equal(await its.books.audit.isEntered(objectKey), false);
  for (const { objectKey } of second) assert.equal(await its.books.audit.isEntered(objectKey), true);
});

promise("what a process had taken when it ended is put back", async (its) => {
  const { objectKey } = await enter(its);
  assert.equal((await take(its)).length, 1);
  await its.reopen();
  assert.equal((await take(its)).length, 0);
  await its.books.removals.clearTaken();
  assert.deepEqual(await its.takeKeys(), [objectKey]);
});

promise("a removal that failed is retried, later and later, and never given up", async (its) => {
  const { objectKey } = await enter(its);
  let pauseMs = 0;
  for (let attempts = 0; attempts < 30; attempts++) {
    const taken = await take(its);
    assert.deepEqual(
      taken.map((entry) => [entry.objectKey, entry.attempts]),
      [[objectKey, attempts]],
    );
    await its.books.removals.settle(taken, new Map([[objectKey, "no reason"]]), its.nowMs());
    assert.deepEqual(await its.books.audit.listFailing(10), [
      { objectKey, attempts: attempts + 1, lastError: "no reason" },
    ]);
    const dueAtMs = (await its.books.removals.nextDueAtMs()) ?? assert.fail();
    assert.ok(dueAtMs > its.nowMs() && dueAtMs <= its.nowMs() + DAY_MS);
    pauseMs = dueAtMs - its.nowMs();
    its.advance(pauseMs - 1);
    assert.deepEqual(await its.takeKeys(), []);
    its.advance(1);
  }
  assert.ok(pauseMs > 60_000, "the last pause is long");
});

promise("an entry that is postponed waits until then, and it counts as no attempt", async (its) => {
  const { objectKey } = await enter(its);
  await its.books.removals.postpone(await take(its), "the store is down", its.nowMs() + 5_000);
  assert.equal(await its.books.removals.nextDueAtMs(), its.nowMs() + 5_000);
  assert.deepEqual(await its.takeKeys(), []);
  its.advance(5_000);
  const [entry] = await take(its);
  assert.deepEqual([entry?.objectKey, entry?.attempts], [objectKey, 0]);
});

promise("a confirm's object is removed when its lease runs out, and once more a day later", async (its) => {
  const { key, workspaceId } = await its.makeWorkspace();
  const { uploadId } = await its.create(key);
  const reservation = { workspaceId, sizeBytes: 5, leaseMs: LEASE_MS };
  const finalKey = await its.books.uploads.reserveFinalKey(uploadId, reservation);
  its.advance(LEASE_MS - 1);
  assert.deepEqual(await its.takeKeys(), []);
  its.advance(1);
  assert.deepEqual(await its.removeDue(), [finalKey]);
  assert.deepEqual(await its.takeKeys(), []);
  its.advance(DAY_MS);
  assert.deepEqual(await its.removeDue(), [finalKey]);
  assert.equal(await its.books.audit.isEntered(finalKey), false);
});

promise(
  "a lease that is ended early is due at once; a second removal follows if the copy may land late",
  async (its) => {
    for (const mayLandLate of [false, true]) {
      const uploadId = newId();
      const objectKey = newObjectKey("final", its.books.installationId, uploadId);
      const ended = { uploadId, sizeBytes: 5, nowMs: its.nowMs(), mayLandLate };
      await its.books.removals.lease(objectKey, { ...ended, leaseMs: LEASE_MS });
      await its.books.removals.endLease(objectKey, ended);
      assert.deepEqual(await its.removeDue(), [objectKey]);
      assert.equal(await its.books.audit.isEntered(objectKey), mayLandLate);
      await its.books.removals.endLease(objectKey, ended);
      assert.equal(await its.books.audit.isEntered(objectKey), true, "an entry that is gone is made again");
      await its.removeDue();
    }
  },
);

promise("leases are taken back, unless their removal has begun", async (its) => {
  const ids = [newId(), newId()];
  const keys = ids.map((uploadId) => newObjectKey("final", its.books.installationId, uploadId));
  for (const [i, leaseMs] of [LEASE_MS, 1].entries()) {
    const lease = { uploadId: ids[i] ?? "", sizeBytes: 1, nowMs: its.nowMs(), leaseMs };
    await its.books.removals.lease(keys[i] ?? "", lease);
  }
  its.advance(1);
  assert.deepEqual(await its.takeKeys(), [keys[1]]);
  await its.books.removals.takeBackLeases(keys);
  assert.deepEqual(await Promise.all(keys.map((objectKey) => its.books.audit.isEntered(objectKey))), [false, true]);
});

promise("an object that an upload names, or that is entered already, is not entered", async (its) => {
  const workspace = await its.makeWorkspace();
  for (const { objectKey, uploadId } of [
    await its.create(workspace.key),
    await its.confirmed(workspace, 5),
    await enter(its),
  ]) {
    const found = { objectKey, uploadId, sizeBytes: 1, nowMs: its.nowMs() };
    assert.equal(await its.books.removals.enterFound(found), false);
  }
});

promise("the outbox is counted: due, failing, waiting, and since when", async (its) => {
  const none = { due: 0, failing: 0, waiting: 0, oldestDueSinceMs: null, deletedOverdue: 0 };
  assert.deepEqual(await its.books.outbox.read(its.nowMs()), none);
  const { objectKey, uploadId } = await enter(its);
  const sinceMs = its.nowMs();
  await enter(its);
  const leased = newObjectKey("final", its.books.installationId, uploadId);
  await its.books.removals.lease(leased, { uploadId, sizeBytes: 1, nowMs: its.nowMs(), leaseMs: LEASE_MS });
  const taken = (await take(its)).filter((entry) => entry.objectKey === objectKey);
  await its.books.removals.settle(taken, new Map([[objectKey, "no"]]), its.nowMs());
  const figures = { due: 1, failing: 1, waiting: 1, oldestDueSinceMs: sinceMs, deletedOverdue: 0 };
  assert.deepEqual(await its.books.outbox.read(its.nowMs()), figures);
  assert.deepEqual((await its.books.totals.read(its.nowMs())).outbox, figures);
});
