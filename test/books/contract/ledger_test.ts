import assert from "node:assert/strict";
import { isLedgerSound } from "../../../lib/books/ledger.ts";
import { promise } from "./contract.ts";

promise(
  "every charge and release is an event with its balance, newest first, and is found by its number",
  async (its) => {
    const workspace = await its.makeWorkspace();
    const { key, workspaceId } = workspace;
    assert.equal(await its.books.ledger.findLast(), null);
    const [a, b] = [await its.confirmed(workspace, 5), await its.confirmed(workspace, 7)];
    await its.books.uploads.remove(key, a.uploadId);
    const events = await its.books.ledger.list(workspaceId, { limit: 10 });
    assert.deepEqual(
      events.map(({ kind, uploadId, bytes, balanceBytes }) => [kind, uploadId, bytes, balanceBytes]),
      [
        ["release", a.uploadId, -5, 7],
        ["charge", b.uploadId, 7, 12],
        ["charge", a.uploadId, 5, 5],
      ],
    );
    assert.deepEqual(await its.books.ledger.findLast(), events[0]);
    for (const event of events) assert.deepEqual(await its.books.ledger.find(event.seq), event);
    assert.equal(await its.books.ledger.find((events[0]?.seq ?? 0) + 1), null);
  },
);

promise("events are filtered by upload and kind, and paged by their number", async (its) => {
  const workspace = await its.makeWorkspace();
  const { workspaceId } = workspace;
  const [a, b] = [await its.confirmed(workspace, 5), await its.confirmed(workspace, 7)];
  await its.books.uploads.remove(workspace.key, a.uploadId);
  const list = async (filter: Omit<Parameters<typeof its.books.ledger.list>[1], "limit">) =>
    (await its.books.ledger.list(workspaceId, { ...filter, limit: 10 })).map(({ bytes }) => bytes);
  assert.deepEqual(await list({ uploadId: a.uploadId }), [-5, 5]);
  assert.deepEqual(await list({ kind: "charge" }), [7, 5]);
  assert.deepEqual(await list({ uploadId: a.uploadId, kind: "release" }), [-5]);
  assert.deepEqual(await list({ kind: "adjust" }), []);
  const [newest] = await its.books.ledger.list(workspaceId, { limit: 1 });
  assert.deepEqual(await list({ beforeSeq: newest?.seq }), [7, 5]);
  const other = await its.makeWorkspace();
  assert.deepEqual(await its.books.ledger.list(other.workspaceId, { uploadId: b.uploadId, limit: 10 }), []);
});

promise("the sums of a workspace agree, and there is nothing to adjust", async (its) => {
  const workspace = await its.makeWorkspace();
  const { workspaceId } = workspace;
  await its.confirmed(workspace, 5);
  const sums = (await its.books.ledger.sumsOf(workspaceId)) ?? assert.fail();
  assert.ok(isLedgerSound(sums));
  await its.checkSums(workspaceId);
  assert.equal(await its.books.ledger.adjust(workspaceId, its.nowMs()), false);
  assert.equal(await its.books.ledger.sumsOf("no workspace"), undefined);
  assert.equal(await its.books.ledger.adjust("no workspace", its.nowMs()), false);
});

promise("a deleted workspace is emptied in steps, gives all bytes back, and keeps its ledger", async (its) => {
  const workspace = await its.makeWorkspace();
  const { key, workspaceId } = workspace;
  for (let i = 1; i <= 5; i++) await its.confirmed(workspace, i);
  await its.books.workflows.create(key, {});
  assert.equal(await its.books.uploads.removeOfDeletedWorkspaces(2), null);
  await its.books.workspaces.remove("administrator", workspaceId);
  const removed: number[] = [];
  for (;;) {
    const count = await its.books.uploads.removeOfDeletedWorkspaces(2);
    if (count === null) break;
    assert.ok(count <= 2);
    removed.push(count);
  }
  assert.equal(
    removed.reduce((sum, count) => sum + count, 0),
    6,
  );
  const sums = await its.books.ledger.sumsOf(workspaceId);
  assert.deepEqual(sums, { workspaceId, counterBytes: 0, ledgerBytes: 0, uploadsBytes: 0, balanceBytes: 0 });
  assert.equal((await its.books.ledger.list(workspaceId, { limit: 100 })).length, 10);
  assert.equal((await its.takeKeys()).length, 10, "five final and five staging keys");
});

promise("usage and totals add up what the uploads say", async (its) => {
  const [a, b] = [await its.makeWorkspace(100), await its.makeWorkspace()];
  await its.confirmed(a, 5);
  await its.confirmed(b, 7);
  await its.create(a.key, 3);
  await its.create(a.key);
  const { bytesUsed, bytesQuota, uploads, uploadsPending, bytesPendingStated } = await its.books.usage.storageFigures(
    a.workspaceId,
  );
  assert.deepEqual([bytesUsed, bytesQuota, uploads, uploadsPending, bytesPendingStated], [5, 100, 1, 2, 3]);
  const totals = await its.books.totals.read(its.nowMs());
  assert.deepEqual([totals.bytesUsed, totals.uploadsPending, totals.bytesPendingStated], [12, 2, 3]);
});
