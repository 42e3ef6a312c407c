import assert from "node:assert/strict";
import { test } from "node:test";
import { StoreError } from "../lib/store/objects.ts";
import { type Answer, startTestApp, type TestApp } from "./_app.ts";
import { checkBooks } from "./_books.ts";

const UPLOADS = "/api/v1/uploads";
const STRANGER = "01890a5d-ac96-774b-bcce-b302099a8057";

function assertError(answer: Answer, status: number, code: string, field?: string): void {
  assert.equal(answer.status, status, answer.text);
  assert.equal(answer.json.error.code, code);
  assert.equal(answer.json.error.details?.[0]?.field, field);
  assert.match(answer.json.meta.request_id, /^[0-9A-Z]{26}$/);
}

async function createWorkflow({ call }: TestApp, key?: string): Promise<string> {
  const answer = await call("POST", "/api/v1/workflows", {
    body: { name: "W" },
    ...(key === undefined ? {} : { key }),
  });
  assert.equal(answer.status, 201);
  return answer.json.data.id;
}

/** A session that an upload can be bound to; only the database makes them so far. */
function insertSession({ sql, owner }: TestApp, id: string): void {
  sql
    .prepare(`
      INSERT INTO contexts (id, type, workspace_id, user_id, name, name_source, definition_json, created_at_ms, updated_at_ms)
      VALUES (?, 'assistant_session', ?, ?, 'S', 'user', '{}', 0, 0)`)
    .run(id, owner.workspaceId, owner.userId);
}

async function putUpload({ createUpload, put }: TestApp, bytes: string): Promise<string> {
  const { id, uploadUrl } = await createUpload();
  assert.equal((await put(uploadUrl, bytes)).status, 200);
  return id;
}

function used({ sql, owner }: TestApp): unknown {
  return sql.prepare("SELECT storage_bytes_used FROM workspaces WHERE id = ?").pluck().get(owner.workspaceId);
}

test("an upload can be bound to a workflow, a session, and the workspace by two names", async (t) => {
  const app = await startTestApp(t);
  const session = "01890a5d-ac96-774b-bcce-b302099a8058";
  insertSession(app, session);
  for (const [context_type, context_id] of [
    ["workflow", await createWorkflow(app)],
    ["assistant_session", session],
    ["playground", app.owner.workspaceId],
    ["workspace", app.owner.workspaceId],
  ] as const) {
    const id = await putUpload(app, "x");
    const answer = await app.call("POST", `${UPLOADS}/${id}`, {
      body: { context_type, context_id: context_id.toUpperCase() },
    });
    assert.equal(answer.status, 200, answer.text);
    const { data } = answer.json;
    assert.deepEqual(
      [data.id, data.status, data.size_bytes, data.context_type, data.context_id, data.workspace_id],
      [id, "uploaded", 1, context_type, context_id, app.owner.workspaceId],
    );
    const shown = await app.call("GET", `${UPLOADS}/${id}`);
    assert.deepEqual({ ...shown.json.data, download_url: "" }, { ...data, download_url: "" });
  }
});

test("a body that says no context, or none that there is, is 422 and names the field", async (t) => {
  const app = await startTestApp(t);
  const id = await putUpload(app, "x");
  const good = { context_type: "workspace", context_id: app.owner.workspaceId };
  for (const [body, field] of [
    [{}, "context_type"],
    [{ context_id: good.context_id }, "context_type"],
    [{ context_type: "workspace" }, "context_id"],
    [{ ...good, context_type: "project" }, "context_type"],
    [{ ...good, context_type: null }, "context_type"],
    [{ ...good, context_id: null }, "context_id"],
    [{ ...good, context_id: "" }, "context_id"],
    [{ ...good, context_id: "wf-1" }, "context_id"],
    [{ ...good, context_id: 5 }, "context_id"],
    [{ ...good, context_id: [good.context_id] }, "context_id"],
    [[], "body"],
  ] as const) {
    assertError(await app.call("POST", `${UPLOADS}/${id}`, { body }), 422, "VALIDATION_ERROR", field);
  }
  const listed = await app.call("POST", `${UPLOADS}/${id}`, { body: { ...good, context_type: "project" } });
  assert.match(listed.json.error.message, /workflow, playground, assistant_session, workspace/);
});

test("a context that is unknown, deleted, foreign or of another type is 404 and names context_id", async (t) => {
  const app = await startTestApp(t);
  const other = await app.addOwner();
  const deleted = await createWorkflow(app);
  await app.call("DELETE", `/api/v1/workflows/${deleted}`);
  const workflow = await createWorkflow(app);
  const foreign = await createWorkflow(app, other.key);
  const id = await putUpload(app, "x");
  for (const [context_type, context_id] of [
    ["workflow", STRANGER],
    ["workflow", deleted],
    ["workflow", foreign],
    ["workflow", app.owner.workspaceId],
    ["assistant_session", workflow],
    ["playground", workflow],
    ["playground", other.workspaceId],
    ["workspace", other.workspaceId],
    ["workspace", STRANGER],
  ]) {
    const answer = await app.call("POST", `${UPLOADS}/${id}`, { body: { context_type, context_id } });
    assertError(answer, 404, "NOT_FOUND", "context_id");
    assert.match(answer.json.error.message, /context_id/);
  }
  assert.equal(used(app), 0);
  assert.equal((await app.confirm(id)).status, 200, "it is still pending");
});

test("the checks come in order: upload, confirmed already, context, bytes, room", async (t) => {
  const app = await startTestApp(t, { quotaBytes: 4 });
  const confirmWith = (id: string, context_id: string) =>
    app.call("POST", `${UPLOADS}/${id}`, { body: { context_type: "workspace", context_id } });
  const { workspaceId } = app.owner;
  // Each lacks all that is looked at later as well.
  assertError(await confirmWith(STRANGER, STRANGER), 404, "NOT_FOUND");
  const { id, uploadUrl } = await app.createUpload();
  assertError(await confirmWith(id, STRANGER), 404, "NOT_FOUND", "context_id");
  const early = await confirmWith(id, workspaceId);
  assertError(early, 422, "VALIDATION_ERROR", "upload_id");
  assert.match(early.json.error.message, /upload_url/);
  await app.put(uploadUrl, "12345");
  assertError(await confirmWith(id, STRANGER), 404, "NOT_FOUND", "context_id");
  assertError(await confirmWith(id, workspaceId), 402, "STORAGE_LIMIT_EXCEEDED");
  await app.put(uploadUrl, "1234");
  assert.equal((await confirmWith(id, workspaceId)).status, 200);
  assert.equal((await confirmWith(id, STRANGER)).status, 200, "what is confirmed stays, whatever the context");
});

test("confirm again answers the present state, and charges and rebinds nothing, and asks no store", async (t) => {
  let stats = 0;
  const app = await startTestApp(t, {
    wrapStore: (objects) => ({
      ...objects,
      stat(key) {
        stats++;
        return objects.stat(key);
      },
    }),
  });
  const workflow = await createWorkflow(app);
  const id = await putUpload(app, "12345");
  const first = await app.confirm(id);
  for (const body of [
    { context_type: "workspace", context_id: app.owner.workspaceId },
    { context_type: "workflow", context_id: workflow },
    { context_type: "workflow", context_id: STRANGER },
  ]) {
    const again = await app.call("POST", `${UPLOADS}/${id}`, { body });
    assert.equal(again.status, 200);
    assert.deepEqual({ ...again.json.data, download_url: "" }, { ...first.json.data, download_url: "" });
  }
  assert.equal(stats, 1);
  assert.equal(used(app), 5);
  assert.equal(app.sql.prepare("SELECT count(*) FROM storage_events").pluck().get(), 1);
});

test("over the quota is 402: the row is pending, nothing is charged or copied; equality passes", async (t) => {
  const app = await startTestApp(t, { quotaBytes: 10, cleansInBackground: false });
  const { workspaces } = app.app.core;
  const [a, b] = [await putUpload(app, "123456"), await putUpload(app, "12345")];
  assert.equal((await app.confirm(a)).status, 200);
  const before = app.sql.prepare("SELECT count(*) FROM object_removals").pluck().get();
  const refused = await app.confirm(b);
  assertError(refused, 402, "STORAGE_LIMIT_EXCEEDED");
  assert.match(refused.json.error.message, /5 bytes.*4 bytes left.*10/);
  assert.equal(used(app), 6);
  assert.equal((await app.call("GET", `${UPLOADS}/${b}`)).json.data.status, "pending");
  assert.equal(app.sql.prepare("SELECT count(*) FROM object_removals").pluck().get(), before);
  await workspaces.setQuota(app.owner.workspaceId, 11);
  assert.equal((await app.confirm(b)).status, 200, "equality passes");
  assert.equal(used(app), 11);

  await workspaces.setQuota(app.owner.workspaceId, 3);
  const c = await putUpload(app, "");
  assertError(await app.confirm(c), 402, "STORAGE_LIMIT_EXCEEDED");
  assert.equal((await app.confirm(a)).status, 200, "what is confirmed stays readable");
  assert.equal((await app.call("GET", `${UPLOADS}/${a}`)).status, 200);
  assert.equal((await app.call("DELETE", `${UPLOADS}/${a}`)).status, 200);
  assert.equal((await app.call("DELETE", `${UPLOADS}/${b}`)).status, 200);
  assert.equal((await app.confirm(c)).status, 200);
  checkBooks(app.sql);
});

test("a file larger than is allowed by now is 413, and stays pending", async (t) => {
  const app = await startTestApp(t);
  const id = await putUpload(app, "12345");
  await app.close();
  const smaller = await startTestApp(t, {
    ...{ dataDir: app.dataDir, owner: app.owner, env: { STOWAGE_MAX_UPLOAD_BYTES: "4" } },
  });
  assertError(await smaller.confirm(id), 413, "PAYLOAD_TOO_LARGE");
  assert.equal((await smaller.call("GET", `${UPLOADS}/${id}`)).json.data.status, "pending");
});

test("a store that fails is 503 with Retry-After, and the upload stays pending", async (t) => {
  let fails: "stat" | "promote" | "read" | null = null;
  const failing = async (): Promise<never> => {
    throw new StoreError("unavailable", "https://store/x?X-Amz-Signature=secret: no answer");
  };
  const app = await startTestApp(t, {
    wrapStore: (objects) => ({
      ...objects,
      stat: (...args) => (fails === "stat" ? failing() : objects.stat(...args)),
      promote: (...args) => (fails === "promote" ? failing() : objects.promote(...args)),
      read: (...args) => (fails === "read" ? failing() : objects.read(...args)),
    }),
  });
  const { id, uploadUrl } = await app.createUpload({ filename: "a.txt", category: "script" });
  await app.put(uploadUrl, "x");
  for (const where of ["stat", "promote", "read"] as const) {
    fails = where;
    const answer = await app.confirm(id);
    assertError(answer, 503, "STORAGE_UNAVAILABLE");
    assert.equal(answer.headers["retry-after"], "5");
    assert.ok(!answer.text.includes("secret"));
    assert.equal((await app.call("GET", `${UPLOADS}/${id}`)).json.data.status, "pending", where);
    assert.equal(used(app), 0);
  }
  fails = null;
  assert.equal((await app.confirm(id)).json.data.char_count, 1);
  checkBooks(app.sql);
});
