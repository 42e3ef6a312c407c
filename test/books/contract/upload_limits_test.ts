import assert from "node:assert/strict";
import { file, LEASE_MS, objectOf, promise, refuses, sessionOf, toWorkspace } from "./contract.ts";

promise("a stated size beyond the quota is refused at the create, and a copied one at the reservation", async (its) => {
  const { key, workspaceId } = await its.makeWorkspace(10);
  await refuses("storage_limit_exceeded", its.books.uploads.create(key, file(11)), /has 10 bytes left/);
  const { uploadId } = await its.create(key);
  const reserve = (sizeBytes: number) =>
    its.books.uploads.reserveFinalKey(uploadId, { workspaceId, sizeBytes, leaseMs: LEASE_MS });
  await refuses("storage_limit_exceeded", reserve(11), /has 10 bytes left/);
  assert.equal(await its.books.removals.nextDueAtMs(), null, "nothing was reserved");
  await reserve(10);
});

promise("the early check of the quota agrees with the charge, and reserves nothing", async (its) => {
  const workspace = await its.makeWorkspace(10);
  const { workspaceId } = workspace;
  await its.confirmed(workspace, 6);
  for (let time = 0; time < 2; time++) await its.books.uploads.checkRoom(workspaceId, 4);
  await refuses("storage_limit_exceeded", its.books.uploads.checkRoom(workspaceId, 5), /has 4 bytes left/);
  await its.confirmed(workspace, 4);
  await its.books.workspaces.remove("administrator", workspaceId);
  await refuses("not_found", its.books.uploads.checkRoom(workspaceId, 0));
});

promise("the quota decides at the charge, and the upload stays pending", async (its) => {
  const workspace = await its.makeWorkspace(10);
  const { key, workspaceId } = workspace;
  const { uploadId } = await its.create(key);
  const reservation = { workspaceId, sizeBytes: 6, leaseMs: LEASE_MS };
  const finalKey = await its.books.uploads.reserveFinalKey(uploadId, reservation);
  await its.confirmed(workspace, 6);
  const request = toWorkspace(uploadId, workspaceId);
  const settle = () => its.books.uploads.settleConfirm(key, request, objectOf(finalKey, 6));
  await refuses("storage_limit_exceeded", settle(), /has 4 bytes left of its quota of 10/);
  assert.equal((await its.books.uploads.find(key, uploadId)).status, "pending");
  assert.equal(await its.usedBytes(workspaceId), 6);
  await its.books.workspaces.setQuota(workspaceId, 12);
  assert.equal((await settle()).status, "uploaded", "the lease was left as it was");
  await its.checkSums(workspaceId);
});

promise("a quota below what is used refuses further charges and keeps what is there", async (its) => {
  const workspace = await its.makeWorkspace(10);
  const { uploadId } = await its.confirmed(workspace, 6);
  assert.equal((await its.books.workspaces.setQuota(workspace.workspaceId, 3)).storageBytesQuota, 3);
  await refuses("storage_limit_exceeded", its.books.uploads.create(workspace.key, file(1)), /has 0 bytes left/);
  await its.books.uploads.remove(workspace.key, uploadId);
  await its.create(workspace.key, 3);
});

promise(
  "an owner may have only so many pending uploads; a delete and a confirm make room",
  async (its) => {
    const { key, workspaceId } = await its.makeWorkspace();
    const [first, second] = [await its.create(key), await its.create(key)];
    await refuses("rate_limited", its.books.uploads.create(key, file()), /never confirmed/);
    await its.create((await its.makeWorkspace()).key);
    await its.books.uploads.remove(key, first.uploadId);
    await its.create(key);
    await refuses("rate_limited", its.books.uploads.create(key, file()));
    await its.confirm(key, toWorkspace(second.uploadId, workspaceId), 5);
    await its.create(key);
  },
  { STOWAGE_PENDING_UPLOADS_MAX: "2" },
);

promise(
  "the bytes of pending uploads are bounded: some must be confirmed first, and more than all can never be taken",
  async (its) => {
    const { key } = await its.makeWorkspace();
    await refuses("payload_too_large", its.books.uploads.create(key, file(101)));
    const { uploadId } = await its.create(key, 60);
    await refuses("rate_limited", its.books.uploads.create(key, file(41)));
    await its.reopen();
    await refuses("rate_limited", its.books.uploads.create(key, file(41)), /60 bytes/);
    await its.books.uploads.remove(key, uploadId);
    await its.create(key, 100);
  },
  { STOWAGE_STAGED_BYTES_MAX: "100" },
);

promise("an upload of a deleted workspace is refused and charged to nobody", async (its) => {
  const { key, workspaceId } = await its.makeWorkspace();
  const { uploadId } = await its.create(key);
  const reservation = { workspaceId, sizeBytes: 5, leaseMs: LEASE_MS };
  const finalKey = await its.books.uploads.reserveFinalKey(uploadId, reservation);
  await its.books.workspaces.remove("administrator", workspaceId);
  const request = toWorkspace(uploadId, workspaceId);
  await refuses("not_found", its.books.uploads.create(key, file()));
  await refuses("not_found", its.books.uploads.create({ ...key, checkedAtMs: performance.now() }, file()));
  await refuses("not_found", its.books.uploads.reserveFinalKey(uploadId, reservation));
  await refuses("not_found", its.books.uploads.settleConfirm(key, request, objectOf(finalKey, 5)));
  await its.checkSums(workspaceId);
});

promise("a personal upload counts against the person alone", async (its) => {
  const { workspaceId } = await its.makeWorkspace(10);
  const member = await its.join(workspaceId, "ann", "editor");
  const personal = sessionOf(member.userId);
  const { uploadId } = await its.create(personal, 1_000);
  await refuses(
    "storage_limit_exceeded",
    its.confirm(personal, toWorkspace(uploadId, workspaceId), 1_000),
    /has 10 bytes left/,
  );
});
