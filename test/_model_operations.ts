import assert from "node:assert/strict";
import type { ModelUpload, ModelWorkspace } from "./_model.ts";
import {
  expectStatus,
  MAX_UPLOAD_BYTES,
  PENDING_TTL_SECONDS,
  PENDING_UPLOADS_MAX,
  URL_TTL_SECONDS,
  type World,
} from "./_model_world.ts";
import { IS_S3 } from "./_test_store.ts";

export type Operations = ReturnType<typeof createOperations>;

/** What people and time do, one thing at a time, each with what the model says must come of it. */
export function createOperations(world: World) {
  const { its, model, random, anyWorkspace, putStatus, confirmStatus, withFault, sizeOf, context, book } = world;
  const { app, call, clock, put, sql } = its;
  const { workspaces } = model;

  // An S3 server takes a PUT as long as its URL is good, so the place of an upload of any size is held until then.
  const countHeld = sql.prepare<[string], number>(
    "SELECT count(*) FROM object_removals WHERE owner_id = ? AND stated_size_bytes IS NULL",
  );
  const heldOf = (workspaceId: string): number => (IS_S3 ? (countHeld.pluck().get(workspaceId) ?? 0) : 0);

  async function create(): Promise<void> {
    const one = anyWorkspace();
    const { owner, quotaBytes } = one;
    const isText = random.percent(30);
    const statedSizeBytes = random.percent(40) ? random.integer(0, MAX_UPLOAD_BYTES) : null;
    const body = {
      filename: isText ? "a.txt" : "a.bin",
      category: isText ? "script" : "file",
      ...(statedSizeBytes === null ? {} : { size_bytes: statedSizeBytes }),
    };
    const answer = await call("POST", "/api/v1/uploads", { key: owner.key, body });
    const left = quotaBytes - model.usedBytes(one);
    const expected =
      statedSizeBytes !== null && statedSizeBytes > left
        ? 402
        : model.pendingOf(one) + heldOf(owner.workspaceId) >= PENDING_UPLOADS_MAX
          ? 429
          : 201;
    expectStatus("create", answer, [expected]);
    if (expected !== 201) return;
    const { id } = answer.json.data.upload;
    model.uploads.set(id, {
      id,
      workspace: one,
      uploadUrl: answer.json.data.upload_url,
      urlExpiresAtMs: clock.now() + URL_TTL_SECONDS * 1_000,
      expiresAtMs: clock.now() + PENDING_TTL_SECONDS * 1_000,
      statedSizeBytes,
      isText,
      status: "pending",
      bytes: null,
    });
  }

  async function putBytes(upload: ModelUpload | undefined): Promise<void> {
    if (upload === undefined) return;
    // A real server has a clock of its own, by which the URL is still good.
    if (IS_S3 && upload.urlExpiresAtMs <= clock.now()) return;
    const bytes = random.bytes(sizeOf(upload));
    const expected = putStatus(upload, bytes.length);
    expectStatus("PUT", await put(upload.uploadUrl, bytes), [expected]);
    if (expected !== 200) return;
    if (model.uploads.get(upload.id)?.status === "pending") upload.bytes = bytes;
    else model.strays.add(stagingKeyIn(upload.uploadUrl));
  }

  async function confirmOne(upload: ModelUpload | undefined): Promise<void> {
    if (upload === undefined) return;
    const at = context(upload.workspace);
    const answer = await world.sendConfirm(upload, at);
    expectStatus("confirm", answer, [withFault(upload, confirmStatus(upload, at))]);
    if (model.uploads.has(upload.id)) book(upload, answer);
  }

  async function deleteOne(upload: ModelUpload | undefined): Promise<void> {
    if (upload === undefined) return;
    expectStatus("delete", await world.sendDelete(upload), [model.uploads.has(upload.id) ? 200 : 404]);
    model.remove(upload);
  }

  async function cleanerPass(): Promise<void> {
    const expired = model.expire(clock.now());
    assert.equal((await app.cleaner.runOnce()).expired, expired);
  }

  async function setQuota(of: ModelWorkspace, quotaBytes: number): Promise<void> {
    of.quotaBytes = quotaBytes;
    await app.core.workspaces.setQuota(of.owner.workspaceId, quotaBytes);
  }

  async function changeWorkflows(): Promise<void> {
    const { owner, workflows, deletedWorkflows } = anyWorkspace();
    const old = random.percent(40) ? workflows.shift() : undefined;
    if (old !== undefined) {
      expectStatus("delete workflow", await call("DELETE", `/api/v1/workflows/${old}`, { key: owner.key }), [200]);
      deletedWorkflows.push(old);
      return;
    }
    const made = await call("POST", "/api/v1/workflows", { key: owner.key, body: { name: "w" } });
    expectStatus("create workflow", made, [201]);
    workflows.push(made.json.data.id);
  }

  async function changeKeys(): Promise<void> {
    const { owner, revokedKeys } = anyWorkspace();
    const { apiKeyId, apiKey } = await app.core.keys.create({ workspaceId: owner.workspaceId });
    await app.core.keys.revoke(owner.apiKeyId);
    revokedKeys.push(owner.key);
    owner.key = apiKey;
    owner.apiKeyId = apiKeyId;
  }

  async function withoutRight(): Promise<void> {
    const upload = random.pick(model.all());
    if (upload === undefined) return;
    const revoked = random.pick(upload.workspace.revokedKeys);
    const stranger = random.pick(workspaces.filter((other) => other !== upload.workspace));
    const key = random.percent(50) ? revoked : stranger?.owner.key;
    if (key === undefined) return;
    const [method, body] = random.percent(50) ? ["DELETE"] : ["POST", context(upload.workspace).body];
    const answer = await call(method, `/api/v1/uploads/${upload.id}`, { key, ...(body === undefined ? {} : { body }) });
    expectStatus("call without the right to", answer, [key === revoked ? 401 : 404]);
  }

  /** What an administrator may type. */
  async function deleteByHand(): Promise<void> {
    const one = anyWorkspace();
    const where =
      random.pick([
        { sql: "status = 'pending'", is: ({ status }: ModelUpload) => status === "pending" },
        {
          sql: "size_bytes > 2500",
          is: ({ status, bytes }: ModelUpload) => status === "uploaded" && (bytes?.length ?? 0) > 2_500,
        },
        { sql: "category = 'script'", is: ({ isText }: ModelUpload) => isText },
      ]) ?? assert.fail();
    const gone = model.all().filter((upload) => upload.workspace === one && where.is(upload));
    const { changes } = sql
      .prepare(`DELETE FROM uploads WHERE workspace_id = ? AND ${where.sql}`)
      .run(one.owner.workspaceId);
    assert.equal(changes, gone.length);
    for (const upload of gone) model.remove(upload);
    world.countAnew(one);
  }

  async function passTime(): Promise<void> {
    clock.advance((random.pick([1_000, 60_000, 20 * 60_000, 5 * 3_600_000, 25 * 3_600_000]) ?? 0) + 1);
  }

  return {
    create,
    putBytes,
    confirmOne,
    deleteOne,
    cleanerPass,
    setQuota,
    changeWorkflows,
    changeKeys,
    withoutRight,
    deleteByHand,
    passTime,
  };
}

function stagingKeyIn(url: string): string {
  const { pathname } = new URL(url);
  return pathname.slice(pathname.indexOf("staging/"));
}
