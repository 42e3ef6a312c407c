import assert from "node:assert/strict";
import type { Principal } from "../../../lib/books/principals.ts";
import type { Upload, UploadFilter, UploadPage } from "../../../lib/books/uploads.ts";
import { type Its, promise, refuses, sessionOf, toWorkspace } from "./contract.ts";

function idsOf({ uploads }: { uploads: readonly Upload[] }): string[] {
  return uploads.map(({ uploadId }) => uploadId);
}

/** Walks a whole list by its cursor. */
async function* pagesOf(its: Its, principal: Principal, limit: number, filter: UploadFilter = {}) {
  for (let beforeId: string | undefined; ; ) {
    const page: UploadPage = await its.books.uploads.list(principal, filter, { beforeId, offset: 0, limit });
    yield page;
    if (page.nextBeforeId === null) return;
    beforeId = page.nextBeforeId;
  }
}

async function idsByCursor(its: Its, principal: Principal, limit: number, filter?: UploadFilter): Promise<string[]> {
  const ids: string[] = [];
  for await (const page of pagesOf(its, principal, limit, filter)) ids.push(...idsOf(page));
  return ids;
}

promise("a list has the workspace's uploads, newest first, and each page says where the next begins", async (its) => {
  const { key } = await its.makeWorkspace();
  const other = await its.makeWorkspace();
  await its.create(other.key);
  const newest: string[] = [];
  for (let i = 0; i < 7; i++) newest.unshift((await its.create(key)).uploadId);
  for (const limit of [1, 2, 3, 7, 8]) assert.deepEqual(await idsByCursor(its, key, limit), newest);
  const page = await its.books.uploads.list(key, {}, { offset: 2, limit: 3 });
  assert.deepEqual(idsOf(page), newest.slice(2, 5));
  assert.equal(page.total, 7);
  assert.equal((await its.books.uploads.list(key, {}, { offset: 5, limit: 3 })).nextBeforeId, null);
  const beyond = await its.books.uploads.list(key, {}, { offset: 9, limit: 3 });
  assert.deepEqual([beyond.uploads, beyond.total], [[], 7]);
});

promise("a cursor skips and repeats nothing while uploads come and go", async (its) => {
  const { key } = await its.makeWorkspace();
  const newest: string[] = [];
  for (let i = 0; i < 6; i++) newest.unshift((await its.create(key)).uploadId);
  const seen: string[] = [];
  for await (const page of pagesOf(its, key, 2)) {
    seen.push(...idsOf(page));
    await its.create(key);
    const removed = seen.at(-1) ?? assert.fail();
    await its.books.uploads.remove(key, removed);
  }
  assert.deepEqual(seen, newest);
});

promise("lists are filtered by status, category and context", async (its) => {
  const workspace = await its.makeWorkspace();
  const { key, workspaceId } = workspace;
  const pending = await its.create(key);
  const confirmed = await its.confirmed(workspace, 5);
  const list = (filter: UploadFilter) => idsByCursor(its, key, 1, filter);
  assert.deepEqual(await list({ status: "pending" }), [pending.uploadId]);
  assert.deepEqual(await list({ status: "uploaded" }), [confirmed.uploadId]);
  assert.deepEqual(await list({ category: "script" }), []);
  assert.deepEqual(await list({ category: "file", contextId: workspaceId }), [confirmed.uploadId]);
  const other = await its.makeWorkspace();
  assert.deepEqual(await idsByCursor(its, other.key, 1, { contextId: workspaceId }), [], "NO-LEAK");
});

promise("a session lists its own personal uploads, or those of the workspace that it selects", async (its) => {
  const { workspaceId, key } = await its.makeWorkspace();
  const ann = await its.join(workspaceId, "ann", "viewer");
  const bob = sessionOf(await its.signIn("bob"));
  const personal = await its.create(sessionOf(ann.userId));
  await its.create(bob);
  const shared = await its.create(key);
  assert.deepEqual(await idsByCursor(its, sessionOf(ann.userId), 5), [personal.uploadId]);
  assert.deepEqual(await idsByCursor(its, ann, 5), [shared.uploadId]);
});

promise(
  "a workflow lists what is bound to it and what its definition names, confirmed and of its workspace",
  async (its) => {
    const workspace = await its.makeWorkspace();
    const { key } = workspace;
    const named = await its.confirmed(workspace, 1);
    const pending = await its.create(key);
    const foreign = await its.confirmed(await its.makeWorkspace(), 1);
    const definition = { files: [named.uploadId, pending.uploadId, { deep: foreign.uploadId }, named.uploadId] };
    const { workflowId, definitionJson } = await its.books.workflows.create(key, { definition });
    const { uploadId } = await its.create(key);
    await its.confirm(key, { ...toWorkspace(uploadId, workflowId), contextType: "workflow" }, 1);
    const workflow = { workflowId, definitionJson };
    const page = await its.books.uploads.listOfWorkflow(key, workflow, { offset: 0, limit: 10 });
    assert.deepEqual(idsOf(page), [uploadId, named.uploadId]);
    assert.equal(page.total, 2);
    const first = await its.books.uploads.listOfWorkflow(key, workflow, { offset: 0, limit: 1 });
    const beforeId = first.nextBeforeId ?? assert.fail();
    const second = await its.books.uploads.listOfWorkflow(key, workflow, { beforeId, offset: 0, limit: 1 });
    assert.deepEqual([...idsOf(first), ...idsOf(second), second.nextBeforeId], [uploadId, named.uploadId, null]);
    const unselected = sessionOf(workspace.ownerId);
    await refuses("bad_request", its.books.uploads.listOfWorkflow(unselected, workflow, { offset: 0, limit: 1 }));
  },
);
