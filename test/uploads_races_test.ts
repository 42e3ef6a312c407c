import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { type Answer, startTestApp, type TestApp, type TestAppOptions } from "./_app.ts";
import { checkRaw, checkRawDrained } from "./_raw_store.ts";

const UPLOADS = "/api/v1/uploads";

async function putUpload({ createUpload, put }: TestApp, bytes: string): Promise<string> {
  const { id, uploadUrl } = await createUpload();
  assert.equal((await put(uploadUrl, bytes)).status, 200);
  return id;
}

/** How often an upload was charged and released, in this order. */
function eventsOf({ sql }: TestApp, id: string): unknown[] {
  return sql.prepare("SELECT kind FROM storage_events WHERE upload_id = ? ORDER BY seq").pluck().all(id);
}

async function checkAll(app: TestApp): Promise<void> {
  await app.app.cleaner.runOnce();
  await checkRaw(app.sql, app.raw);
}

test("of many deletes at once one is 200, the others are 404, and the bytes come back once", async (t) => {
  const app = await startTestApp(t);
  for (let round = 0; round < 10; round++) {
    const { id } = await app.confirmedUpload("12345");
    const answers = await Promise.all(Array.from({ length: 4 }, () => app.call("DELETE", `${UPLOADS}/${id}`)));
    assert.deepEqual(answers.map(({ status }) => status).sort(), [200, 404, 404, 404]);
    assert.deepEqual(eventsOf(app, id), ["charge", "release"]);
  }
  assert.equal(app.sql.prepare("SELECT storage_bytes_used FROM workspaces").pluck().get(), 0);
  await checkAll(app);
});

/** The moments of a confirm at which something else can come in between. */
const MOMENTS = ["before stat", "after stat", "before promote", "after promote"] as const;
type Moment = (typeof MOMENTS)[number];

/** A service that does something at one moment of its next confirm. */
async function startInterruptible(t: TestContext, options: TestAppOptions = {}) {
  let next: { at: Moment; act: () => Promise<unknown> } | null = null;
  async function reach(moment: Moment): Promise<void> {
    if (next?.at !== moment) return;
    const { act } = next;
    next = null;
    await act();
  }
  const app = await startTestApp(t, {
    ...options,
    wrapStore: (objects) => ({
      ...objects,
      async stat(key) {
        await reach("before stat");
        const stat = await objects.stat(key);
        await reach("after stat");
        return stat;
      },
      async promote(from, to, how) {
        await reach("before promote");
        const promoted = await objects.promote(from, to, how);
        await reach("after promote");
        return promoted;
      },
    }),
  });
  const interrupt = (at: Moment, act: () => Promise<unknown>): void => {
    next = { at, act };
  };
  return { app, interrupt };
}

test("a confirm with a delete in between is 404 and charges nothing, wherever it comes", async (t) => {
  const { app, interrupt } = await startInterruptible(t);
  for (const moment of MOMENTS) {
    const id = await putUpload(app, "12345");
    let deleted: Answer | undefined;
    interrupt(moment, async () => {
      deleted = await app.call("DELETE", `${UPLOADS}/${id}`);
    });
    const confirmed = await app.confirm(id);
    assert.equal(confirmed.status, 404, moment);
    assert.equal(confirmed.json.error.details, null, "it is the upload that is gone");
    assert.equal(deleted?.status, 200);
    assert.deepEqual(eventsOf(app, id), []);
  }
  await checkAll(app);
});

test("a confirm that races a delete comes before or after it, never both", async (t) => {
  const { app, interrupt } = await startInterruptible(t);
  for (let round = 0; round < 60; round++) {
    const id = await putUpload(app, "12345");
    // Started at that moment and not waited for: it arrives at the database with the last step of the confirm, or near it.
    const { promise: deleting, resolve } = Promise.withResolvers<Answer>();
    interrupt("after promote", async () => {
      for (let turn = 0; turn < round % 6; turn++) await new Promise(setImmediate);
      void app.call("DELETE", `${UPLOADS}/${id}`).then(resolve);
      for (let turn = 0; turn < Math.floor(round / 6); turn++) await new Promise(setImmediate);
    });
    const [confirmed, deleted] = await Promise.all([app.confirm(id), deleting]);
    assert.equal(deleted.status, 200, "the delete always finds the row, in one state or the other");
    const events = eventsOf(app, id);
    if (confirmed.status === 200) assert.deepEqual(events, ["charge", "release"]);
    else {
      assert.equal(confirmed.status, 404, confirmed.text);
      assert.equal(confirmed.json.error.details, null);
      assert.deepEqual(events, []);
    }
    assert.equal((await app.call("GET", `${UPLOADS}/${id}`)).status, 404);
  }
  await checkAll(app);
});

test("of two confirms at once with two contexts one binds, both answer what it bound", async (t) => {
  const app = await startTestApp(t);
  const workflow = await app.call("POST", "/api/v1/workflows", { body: {} });
  const contexts = [
    { context_type: "workspace", context_id: app.owner.workspaceId },
    { context_type: "workflow", context_id: workflow.json.data.id },
  ];
  for (let round = 0; round < 10; round++) {
    const id = await putUpload(app, "12345");
    const [one, two] = await Promise.all(contexts.map((body) => app.call("POST", `${UPLOADS}/${id}`, { body })));
    assert.equal(one?.status, 200);
    assert.equal(two?.status, 200);
    assert.deepEqual({ ...one?.json.data, download_url: "" }, { ...two?.json.data, download_url: "" });
    assert.deepEqual(eventsOf(app, id), ["charge"]);
  }
  await checkAll(app);
});

test("a confirm that fails does not take those that wait behind it along", async (t) => {
  const app = await startTestApp(t);
  const id = await putUpload(app, "x");
  const unknown = { context_type: "workflow", context_id: "01890a5d-ac96-774b-bcce-b302099a8057" };
  const [failed, done] = await Promise.all([app.call("POST", `${UPLOADS}/${id}`, { body: unknown }), app.confirm(id)]);
  assert.ok(failed.status === 404 || failed.status === 200);
  assert.equal(done.status, 200);
  assert.deepEqual(eventsOf(app, id), ["charge"]);
});

test("confirms of many uploads at once never charge above the quota", async (t) => {
  const app = await startTestApp(t, { quotaBytes: 25 });
  const ids = await Promise.all(Array.from({ length: 8 }, () => putUpload(app, "12345")));
  const statuses = (await Promise.all(ids.map((id) => app.confirm(id)))).map(({ status }) => status).sort();
  assert.deepEqual(statuses, [200, 200, 200, 200, 200, 402, 402, 402]);
  assert.equal(app.sql.prepare("SELECT storage_bytes_used FROM workspaces").pluck().get(), 25);
  await checkAll(app);
});

test("a confirm that races the expiry of its row is done whole, or the row is gone", async (t) => {
  const { app, interrupt } = await startInterruptible(t, {
    ...{ cleansInBackground: false, env: { STOWAGE_PENDING_TTL_SECONDS: "900" } },
  });
  for (const [moment, status] of [
    ["before stat", 404],
    ["after stat", 404],
    // From here on the row waits for the confirm, however late it is.
    ["before promote", 200],
    ["after promote", 200],
  ] as const) {
    const id = await putUpload(app, "12345");
    app.clock.advance(901_000);
    interrupt(moment, () => app.app.cleaner.runOnce());
    assert.equal((await app.confirm(id)).status, status, moment);
    const shown = await app.call("GET", `${UPLOADS}/${id}`);
    assert.equal(shown.status, status);
    assert.deepEqual(eventsOf(app, id), status === 200 ? ["charge"] : []);
  }
  await checkAll(app);
});

test("a PUT that races a delete leaves nothing for ever", async (t) => {
  const app = await startTestApp(t, { cleansInBackground: false });
  for (let round = 0; round < 20; round++) {
    const { id, uploadUrl } = await app.createUpload();
    const putting = app.put(uploadUrl, "12345");
    for (let turn = 0; turn < round; turn++) await new Promise(setImmediate);
    const [put, deleted] = await Promise.all([putting, app.call("DELETE", `${UPLOADS}/${id}`)]);
    assert.equal(deleted.status, 200);
    assert.ok(put.status === 200 || put.status === 404, put.text);
  }
  await app.app.cleaner.runOnce();
  // On S3 the PUT may end after that: what it leaves goes when its URL has expired.
  app.clock.advance(901_000);
  await app.app.cleaner.runOnce();
  await checkRawDrained(app.sql, app.raw);
});
