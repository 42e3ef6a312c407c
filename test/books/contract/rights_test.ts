import assert from "node:assert/strict";
import { file, LEASE_MS, objectOf, promise, refuses, sessionOf, toWorkspace } from "./contract.ts";

promise("another workspace's uploads are as good as not there (NO-LEAK)", async (its) => {
  const [own, other] = [await its.makeWorkspace(), await its.makeWorkspace()];
  const { uploadId } = await its.confirmed(own, 5);
  for (const id of [uploadId, "00000000-0000-4000-8000-000000000000"]) {
    await refuses("not_found", its.books.uploads.find(other.key, id), /^There is no such upload$/);
    await refuses("not_found", its.books.uploads.remove(other.key, id), /^There is no such upload$/);
    const request = toWorkspace(id, other.workspaceId);
    await refuses("not_found", its.books.uploads.findToConfirm(other.key, request), /^There is no such upload$/);
    await refuses("not_found", its.books.uploads.checkMayConfirm(other.key, request), /^There is no such upload$/);
    await refuses("not_found", its.books.deletions.find(other.key, id, its.nowMs()), /^There is no such upload$/);
  }
  assert.equal(await its.usedBytes(own.workspaceId), 5);
});

promise("a viewer reads; only editors, admins and whoever made it change an upload", async (its) => {
  const { key, workspaceId } = await its.makeWorkspace();
  const viewer = await its.join(workspaceId, "viv", "viewer");
  const editor = await its.join(workspaceId, "ed", "editor");
  const outsider = sessionOf(await its.signIn("out"));
  const { uploadId } = await its.create(key);
  await its.books.uploads.find(viewer, uploadId);
  await refuses("forbidden", its.books.uploads.create(viewer, file()));
  await refuses("not_found", its.books.uploads.remove(viewer, uploadId));
  await refuses("not_found", its.books.uploads.checkMayConfirm(viewer, toWorkspace(uploadId, workspaceId)));
  await its.books.uploads.checkMayConfirm(editor, toWorkspace(uploadId, "no such context"));
  await refuses("not_found", its.books.uploads.find(outsider, uploadId));
  await its.confirm(editor, toWorkspace(uploadId, workspaceId), 5);
  await its.books.uploads.remove(editor, uploadId);

  const own = await its.create(editor);
  await its.books.members.setRole("administrator", workspaceId, { userId: editor.userId, role: "viewer" });
  await its.books.uploads.remove(editor, own.uploadId);
});

promise("a role that was lost after the request was let in stops each verb that writes", async (its) => {
  const { workspaceId } = await its.makeWorkspace();
  const editor = await its.join(workspaceId, "ed", "editor");
  const [created, removed] = [await its.create(editor), await its.create(editor)];
  const request = toWorkspace(created.uploadId, workspaceId);
  const reservation = { workspaceId, sizeBytes: 5, leaseMs: LEASE_MS };
  const finalKey = await its.books.uploads.reserveFinalKey(created.uploadId, reservation);
  await its.books.members.setRole("administrator", workspaceId, { userId: editor.userId, role: "viewer" });
  await refuses("forbidden", its.books.uploads.settleConfirm(editor, request, objectOf(finalKey, 5)));
  await refuses("forbidden", its.books.workflows.create(editor, {}));
  await its.books.members.remove("administrator", workspaceId, editor.userId);
  await refuses("not_found", its.books.uploads.create(editor, file()));
  await refuses("not_found", its.books.uploads.remove(editor, removed.uploadId));
  await refuses("not_found", its.books.uploads.findToConfirm(editor, request));
  assert.equal(await its.usedBytes(workspaceId), 0);
});

promise("a key that was revoked after the request was let in stops each verb that writes", async (its) => {
  const { key, workspaceId } = await its.makeWorkspace();
  const { uploadId } = await its.create(key);
  const request = toWorkspace(uploadId, workspaceId);
  const reservation = { workspaceId, sizeBytes: 5, leaseMs: LEASE_MS };
  const finalKey = await its.books.uploads.reserveFinalKey(uploadId, reservation);
  await its.books.keys.revoke(key.apiKeyId);
  await refuses("invalid_api_key", its.books.uploads.create(key, file()), /revoked/);
  await refuses("invalid_api_key", its.books.uploads.findToConfirm(key, request), /revoked/);
  await refuses("invalid_api_key", its.books.uploads.settleConfirm(key, request, objectOf(finalKey, 5)), /revoked/);
  await refuses("invalid_api_key", its.books.uploads.remove(key, uploadId), /revoked/);
  await refuses("invalid_api_key", its.books.workflows.create(key, {}), /revoked/);
  assert.equal(await its.usedBytes(workspaceId), 0);
});

promise(
  "a confirm is refused a context of another workspace, and a workspace where the role is too low",
  async (its) => {
    const [own, other] = [await its.makeWorkspace(), await its.makeWorkspace()];
    const { uploadId } = await its.create(own.key);
    const { workflowId } = await its.books.workflows.create(other.key, {});
    const refusesContext = (request: Parameters<typeof its.books.uploads.findToConfirm>[1]) =>
      refuses("not_found", its.books.uploads.findToConfirm(own.key, request), /context_id/);
    await refusesContext(toWorkspace(uploadId, other.workspaceId));
    await refusesContext({ ...toWorkspace(uploadId, workflowId), contextType: "workflow" });
    const viewer = await its.join(own.workspaceId, "viv", "viewer");
    const personal = sessionOf(viewer.userId);
    const mine = await its.create(personal);
    const request = toWorkspace(mine.uploadId, own.workspaceId);
    await refuses("forbidden", its.books.uploads.findToConfirm(personal, request), /role in this workspace is viewer/);
  },
);

promise("uploads stay with the workspace when a member leaves", async (its) => {
  const { key, workspaceId } = await its.makeWorkspace();
  const editor = await its.join(workspaceId, "ed", "editor");
  const { uploadId } = await its.create(editor);
  await its.books.members.remove({ userId: editor.userId }, workspaceId, editor.userId);
  await refuses("not_found", its.books.uploads.find(sessionOf(editor.userId), uploadId));
  assert.equal((await its.books.uploads.find(key, uploadId)).userId, editor.userId);
});
