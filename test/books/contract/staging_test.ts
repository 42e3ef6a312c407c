import assert from "node:assert/strict";
import { formatObjectKey, parseObjectKey } from "../../../lib/books/object_keys.ts";
import { promise, refuses, sessionOf, toWorkspace } from "./contract.ts";

/** Another key of the same upload, which no row names. */
function otherKey(objectKey: string): string {
  return formatObjectKey({ ...(parseObjectKey(objectKey) ?? assert.fail()), random: "0".repeat(32) });
}

promise("a staging key has an owner while a pending upload names it", async (its) => {
  const { key, workspaceId } = await its.makeWorkspace();
  const person = sessionOf(await its.signIn("ann"));
  const [upload, personal] = [await its.create(key), await its.create(person)];
  assert.equal(await its.books.staging.findOwner(upload.objectKey), workspaceId);
  assert.equal(await its.books.staging.findOwner(personal.objectKey), person.userId);
  for (const unknown of [otherKey(upload.objectKey), "no key at all"]) {
    await refuses("not_found", its.books.staging.findOwner(unknown));
    await refuses("not_found", its.books.staging.beginPut(unknown, 1));
    await refuses(
      "not_found",
      its.books.staging.whilePending(unknown, () => assert.fail("it ran")),
    );
    assert.equal(await its.books.staging.noteStaged(unknown, 1), false);
  }
  await its.confirm(key, toWorkspace(upload.uploadId, workspaceId), 5);
  await refuses("not_found", its.books.staging.findOwner(upload.objectKey));
});

promise("an object is placed only while its upload is pending", async (its) => {
  const { key } = await its.makeWorkspace();
  const { uploadId, objectKey } = await its.create(key);
  assert.equal(await its.books.staging.whilePending(objectKey, () => "placed"), "placed");
  const broken = its.books.staging.whilePending(objectKey, () => {
    throw new TypeError("the disk");
  });
  await assert.rejects(broken, TypeError);
  await its.books.uploads.remove(key, uploadId);
  let hasRun = false;
  await refuses(
    "not_found",
    its.books.staging.whilePending(objectKey, () => {
      hasRun = true;
    }),
  );
  assert.equal(hasRun, false);
});

promise("a place and a delete that run at once leave the object entered for removal (NO-ORPHAN)", async (its) => {
  const { key } = await its.makeWorkspace();
  for (let i = 0; i < 10; i++) {
    const { uploadId, objectKey } = await its.create(key);
    const isFirst = i % 2 === 0;
    const remove = () => its.books.uploads.remove(key, uploadId);
    const place = () => its.books.staging.whilePending(objectKey, () => true).catch(() => false);
    const placed = isFirst ? [place(), remove()] : [remove(), place()];
    await Promise.all(placed);
    assert.ok(await its.books.audit.isEntered(objectKey));
  }
});

promise("an object is named in both states, and no longer once the upload or its workspace is deleted", async (its) => {
  const workspace = await its.makeWorkspace();
  const [pending, confirmed] = [await its.create(workspace.key), await its.confirmed(workspace, 5)];
  const { staging, audit } = its.books;
  for (const { objectKey, uploadId } of [pending, confirmed]) {
    assert.equal(await staging.isNamed(objectKey), true);
    assert.equal(await staging.isNamed(otherKey(objectKey)), false);
    assert.equal(await audit.isNamed(uploadId, objectKey), true);
    assert.equal(await audit.isNamed(uploadId, otherKey(objectKey)), false);
  }
  await its.books.uploads.remove(workspace.key, pending.uploadId);
  assert.equal(await staging.isNamed(pending.objectKey), false);
  await its.books.workspaces.remove("administrator", workspace.workspaceId);
  assert.equal(await staging.isNamed(confirmed.objectKey), false, "its row is still there");
});

promise(
  "a PUT counts while it is under way, then as what it stored, and no longer once its upload is gone",
  async (its) => {
    const { key, workspaceId } = await its.makeWorkspace();
    const [a, b] = [await its.create(key), await its.create(key)];
    const { staging } = its.books;
    const put = await staging.beginPut(a.objectKey, 60);
    await refuses("rate_limited", staging.beginPut(b.objectKey, 41));
    await refuses("payload_too_large", staging.beginPut(b.objectKey, 101));
    const unknown = await staging.beginPut(b.objectKey, null);
    await unknown.growTo(40);
    await refuses("rate_limited", unknown.growTo(41));
    unknown.end();
    put.stored(50);
    put.end();
    assert.equal(staging.stagedBytes(workspaceId), 50);
    const last = await staging.beginPut(b.objectKey, 50);
    last.end();
    assert.equal(staging.stagedBytes(workspaceId), 50, "it stored nothing");
    await its.books.uploads.remove(key, a.uploadId);
    assert.equal(staging.stagedBytes(workspaceId), 0);
    (await staging.beginPut(b.objectKey, 100)).end();
  },
  { STOWAGE_STAGED_BYTES_MAX: "100" },
);

promise(
  "of several PUTs to one upload only the largest counts",
  async (its) => {
    const { key } = await its.makeWorkspace();
    const { objectKey } = await its.create(key);
    const puts = [];
    for (let i = 0; i < 3; i++) puts.push(await its.books.staging.beginPut(objectKey, 100));
    for (const put of puts) put.end();
  },
  { STOWAGE_STAGED_BYTES_MAX: "100" },
);

promise("staged sizes are kept once they are flushed, and a deleted upload's bytes await removal", async (its) => {
  const { key, workspaceId } = await its.makeWorkspace();
  const { uploadId, objectKey } = await its.create(key, 10);
  assert.equal(await its.books.staging.noteStaged(objectKey, 7), true);
  await its.books.staging.flush();
  await its.reopen();
  assert.equal(its.books.staging.stagedBytes(workspaceId), 7);
  const before = await its.books.usage.storageFigures(workspaceId);
  assert.deepEqual([before.uploadsPending, before.bytesPendingStated, before.bytesPendingStored], [1, 10, 7]);
  await its.books.uploads.remove(key, uploadId);
  const after = await its.books.usage.storageFigures(workspaceId);
  assert.deepEqual([after.uploadsPending, after.bytesPendingStored, after.bytesAwaitingRemoval], [0, 0, 7]);
});
