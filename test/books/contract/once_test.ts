import assert from "node:assert/strict";
import { IDEMPOTENCY_KEPT_MS } from "../../../lib/books/idempotency.ts";
import { file, keyed, promise, refuses, toWorkspace } from "./contract.ts";

promise("a create that is repeated makes one upload, also if both come at once or after a restart", async (its) => {
  const { key } = await its.makeWorkspace();
  const request = keyed(key, "a", "create");
  const create = () => its.books.uploads.create(key, file(), request);
  const [first, second] = await Promise.all([create(), create()]);
  assert.deepEqual(second, first);
  await its.reopen();
  assert.deepEqual(await create(), first);
  assert.equal((await its.books.uploads.list(key, {}, { offset: 0, limit: 10 })).total, 1);
});

promise("a repeated create names the staging key of the first, also once the upload is confirmed", async (its) => {
  const { key, workspaceId } = await its.makeWorkspace();
  const request = keyed(key, "a", "create");
  const first = await its.books.uploads.create(key, file(), request);
  const upload = await its.confirm(key, toWorkspace(first.upload.uploadId, workspaceId), 5);
  const { stagingKey } = first;
  assert.deepEqual(await its.books.uploads.create(key, file(), request), { upload, stagingKey });
});

promise("a repeated create whose upload is gone makes no other", async (its) => {
  const { key } = await its.makeWorkspace();
  const request = keyed(key, "a", "create");
  const { upload } = await its.books.uploads.create(key, file(), request);
  await its.books.uploads.remove(key, upload.uploadId);
  await refuses("not_found", its.books.uploads.create(key, file(), request), /send a new key/);
});

promise("a delete that is repeated succeeds and changes nothing more", async (its) => {
  const workspace = await its.makeWorkspace();
  const { key, workspaceId } = workspace;
  const { uploadId } = await its.confirmed(workspace, 5);
  const request = keyed(key, "d", "delete", uploadId);
  for (let i = 0; i < 2; i++) await its.books.uploads.remove(key, uploadId, request);
  assert.equal(await its.usedBytes(workspaceId), 0);
  assert.equal((await its.books.ledger.list(workspaceId, { limit: 10 })).length, 2, "one charge and one release");
  await refuses("not_found", its.books.uploads.remove(key, uploadId), /no such upload/);
});

promise("a confirm with a key that came with another request is refused before anything is copied", async (its) => {
  const workspace = await its.makeWorkspace();
  const { key, workspaceId } = workspace;
  await its.books.uploads.create(key, file(), keyed(key, "a", "create"));
  const { uploadId } = await its.create(key);
  const reused = toWorkspace(uploadId, workspaceId, keyed(key, "a", "confirm", uploadId));
  await refuses("validation_error", its.books.uploads.findToConfirm(key, reused), /another request/);
});

promise("an Idempotency-Key cannot be used for another create or delete", async (its) => {
  const workspace = await its.makeWorkspace();
  const { key, workspaceId } = workspace;
  const { uploadId } = await its.confirmed(workspace, 5);
  await its.books.uploads.create(key, file(), keyed(key, "a", "create"));
  await refuses("validation_error", its.books.uploads.create(key, file(), keyed(key, "a", "create", "another")));
  await refuses("validation_error", its.books.uploads.remove(key, uploadId, keyed(key, "a", "delete", uploadId)));
  assert.equal(await its.usedBytes(workspaceId), 5);
});

promise("two callers may use the same key", async (its) => {
  const [a, b] = [await its.makeWorkspace(), await its.makeWorkspace()];
  const first = await its.books.uploads.create(a.key, file(), keyed(a.key, "a", "create"));
  const second = await its.books.uploads.create(b.key, file(), keyed(b.key, "a", "create"));
  assert.notEqual(first.upload.uploadId, second.upload.uploadId);
});

promise("a failure is not remembered", async (its) => {
  const { key, workspaceId } = await its.makeWorkspace(10);
  const request = keyed(key, "a", "create");
  await refuses("storage_limit_exceeded", its.books.uploads.create(key, file(11), request));
  await its.books.workspaces.setQuota(workspaceId, 11);
  assert.equal((await its.books.uploads.create(key, file(11), request)).upload.statedSizeBytes, 11);
});

promise(
  "a caller with as many keys as are remembered can confirm and delete, but not create",
  async (its) => {
    const { key, workspaceId } = await its.makeWorkspace();
    const { upload } = await its.books.uploads.create(key, file(), keyed(key, "a", "create"));
    await refuses("rate_limited", its.books.uploads.create(key, file(), keyed(key, "b", "create")));
    const { uploadId } = upload;
    await its.confirm(key, toWorkspace(uploadId, workspaceId, keyed(key, "c", "confirm", uploadId)), 5);
    await its.books.uploads.remove(key, uploadId, keyed(key, "d", "delete", uploadId));
    assert.equal(await its.usedBytes(workspaceId), 0);
  },
  { STOWAGE_IDEMPOTENCY_KEYS_MAX: "1" },
);

promise("a success is forgotten once its time is over, and not before", async (its) => {
  const { key } = await its.makeWorkspace();
  const request = keyed(key, "a", "create");
  const { upload } = await its.books.uploads.create(key, file(), request);
  its.advance(IDEMPOTENCY_KEPT_MS - 1);
  assert.equal(await its.books.idempotency.expire(its.nowMs()), false);
  assert.equal((await its.books.uploads.create(key, file(), request)).upload.uploadId, upload.uploadId);
  its.advance(1);
  assert.equal(await its.books.idempotency.expire(its.nowMs()), false, "no more are left");
  assert.notEqual((await its.books.uploads.create(key, file(), request)).upload.uploadId, upload.uploadId);
});
