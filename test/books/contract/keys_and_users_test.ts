import assert from "node:assert/strict";
import { DAY_MS, promise, refuses } from "./contract.ts";

promise(
  "a key is found by its plain text until its workspace is deleted, in this process and the next",
  async (its) => {
    const { workspaceId, ownerId } = await its.makeWorkspace();
    const { keys } = its.books;
    const { apiKey, apiKeyId } = await keys.create({ workspaceId, scopes: ["voices:read"], rateLimitPerMin: 7 });
    const known = { apiKeyId, workspaceId, userId: ownerId, scopes: ["voices:read"], rateLimitPerMin: 7 };
    assert.deepEqual(await keys.find(apiKey), { ...known, expiresAtMs: null, revokedAtMs: null });
    assert.equal(await keys.find(`${apiKey}x`), undefined);
    await its.reopen();
    assert.equal((await its.books.keys.find(apiKey))?.apiKeyId, apiKeyId);
    await its.books.workspaces.remove("administrator", workspaceId);
    assert.equal(await its.books.keys.find(apiKey), undefined);
    assert.ok(
      (await its.books.keys.list()).some((key) => key.apiKeyId === apiKeyId),
      "an administrator still sees it",
    );
  },
);

promise("a key is created for a workspace that exists, with valid fields", async (its) => {
  const { workspaceId } = await its.makeWorkspace();
  const { create } = its.books.keys;
  await refuses("not_found", create({ workspaceId: "no workspace" }));
  for (const invalid of [
    { name: "" },
    { name: "x".repeat(121) },
    { scopes: [] },
    { scopes: ["uploads:read"] },
    { expiresInDays: 0 },
    { rateLimitPerMin: -1 },
  ]) {
    await refuses("validation_error", create({ workspaceId, ...invalid }));
  }
});

promise("a key is revoked for good, at the first time", async (its) => {
  const { workspaceId } = await its.makeWorkspace();
  const { apiKey, apiKeyId } = await its.books.keys.create({ workspaceId });
  const revokedAtMs = its.nowMs();
  assert.deepEqual(await its.books.keys.revoke(apiKeyId), { apiKeyId, workspaceId });
  its.advance(1_000);
  await its.books.keys.revoke(apiKeyId);
  assert.equal((await its.books.keys.find(apiKey))?.revokedAtMs, revokedAtMs);
  await refuses("not_found", its.books.keys.revoke("no key"), /no API key/);
});

promise("keys are listed as they were made, with what is known of their use", async (its) => {
  const { workspaceId, key } = await its.makeWorkspace();
  const { apiKey, apiKeyId } = await its.books.keys.create({ workspaceId, name: "second", expiresInDays: 2 });
  const usedAtMs = its.nowMs() + 5;
  await its.books.keys.recordUses(
    new Map([
      [apiKeyId, usedAtMs],
      ["no key", 1],
    ]),
  );
  const [first, second] = await its.books.keys.list();
  assert.deepEqual([first?.apiKeyId, first?.lastUsedAtMs], [key.apiKeyId, null]);
  assert.deepEqual(
    [second?.name, second?.keySuffix, second?.lastUsedAtMs, second?.expiresAtMs],
    ["second", apiKey.slice(-4), usedAtMs, its.nowMs() + 2 * DAY_MS],
  );
});

promise("several first requests of a person make one user, who keeps their id", async (its) => {
  const session = { subject: "ann", email: "ann@example.com", name: "Ann", expiresAtMs: its.nowMs() + DAY_MS };
  const ids = await Promise.all(Array.from({ length: 5 }, () => its.books.users.findOrCreate(session)));
  assert.equal(new Set(ids).size, 1);
  await its.reopen();
  assert.equal(await its.books.users.findOrCreate(session), ids[0]);
});

promise("a newer token brings a new address, and an older one never brings the old one back", async (its) => {
  const { workspaceId } = await its.makeWorkspace();
  const session = { subject: "ann", name: "Ann", expiresAtMs: its.nowMs() + DAY_MS };
  const { findOrCreate } = its.books.users;
  const old = { ...session, email: "old@example.com" };
  const userId = await findOrCreate(old);
  await its.books.members.add("administrator", workspaceId, { userId, role: "viewer" });
  const emailOf = async () =>
    (await its.books.members.list("administrator", workspaceId)).find((member) => member.userId === userId)?.email;
  await findOrCreate({ ...session, email: "new@example.com", expiresAtMs: session.expiresAtMs + 1 });
  // Any write that is awaited follows the one in the background.
  await its.books.checkWritable();
  assert.equal(await emailOf(), "new@example.com");
  await findOrCreate(old);
  await its.books.checkWritable();
  assert.equal(await emailOf(), "new@example.com");
});
