import assert from "node:assert/strict";
import { newObjectKey } from "../../../lib/books/object_keys.ts";
import { newId } from "../../../lib/ids.ts";
import { promise } from "./contract.ts";

promise("the store that was taken, its marker's first time and the generation survive a restart", async (its) => {
  assert.deepEqual(await its.books.stores.read(), { record: null, markerWrittenAtMs: null, generation: 0 });
  const record = { place: { kind: "disk", folder: "/d" }, storeId: "s", runId: null, ledgerSeq: 3 } as const;
  await its.books.stores.recordTaken(record, 1);
  assert.deepEqual(await its.books.stores.read(), { record, markerWrittenAtMs: null, generation: 1 });
  await its.books.stores.recordMarked({ ...record, runId: "r" }, 2, 100);
  await its.books.stores.recordMarked({ ...record, runId: "r" }, 3, 200);
  await its.reopen();
  const state = { record: { ...record, runId: "r" }, markerWrittenAtMs: 100, generation: 3 };
  assert.deepEqual(await its.books.stores.read(), state);
});

promise(
  "the books know whether anything was ever booked or has an object, and sample the oldest and newest",
  async (its) => {
    const workspace = await its.makeWorkspace();
    const { stores } = its.books;
    assert.deepEqual(
      [await stores.hasLedger(), await stores.hasUploads(), await stores.sampleUploads()],
      [false, false, []],
    );
    const uploads = [];
    for (let i = 1; i <= 12; i++) uploads.push(await its.confirmed(workspace, i));
    assert.deepEqual([await stores.hasLedger(), await stores.hasUploads()], [true, true]);
    const sample = await stores.sampleUploads();
    for (const { objectKey, sizeBytes } of [uploads.at(0), uploads.at(-1)].filter((upload) => upload !== undefined)) {
      assert.ok(sample.some((each) => each.objectKey === objectKey && each.sizeBytes === sizeBytes));
    }
  },
);

promise("what is known of the time survives a restart, and trust ends a doubt", async (its) => {
  const { createdAtMs, ...times } = await its.books.clock.read();
  assert.deepEqual(times, { trustedAtMs: null, doubtedAtMs: null, scannedAtMs: null, newestRowAtMs: createdAtMs });
  await its.books.clock.recordDoubted(5);
  await its.books.clock.recordScanned(6);
  await its.reopen();
  const doubted = await its.books.clock.read();
  assert.deepEqual([doubted.doubtedAtMs, doubted.scannedAtMs], [5, 6]);
  await its.books.clock.recordTrusted(7);
  const trusted = await its.books.clock.read();
  assert.deepEqual([trusted.trustedAtMs, trusted.doubtedAtMs], [7, null]);
  its.advance(3_600_000);
  await its.create((await its.makeWorkspace()).key);
  assert.equal((await its.books.clock.read()).newestRowAtMs, its.nowMs());
});

promise("doctor's trial upload is of no workspace, expires, and is deleted like any other", async (its) => {
  const uploadId = newId();
  const objectKey = newObjectKey("staging", its.books.installationId, uploadId);
  const trial = { uploadId, objectKey, expiresAtMs: its.nowMs() + 1, nowMs: its.nowMs() };
  assert.equal(await its.books.audit.createTrial(trial), false, "there is nobody to make it for");
  await its.makeWorkspace();
  assert.equal(await its.books.audit.createTrial(trial), true);
  assert.ok(await its.books.audit.isNamed(uploadId, objectKey));
  assert.equal(await its.books.audit.countExpiring(its.nowMs()), 0);
  assert.equal(await its.books.audit.countExpiring(its.nowMs() + 1), 1);
  await its.books.audit.removeTrial(uploadId);
  assert.deepEqual(await its.takeKeys(), [objectKey]);
});

promise("the books of an installation can be audited", async (its) => {
  const [a, b] = [await its.makeWorkspace(), await its.makeWorkspace()];
  const uploads = [await its.confirmed(a, 5), await its.confirmed(b, 7), await its.confirmed(a, 9)];
  await its.create(a.key);
  const { audit } = its.books;
  assert.deepEqual(await audit.findFaults(), []);
  assert.ok((await audit.fileBytes()) > 0);
  assert.deepEqual(await audit.listWorkspaceIds("", 10), [a.workspaceId, b.workspaceId].sort());
  const [first = "", second = ""] = await audit.listWorkspaceIds("", 10);
  assert.deepEqual(await audit.listWorkspaceIds(first, 10), [second]);
  const rows = await audit.listConfirmed("", "g", 2);
  assert.deepEqual(
    rows.map(({ uploadId, sizeBytes }) => [uploadId, sizeBytes]),
    uploads.slice(0, 2).map(({ uploadId, sizeBytes }) => [uploadId, sizeBytes]),
  );
  const last = uploads[2] ?? assert.fail();
  assert.deepEqual(
    (await audit.listConfirmed(rows[1]?.uploadId ?? "", last.uploadId, 10)).map(({ objectKey }) => objectKey),
    [last.objectKey],
  );
});
