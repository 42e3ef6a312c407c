import assert from "node:assert/strict";
import { promise, refuses, sessionOf } from "./contract.ts";

promise("the first workspace comes with an owner and a key, and only if there is none", async (its) => {
  assert.equal(await its.books.workspaces.hasAny(), false);
  await refuses("validation_error", its.books.workspaces.createFirst({ name: " ", storageBytesQuota: 1 }));
  const first = await its.books.workspaces.createFirst({ name: "First", storageBytesQuota: 10 });
  const { workspaceId, userId, apiKey, apiKeyId } = first ?? assert.fail();
  assert.equal(await its.books.workspaces.hasAny(), true);
  assert.equal((await its.books.workspaces.find(workspaceId))?.createdBy, userId);
  assert.equal((await its.books.keys.find(apiKey))?.apiKeyId, apiKeyId);
  assert.equal(await its.books.workspaces.createFirst({ name: "Second", storageBytesQuota: 10 }), null);
  assert.equal((await its.books.workspaces.list()).length, 1);
});

promise("a workspace has a name, a free slug and a quota, or is refused", async (its) => {
  const create = (workspace: { name?: string; slug?: string; storageBytesQuota?: number }) =>
    its.books.workspaces.create("administrator", { name: "One", storageBytesQuota: 10, ...workspace });
  const one = await create({ name: "  One  ", slug: "one" });
  assert.deepEqual([one.name, one.slug, one.storageBytesUsed, one.storageBytesQuota], ["One", "one", 0, 10]);
  const two = await create({});
  assert.match(two.slug, /^one-/, "a derived slug that is taken gets a suffix");
  await refuses("workspace_slug_taken", create({ slug: "one" }));
  for (const invalid of [{ name: "" }, { name: "x".repeat(201) }, { slug: "Not a slug" }, { slug: "admin" }]) {
    await refuses("validation_error", create(invalid));
  }
  for (const storageBytesQuota of [-1, 1.5, Number.NaN]) {
    await refuses("validation_error", create({ storageBytesQuota }));
    await refuses("validation_error", its.books.workspaces.setQuota(one.workspaceId, storageBytesQuota));
  }
  assert.deepEqual(
    (await its.books.workspaces.list()).map(({ workspaceId }) => workspaceId),
    [one.workspaceId, two.workspaceId],
  );
});

promise(
  "a person owns what they create, up to the limit, and a deleted one counts until it is empty",
  async (its) => {
    const userId = await its.signIn("ann");
    const create = () => its.books.workspaces.create({ userId }, { name: "Mine", storageBytesQuota: 10 });
    const { workspaceId, createdBy } = await create();
    assert.equal(createdBy, userId);
    assert.equal(await its.books.members.findRole(workspaceId, userId), "admin");
    await refuses("workspace_limit_exceeded", create());
    await its.books.workspaces.remove({ userId }, workspaceId);
    await refuses("workspace_limit_exceeded", create());
    assert.equal(await its.books.uploads.removeOfDeletedWorkspaces(100), 0);
    await create();
  },
  { STOWAGE_WORKSPACES_PER_OWNER_MAX: "1" },
);

promise("callers see their own workspaces only", async (its) => {
  const [a, b] = [await its.makeWorkspace(), await its.makeWorkspace()];
  const ann = await its.join(b.workspaceId, "ann", "viewer");
  const { workspaces } = its.books;
  assert.equal((await workspaces.findVisible(a.key, a.workspaceId)).workspaceId, a.workspaceId);
  assert.equal((await workspaces.findVisible(ann, b.workspaceId)).workspaceId, b.workspaceId);
  await refuses("not_found", workspaces.findVisible(a.key, b.workspaceId), /^There is no such workspace$/);
  await refuses("not_found", workspaces.findVisible(ann, a.workspaceId), /^There is no such workspace$/);
  await refuses("not_found", workspaces.findVisible(ann, "no workspace"), /^There is no such workspace$/);
  const page = { offset: 0, limit: 10 };
  const ofKey = await workspaces.listVisible(a.key, page);
  const ofPerson = await workspaces.listVisible(sessionOf(ann.userId), page);
  assert.deepEqual([ofKey.total, ofKey.workspaces[0]?.workspaceId], [1, a.workspaceId]);
  assert.deepEqual([ofPerson.total, ofPerson.workspaces[0]?.workspaceId], [1, b.workspaceId]);
  const beyond = await workspaces.listVisible(sessionOf(ann.userId), { offset: 1, limit: 10 });
  assert.deepEqual(beyond, { workspaces: [], total: 1, nextAfterId: null });
});

promise("an admin changes a workspace, field by field; others are refused", async (its) => {
  const { workspaceId } = await its.makeWorkspace();
  const admin = await its.join(workspaceId, "ann", "admin");
  const editor = await its.join(workspaceId, "ed", "editor");
  const patch = (changes: Parameters<typeof its.books.workspaces.patch>[2], manager = admin) =>
    its.books.workspaces.patch(manager, workspaceId, changes);
  const patched = await patch({ name: " New ", slug: "new-slug", colorIdx: 3, routingLlmFit: true });
  assert.deepEqual([patched.name, patched.slug, patched.colorIdx, patched.routingLlmFit], ["New", "new-slug", 3, true]);
  assert.deepEqual(await patch({}), patched);
  assert.equal((await patch({ slug: "new-slug" })).slug, "new-slug", "its own slug is free");
  const other = await its.books.workspaces.find((await its.makeWorkspace()).workspaceId);
  await refuses("workspace_slug_taken", patch({ slug: other?.slug }));
  await refuses("validation_error", patch({ name: "" }));
  await refuses("not_found", patch({ name: "x" }, editor));
  assert.equal((await its.books.workspaces.find(workspaceId))?.name, "New");
});

promise("a deleted workspace is gone for every verb, and its slug is free again", async (its) => {
  const { key, workspaceId, ownerId } = await its.makeWorkspace();
  const admin = await its.join(workspaceId, "ann", "admin");
  const { slug = "" } = (await its.books.workspaces.find(workspaceId)) ?? {};
  const { workspaces, members, keys } = its.books;
  await refuses("not_found", workspaces.remove(admin, workspaceId), /no such workspace/);
  await workspaces.remove({ userId: ownerId }, workspaceId);
  assert.equal(await workspaces.find(workspaceId), undefined);
  assert.equal(await members.findRole(workspaceId, admin.userId), undefined);
  await refuses("not_found", workspaces.remove("administrator", workspaceId));
  await refuses("not_found", workspaces.setQuota(workspaceId, 1));
  await refuses("not_found", workspaces.patch(admin, workspaceId, { name: "x" }));
  await refuses("not_found", workspaces.findVisible(key, workspaceId));
  await refuses("not_found", workspaces.listVisible(key, { offset: 0, limit: 1 }));
  await refuses("not_found", members.list("administrator", workspaceId));
  await refuses("not_found", members.add("administrator", workspaceId, { userId: admin.userId, role: "viewer" }));
  await refuses("not_found", keys.create({ workspaceId }));
  await workspaces.create("administrator", { name: "Next", slug, storageBytesQuota: 1 });
});
