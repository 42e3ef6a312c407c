import assert from "node:assert/strict";
import { parseObjectKey } from "../../../lib/books/object_keys.ts";
import { DAY_MS, file, LEASE_MS, objectOf, promise, refuses, sessionOf, toWorkspace } from "./contract.ts";

promise("a created upload is pending, and its staging key names the installation and the upload", async (its) => {
  const { key, workspaceId } = await its.makeWorkspace();
  const { upload, stagingKey } = await its.books.uploads.create(key, file(7));
  assert.equal(upload.status, "pending");
  assert.equal(upload.workspaceId, workspaceId);
  assert.equal(upload.statedSizeBytes, 7);
  assert.equal(upload.objectKey, stagingKey);
  const { installationId } = its.books;
  const { place, uploadId, ...parts } = parseObjectKey(stagingKey) ?? assert.fail();
  assert.deepEqual([place, uploadId, parts.installationId], ["staging", upload.uploadId, installationId]);
  assert.deepEqual(await its.books.uploads.find(key, upload.uploadId), upload);
  assert.equal(await its.usedBytes(workspaceId), 0, "nothing is charged yet");
});

promise("a confirm charges the object that was copied and gives the staging key up", async (its) => {
  const workspace = await its.makeWorkspace();
  const { key, workspaceId } = workspace;
  const { uploadId, objectKey: stagingKey } = await its.create(key);
  const request = toWorkspace(uploadId, workspaceId);
  assert.deepEqual(await its.books.uploads.findToConfirm(key, request), {
    isConfirmed: false,
    upload: await its.books.uploads.find(key, uploadId),
    workspaceId,
  });
  const finalKey = await its.books.uploads.reserveFinalKey(uploadId, { workspaceId, sizeBytes: 5, leaseMs: LEASE_MS });
  assert.equal(parseObjectKey(finalKey)?.place, "final");
  assert.ok(await its.books.audit.isEntered(finalKey), "ROW-FIRST: the key is entered before it is filled");
  assert.equal(await its.usedBytes(workspaceId), 0, "a reservation charges nothing");

  const counts = { charCount: 4, lineCount: 1 };
  const copy = { ...objectOf(finalKey, 5), checksumSha256: "0".repeat(64), counts };
  const upload = await its.books.uploads.settleConfirm(key, request, copy);
  assert.equal(upload.status, "uploaded");
  assert.deepEqual([upload.sizeBytes, upload.etag, upload.objectKey], [5, copy.etag, finalKey]);
  assert.deepEqual([upload.charCount, upload.lineCount], [4, 1]);
  assert.equal(upload.checksumSha256, copy.checksumSha256);
  assert.deepEqual([upload.contextType, upload.contextId], ["workspace", workspaceId]);
  assert.equal(await its.usedBytes(workspaceId), 5);
  assert.equal(await its.books.audit.isEntered(finalKey), false, "the lease was taken back");
  assert.deepEqual(await its.takeKeys(), [stagingKey]);
  await its.checkSums(workspaceId);
});

promise("a confirmed upload is found as it is, whatever the context, and is not charged again", async (its) => {
  const workspace = await its.makeWorkspace();
  const { key, workspaceId } = workspace;
  const upload = await its.confirmed(workspace, 5);
  const elsewhere = { ...toWorkspace(upload.uploadId, "no such context") };
  assert.deepEqual(await its.books.uploads.findToConfirm(key, elsewhere), { isConfirmed: true, upload });
  await refuses(
    "not_found",
    its.books.uploads.reserveFinalKey(upload.uploadId, { workspaceId, sizeBytes: 5, leaseMs: LEASE_MS }),
  );
  assert.equal(await its.usedBytes(workspaceId), 5);
});

promise("a confirm that settles after its object was taken for removal charges nothing", async (its) => {
  const { key, workspaceId } = await its.makeWorkspace();
  const { uploadId } = await its.create(key);
  const reservation = { workspaceId, sizeBytes: 5, leaseMs: LEASE_MS };
  const finalKey = await its.books.uploads.reserveFinalKey(uploadId, reservation);
  its.advance(LEASE_MS);
  assert.deepEqual(await its.takeKeys(), [finalKey]);
  const request = toWorkspace(uploadId, workspaceId);
  await refuses(
    "storage_unavailable",
    its.books.uploads.settleConfirm(key, request, objectOf(finalKey, 5)),
    /took too long/,
  );
  assert.equal((await its.books.uploads.find(key, uploadId)).status, "pending");
  assert.equal(await its.usedBytes(workspaceId), 0);
  assert.equal((await its.confirm(key, request, 5)).status, "uploaded", "another confirm succeeds");
});

promise("two confirms of one upload charge it once", async (its) => {
  const { key, workspaceId } = await its.makeWorkspace();
  const { uploadId } = await its.create(key);
  const request = toWorkspace(uploadId, workspaceId);
  const reservation = { workspaceId, sizeBytes: 5, leaseMs: LEASE_MS };
  const first = await its.books.uploads.reserveFinalKey(uploadId, reservation);
  const second = await its.books.uploads.reserveFinalKey(uploadId, reservation);
  const outcomes = await Promise.allSettled(
    [first, second].map((finalKey) => its.books.uploads.settleConfirm(key, request, objectOf(finalKey, 5))),
  );
  assert.deepEqual(outcomes.map(({ status }) => status).sort(), ["fulfilled", "rejected"]);
  assert.equal(await its.usedBytes(workspaceId), 5);
  await its.checkSums(workspaceId);
});

promise("a deleted upload gives its bytes back at once, and its object is to be removed", async (its) => {
  const workspace = await its.makeWorkspace();
  const { key, workspaceId } = workspace;
  const { uploadId, objectKey } = await its.confirmed(workspace, 5);
  await its.removeDue();
  await its.books.uploads.remove(key, uploadId);
  assert.equal(await its.usedBytes(workspaceId), 0);
  assert.deepEqual(await its.takeKeys(), [objectKey]);
  await refuses("not_found", its.books.uploads.find(key, uploadId));
  await refuses("not_found", its.books.uploads.remove(key, uploadId));
  await refuses("not_found", its.books.uploads.findToConfirm(key, toWorkspace(uploadId, workspaceId)));
  await its.checkSums(workspaceId);
});

promise("a deletion can be asked for: what waits, why, and when all of it was gone", async (its) => {
  const workspace = await its.makeWorkspace();
  const { uploadId } = await its.confirmed(workspace, 5);
  await refuses("not_found", its.books.deletions.find(workspace.key, uploadId, its.nowMs()), /not deleted/);
  await its.removeDue();
  await its.books.uploads.remove(workspace.key, uploadId);
  const find = () => its.books.deletions.find(workspace.key, uploadId, its.nowMs());
  const deletion = await find();
  assert.equal(deletion.bytesReleased, 5);
  assert.equal(deletion.removedAtMs, null);
  // The staged object was removed once, and is removed again when its URL has expired.
  assert.deepEqual(deletion.waiting.map(({ place, reason }) => [place, reason]).sort(), [
    ["final", "queued"],
    ["staging", "again"],
  ]);
  its.advance(DAY_MS);
  await its.removeDue();
  const { removedAtMs, waiting } = await find();
  assert.deepEqual([removedAtMs, waiting], [its.nowMs(), []]);
  const other = await its.makeWorkspace();
  await refuses("not_found", its.books.deletions.find(other.key, uploadId, its.nowMs()), /no such upload/);
});

promise("a pending upload expires, a confirmed one and one that is being confirmed do not", async (its) => {
  const workspace = await its.makeWorkspace();
  const { key, workspaceId } = workspace;
  const expiring = await its.create(key);
  const confirmed = await its.confirmed(workspace, 5);
  const reserved = await its.create(key);
  assert.equal(await its.books.uploads.expire(expiring.expiresAtMs - 1), 0);
  its.advance(expiring.expiresAtMs - its.nowMs());
  const reservation = { workspaceId, sizeBytes: 5, leaseMs: LEASE_MS };
  await its.books.uploads.reserveFinalKey(reserved.uploadId, reservation);
  assert.equal(await its.books.audit.countExpiring(its.nowMs()), 1);
  assert.equal(await its.books.uploads.expire(its.nowMs()), 1);
  assert.equal(await its.books.uploads.expire(its.nowMs()), 0);
  await refuses("not_found", its.books.uploads.find(key, expiring.uploadId));
  for (const { uploadId } of [confirmed, reserved]) await its.books.uploads.find(key, uploadId);
  assert.ok((await its.takeKeys()).includes(expiring.objectKey), "its object is to be removed");
});

promise("a personal upload is charged to the workspace that a confirm binds it to", async (its) => {
  const { workspaceId } = await its.makeWorkspace();
  const member = await its.join(workspaceId, "ann", "editor");
  const personal = sessionOf(member.userId);
  const { uploadId } = await its.create(personal);
  assert.equal((await its.books.uploads.find(personal, uploadId)).workspaceId, null);
  const upload = await its.confirm(personal, toWorkspace(uploadId, workspaceId), 5);
  assert.equal(upload.workspaceId, workspaceId);
  assert.equal(await its.usedBytes(workspaceId), 5);
});

promise("everything that was promised is there after the books are opened again", async (its) => {
  const workspace = await its.makeWorkspace();
  const pending = await its.create(workspace.key, 3);
  const confirmed = await its.confirmed(workspace, 5);
  const deleted = await its.confirmed(workspace, 7);
  await its.books.uploads.remove(workspace.key, deleted.uploadId);
  const { installationId } = its.books;
  await its.reopen();
  assert.equal(its.books.installationId, installationId);
  assert.deepEqual(await its.books.uploads.find(workspace.key, pending.uploadId), pending);
  assert.deepEqual(await its.books.uploads.find(workspace.key, confirmed.uploadId), confirmed);
  assert.ok(await its.books.audit.isEntered(deleted.objectKey));
  await its.checkSums(workspace.workspaceId);
});
