import assert from "node:assert/strict";
import { MEMBERS_MAX } from "../../../lib/books/members.ts";
import { promise, refuses } from "./contract.ts";

promise("members are listed: the manager, the admins, the others", async (its) => {
  const { workspaceId, ownerId } = await its.makeWorkspace();
  const viewer = await its.join(workspaceId, "viv", "viewer");
  const admin = await its.join(workspaceId, "ann", "admin");
  const idsFor = async (manager: Parameters<typeof its.books.members.list>[0]) =>
    (await its.books.members.list(manager, workspaceId)).map(({ userId }) => userId);
  assert.deepEqual(await idsFor({ userId: viewer.userId }), [viewer.userId, ownerId, admin.userId]);
  assert.deepEqual(await idsFor("administrator"), [ownerId, admin.userId, viewer.userId]);
  const [, , last] = await its.books.members.list("administrator", workspaceId);
  const { createdAtMs, ...member } = last ?? assert.fail();
  assert.deepEqual(member, { userId: viewer.userId, email: "viv@example.com", name: "viv", role: "viewer" });
  assert.equal(createdAtMs, its.nowMs());
  await refuses("not_found", its.books.members.list({ userId: await its.signIn("out") }, workspaceId));
});

promise("an admin adds people who have signed in, once", async (its) => {
  const { workspaceId } = await its.makeWorkspace();
  const admin = await its.join(workspaceId, "ann", "admin");
  const editor = await its.join(workspaceId, "ed", "editor");
  const bob = await its.signIn("bob");
  const { add } = its.books.members;
  assert.equal((await add(admin, workspaceId, { email: "BOB@example.com", role: "viewer" })).userId, bob);
  await refuses("conflict", add(admin, workspaceId, { userId: bob, role: "admin" }));
  await refuses("not_found", add(admin, workspaceId, { userId: "nobody", role: "viewer" }), /user_id/);
  await refuses("not_found", add(admin, workspaceId, { email: "no@example.com", role: "viewer" }), /email/);
  await refuses("forbidden", add(editor, workspaceId, { userId: await its.signIn("cy"), role: "viewer" }));
  await refuses("not_found", add({ userId: await its.signIn("out") }, workspaceId, { userId: bob, role: "viewer" }));
  const session = { email: "twin@example.com", name: "twin", expiresAtMs: its.nowMs() };
  for (const subject of ["t1", "t2"]) await its.books.users.findOrCreate({ ...session, subject });
  await refuses("validation_error", add(admin, workspaceId, { email: session.email, role: "viewer" }), /more than one/);
});

promise("a workspace keeps an admin, and its owner", async (its) => {
  const userId = await its.signIn("owner");
  const { workspaceId } = await its.books.workspaces.create({ userId }, { name: "Mine", storageBytesQuota: 1 });
  const owner = { userId };
  const { setRole, remove, findRole } = its.books.members;
  await refuses("conflict", setRole(owner, workspaceId, { userId, role: "viewer" }), /last admin/);
  await refuses("conflict", remove(owner, workspaceId, userId), /last admin/);
  await refuses("conflict", remove("administrator", workspaceId, userId), /last admin/);
  const admin = await its.join(workspaceId, "ann", "admin");
  await refuses("conflict", setRole(admin, workspaceId, { userId, role: "editor" }), /owner/);
  await refuses("conflict", remove(admin, workspaceId, userId), /owner/);
  assert.equal((await setRole(owner, workspaceId, { userId, role: "editor" })).role, "editor");
  assert.equal(await findRole(workspaceId, userId), "editor");
  await refuses("forbidden", setRole(owner, workspaceId, { userId: admin.userId, role: "viewer" }));
  await refuses("not_found", setRole(admin, workspaceId, { userId: "nobody", role: "viewer" }), /no such member/);
});

promise("everyone may leave; only an admin removes others", async (its) => {
  const { workspaceId } = await its.makeWorkspace();
  const editor = await its.join(workspaceId, "ed", "editor");
  const viewer = await its.join(workspaceId, "viv", "viewer");
  const { remove, findRole } = its.books.members;
  await refuses("forbidden", remove(editor, workspaceId, viewer.userId));
  await remove(viewer, workspaceId, viewer.userId);
  assert.equal(await findRole(workspaceId, viewer.userId), undefined);
  await refuses("not_found", remove(viewer, workspaceId, viewer.userId));
  await remove("administrator", workspaceId, editor.userId);
  await refuses("not_found", remove("administrator", workspaceId, editor.userId), /no such member/);
});

promise("a workspace has no more members than one response lists", async (its) => {
  const { workspaceId } = await its.makeWorkspace();
  const ids = await Promise.all(Array.from({ length: MEMBERS_MAX }, (_, i) => its.signIn(`u${i}`)));
  const add = (userId: string) => its.books.members.add("administrator", workspaceId, { userId, role: "viewer" });
  await Promise.all(ids.slice(1).map(add));
  await refuses("validation_error", add(ids[0] ?? ""), /most allowed/);
  assert.equal((await its.books.members.list("administrator", workspaceId)).length, MEMBERS_MAX);
});
