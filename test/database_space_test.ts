import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { createContexts } from "../lib/core/contexts.ts";
import { createWorkspaces } from "../lib/core/workspaces.ts";
import { DATABASE_FILE } from "../lib/db/db.ts";
import { type Answer, startTestApp, type TestApp } from "./_app.ts";
import { stillClock } from "./_faulty_app.ts";
import { FILE, startKeyedApp, UPLOADS } from "./_keyed_app.ts";
import { type Person, startPeopleApp, uploadAs } from "./_people.ts";
import { queryPlans } from "./_query_plans.ts";

// Goal: no client makes the database grow without limit, and none stops it by filling its disk.
// Method: small limits over real HTTP; a disk that never has enough free.

const WORKFLOWS = "/api/v1/workflows";
/** More than any disk has. */
const ENORMOUS = String(Number.MAX_SAFE_INTEGER);

function assertError(answer: Answer, status: number, code: string, message: RegExp): void {
  assert.equal(answer.status, status, answer.text);
  assert.equal(answer.json.error.code, code);
  assert.match(answer.json.error.message, message);
}

const makeWorkflow = ({ call }: TestApp, key?: string): Promise<Answer> =>
  call("POST", WORKFLOWS, { body: {}, ...(key === undefined ? {} : { key }) });

const rowsOf = ({ sql }: TestApp, table: string): unknown => sql.prepare(`SELECT count(*) FROM ${table}`).pluck().get();

test("a workspace has so many workflows and no more; deleting one makes room at once", async (t) => {
  const app = await startTestApp(t, {
    clock: stillClock(),
    env: { STOWAGE_WORKFLOWS_PER_WORKSPACE_MAX: "3" },
  });
  const other = await app.addOwner();
  const ids: string[] = [];
  for (let i = 0; i < 3; i++) ids.push((await makeWorkflow(app)).json.data.id);
  for (let i = 0; i < 2; i++) {
    assertError(await makeWorkflow(app), 402, "STORAGE_LIMIT_EXCEEDED", /has 3 workflows.* delete one to make room/);
  }
  const changed = await app.call("PATCH", `${WORKFLOWS}/${ids[0]}`, { body: { definition: { a: 1 } } });
  assert.equal(changed.status, 200, "those that are there can be changed");
  assert.equal((await makeWorkflow(app, other.key)).status, 201, "the limit is each workspace's own");
  assert.equal((await app.call("DELETE", `${WORKFLOWS}/${ids[1]}`)).status, 200);
  assert.equal((await makeWorkflow(app)).status, 201);
  assert.equal((await makeWorkflow(app)).status, 402);

  // By hand, beside the running service: it finds out within a minute.
  app.sql.prepare("DELETE FROM contexts WHERE id = ?").run(ids[0]);
  app.clock.advance(60_000);
  assert.equal((await makeWorkflow(app)).status, 201);
  assert.equal((await makeWorkflow(app)).status, 402);
});

test("many creates at once do not pass the limit", async (t) => {
  const app = await startTestApp(t, { env: { STOWAGE_WORKFLOWS_PER_WORKSPACE_MAX: "5" } });
  const answers = await Promise.all(Array.from({ length: 20 }, () => makeWorkflow(app)));
  assert.equal(answers.filter(({ status }) => status === 201).length, 5);
  assert.equal(rowsOf(app, "contexts"), 5);
});

test("a deleted workflow leaves no row; its uploads stay, charged, with its id", async (t) => {
  const app = await startTestApp(t);
  const workflow = (await makeWorkflow(app)).json.data.id;
  const { id, uploadUrl } = await app.createUpload();
  await app.put(uploadUrl, "12345");
  const context = { context_type: "workflow", context_id: workflow };
  assert.equal((await app.call("POST", `${UPLOADS}/${id}`, { body: context })).status, 200);
  assert.equal((await app.call("DELETE", `${WORKFLOWS}/${workflow}`)).status, 200);
  assert.equal(rowsOf(app, "contexts"), 0);
  assert.equal((await app.call("GET", `${WORKFLOWS}/${workflow}`)).status, 404);
  const { data } = (await app.call("GET", `${UPLOADS}?context_id=${workflow}`)).json;
  assert.deepEqual(
    data.map((upload: { id: string }) => upload.id),
    [id],
  );
  assert.equal(app.sql.prepare("SELECT storage_bytes_used FROM workspaces").pluck().get(), 5);
});

test("workflows, and the workspaces that someone owns, are counted by index alone", async (t) => {
  const app = await startTestApp(t);
  const { workspaces, rights } = app.app.core;
  const plans = queryPlans(join(app.dataDir, DATABASE_FILE), (db) => {
    createContexts(db, { workspaces, rights, now: Date.now, workflowsMax: 1 });
    createWorkspaces(db, Date.now);
  });
  for (const [pattern, index] of [
    [/count\(\*\) AS workflows/, "COVERING INDEX contexts_by_workspace"],
    // Deleted ones are in the index only until they are empty.
    [/count\(\*\) AS owned/, "INDEX workspaces_by_owner"],
  ] as const) {
    const steps = plans.filter(({ sql }) => pattern.test(sql)).map((plan) => plan.steps);
    assert.equal(steps.length, 1);
    assert.ok(steps[0]?.includes(index), steps[0]);
  }
});

test("a caller has so many Idempotency-Keys: then a create is 429, and confirms and deletes are done unremembered", async (t) => {
  const its = await startKeyedApp(t, { env: { STOWAGE_IDEMPOTENCY_KEYS_MAX: "2" } });
  const first = await its.create("a");
  assert.equal(first.status, 201);
  const { id, uploadUrl } = await its.staged("12345");
  assert.equal((await its.create("b")).status, 201);

  const refused = await its.create("c");
  assertError(refused, 429, "RATE_LIMITED", /with 2 different Idempotency-Keys within 24 hours/);
  assert.equal(refused.headers["retry-after"], "60");
  assert.equal((await its.create("a")).json.data.upload.id, first.json.data.upload.id, "what is remembered stays");
  assert.equal((await its.call("POST", UPLOADS, { body: FILE })).status, 201, "without a key");
  assert.equal(its.count("idempotency_keys"), 2);
  assert.equal(its.count("uploads"), 4, "the refused create made none");

  for (let i = 0; i < 2; i++) assert.equal((await its.confirmAs("d", id)).status, 200);
  assert.equal((await its.put(uploadUrl, "late")).status, 404);
  assert.equal(its.usedBytes(), 5);
  assert.equal((await its.deleteAs("e", id)).status, 200);
  assert.equal((await its.deleteAs("e", id)).status, 404, "it was not remembered");
  assert.equal(its.usedBytes(), 0);
  assert.equal(its.count("idempotency_keys"), 2);

  const other = await its.addOwner();
  assert.equal(
    (await its.keyed("c", "POST", UPLOADS, { key: other.key, body: FILE })).status,
    201,
    "each caller's own",
  );
  its.clock.advance(25 * 60 * 60_000);
  for (const [key, status] of [
    ["c", 201],
    ["f", 201],
    ["g", 429],
  ] as const) {
    assert.equal((await its.create(key)).status, status, key);
  }
});

/** Everything that a person could still do, tried. */
async function statusesOf(person: Person, workspace: string, mate: Person): Promise<Record<string, number>> {
  const status = async (...args: Parameters<Person["call"]>): Promise<number> => (await person.call(...args)).status;
  return {
    upload: await status("POST", UPLOADS, { workspace, body: FILE }),
    personal: await status("POST", UPLOADS, { body: FILE }),
    workflow: await status("POST", WORKFLOWS, { workspace, body: {} }),
    workspace: await status("POST", "/api/v1/workspaces", { body: { name: "n" } }),
    member: await status("POST", `/api/v1/workspaces/${workspace}/members`, {
      body: { user_id: mate.userId, role: "viewer" },
    }),
  };
}

test("with too little disk free whatever grows is 507; reads, confirms, deletes and releases go on", async (t) => {
  const before = await startPeopleApp(t, { cleansInBackground: false });
  const [ann, bob] = [await before.signIn("ann"), await before.signIn("bob")];
  const workspace = await before.makeWorkspace(ann);
  const [confirmed, staged] = [
    await uploadAs(before, ann, { workspace, bytes: "12345" }),
    await uploadAs(before, ann, { workspace, bytes: "123" }),
  ];
  const context = { body: { context_type: "workspace", context_id: workspace } };
  assert.equal((await ann.call("POST", `${UPLOADS}/${confirmed}`, context)).status, 200);
  const workflow = (await ann.call("POST", WORKFLOWS, { workspace, body: {} })).json.data.id;
  const first = await before.call("POST", UPLOADS, { body: FILE, headers: { "Idempotency-Key": "a" } });
  await before.close();

  const app = await startTestApp(t, {
    cleansInBackground: false,
    dataDir: before.dataDir,
    owner: before.owner,
    env: { STOWAGE_CLERK_ISSUER: before.issuer.issuer, STOWAGE_MIN_FREE_BYTES: ENORMOUS },
  });
  const late: Person = {
    ...ann,
    call: (method, path, { body, workspace: selected } = {}) =>
      app.call(method, path, {
        key: ann.token,
        body,
        ...(selected === undefined ? {} : { headers: { "X-Workspace-Id": selected } }),
      }),
  };
  const rows = () => ["uploads", "contexts", "workspaces", "memberships", "users"].map((table) => rowsOf(app, table));
  const were = rows();
  assert.deepEqual(await statusesOf(late, workspace, bob), {
    ...{ upload: 507, personal: 507, workflow: 507, workspace: 507, member: 507 },
  });
  const stranger = await before.issuer.mint({ sub: "stranger" });
  assert.equal((await app.call("GET", "/api/v1/auth/whoami", { key: stranger })).status, 507, "someone new");
  const patched = await late.call("PATCH", `${WORKFLOWS}/${workflow}`, { workspace, body: { name: "n" } });
  assertError(patched, 507, "INSUFFICIENT_STORAGE", /less than 9007199254740991 bytes free.*administrator/);
  assert.deepEqual(rows(), were);

  const again = await app.call("POST", UPLOADS, { body: FILE, headers: { "Idempotency-Key": "a" } });
  assert.equal(again.status, 201, "a create that was made before");
  assert.equal(again.json.data.upload.id, first.json.data.upload.id);
  assert.equal((await late.call("GET", UPLOADS, { workspace })).status, 200);
  assert.equal((await late.call("POST", `${UPLOADS}/${staged}`, context)).status, 200, "a confirm");
  assert.equal((await late.call("DELETE", `${UPLOADS}/${staged}`)).status, 200);
  assert.equal((await late.call("DELETE", `${UPLOADS}/${confirmed}`)).status, 200);
  assert.equal((await late.call("DELETE", `${WORKFLOWS}/${workflow}`, { workspace })).status, 200);
  assert.ok((await app.app.cleaner.runOnce()).removed > 0);
  const used = app.sql.prepare("SELECT storage_bytes_used FROM workspaces WHERE id = ?").pluck();
  assert.equal(used.get(workspace), 0);
  assert.equal((await late.call("DELETE", `/api/v1/workspaces/${workspace}`)).status, 200);
});
