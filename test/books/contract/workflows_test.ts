import assert from "node:assert/strict";
import { PLACEHOLDER_NAME } from "../../../lib/books/workflows.ts";
import { promise, refuses, sessionOf, toWorkspace } from "./contract.ts";

const ALL = { order: [], offset: 0, limit: 10, withDefinitions: true } as const;

promise("a workflow has a placeholder until it is named, and changes field by field", async (its) => {
  const { key } = await its.makeWorkspace();
  const { create, find, patch } = its.books.workflows;
  const created = await create(key, {});
  assert.deepEqual(
    [created.name, created.nameSource, created.description, created.definitionJson],
    [PLACEHOLDER_NAME, "placeholder", null, "{}"],
  );
  assert.deepEqual(await find(key, created.workflowId), created);
  its.advance(1_000);
  const described = await patch(key, created.workflowId, { description: "why", definition: [1] });
  assert.deepEqual(described, {
    ...created,
    description: "why",
    definitionJson: "[1]",
    updatedAtMs: created.updatedAtMs + 1_000,
  });
  const named = await patch(key, created.workflowId, { name: "Mine", description: null });
  assert.deepEqual([named.name, named.nameSource, named.description], ["Mine", "user", null]);
  assert.equal(named.definitionJson, "[1]");
});

promise("foreign, unknown and deleted workflows are the same (NO-LEAK)", async (its) => {
  const [own, other] = [await its.makeWorkspace(), await its.makeWorkspace()];
  const { create, find, patch, remove } = its.books.workflows;
  const foreign = await create(other.key, {});
  const deleted = await create(own.key, {});
  await remove(own.key, deleted.workflowId);
  for (const id of [foreign.workflowId, deleted.workflowId, "no workflow"]) {
    await refuses("not_found", find(own.key, id), /^There is no such workflow$/);
    await refuses("not_found", patch(own.key, id, { name: "x" }), /^There is no such workflow$/);
    await refuses("not_found", remove(own.key, id), /^There is no such workflow$/);
  }
  assert.equal((await find(other.key, foreign.workflowId)).name, PLACEHOLDER_NAME);
});

promise("each verb needs a selected workspace", async (its) => {
  const { ownerId } = await its.makeWorkspace();
  const session = sessionOf(ownerId);
  const { create, find, list, patch, remove } = its.books.workflows;
  for (const outcome of [
    create(session, {}),
    find(session, "w"),
    list(session, ALL),
    patch(session, "w", {}),
    remove(session, "w"),
  ]) {
    await refuses("bad_request", outcome);
  }
});

promise(
  "definitions are bounded by their length as JSON",
  async (its) => {
    const { key } = await its.makeWorkspace();
    const { create, patch } = its.books.workflows;
    const largest = "x".repeat(100_000 - 2);
    const { workflowId } = await create(key, { definition: largest });
    await refuses("payload_too_large", create(key, { definition: `${largest}x` }));
    await refuses("payload_too_large", patch(key, workflowId, { definition: `${largest}x` }));
  },
  { STOWAGE_JSON_BYTES_MAX: "100000" },
);

promise(
  "a workspace may have only so many workflows; a delete makes room",
  async (its) => {
    const { key } = await its.makeWorkspace();
    const { create, remove } = its.books.workflows;
    const { workflowId } = await create(key, {});
    await create(key, {});
    await refuses("storage_limit_exceeded", create(key, {}), /2 workflows/);
    await remove(key, workflowId);
    await create(key, {});
  },
  { STOWAGE_WORKFLOWS_PER_WORKSPACE_MAX: "2" },
);

promise("workflows are searched, ordered and paged, with all that match counted", async (its) => {
  const { key } = await its.makeWorkspace();
  const { create, list } = its.books.workflows;
  for (const name of ["beta", "Alpha", "alphabet"]) {
    await create(key, { name, definition: [name] });
    its.advance(1);
  }
  await create((await its.makeWorkspace()).key, { name: "alpha" });
  const names = async (filter: Partial<Parameters<typeof list>[1]>) =>
    (await list(key, { ...ALL, ...filter })).workflows.map(({ name }) => name);
  assert.deepEqual(await names({ order: [{ by: "name", direction: "asc" }] }), ["Alpha", "alphabet", "beta"]);
  const newest = [{ by: "updated_at", direction: "desc" }] as const;
  assert.deepEqual(await names({ order: newest }), ["alphabet", "Alpha", "beta"]);
  assert.deepEqual(await names({ order: newest, search: "ALPHA" }), ["alphabet", "Alpha"]);
  const page = await list(key, { ...ALL, order: newest, search: "alpha", offset: 1, limit: 1, withDefinitions: false });
  assert.equal(page.total, 2);
  assert.deepEqual(
    page.workflows.map(({ name, definitionJson }) => [name, definitionJson]),
    [["Alpha", "{}"]],
  );
});

promise("a deleted workflow leaves its uploads charged and bound to its id", async (its) => {
  const { key, workspaceId } = await its.makeWorkspace();
  const { workflowId } = await its.books.workflows.create(key, {});
  const { uploadId } = await its.create(key);
  await its.confirm(key, { ...toWorkspace(uploadId, workflowId), contextType: "workflow" }, 5);
  await its.books.workflows.remove(key, workflowId);
  assert.equal((await its.books.uploads.find(key, uploadId)).contextId, workflowId);
  assert.equal(await its.usedBytes(workspaceId), 5);
  await its.books.uploads.remove(key, uploadId);
  assert.equal(await its.usedBytes(workspaceId), 0);
});
