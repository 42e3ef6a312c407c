import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { type Answer, startTestApp } from "./_app.ts";
import { checkDrained } from "./_books.ts";
import { DAY_MS, LEASE_MS, startFaultyApp, stillClock } from "./_faulty_app.ts";
import { createGate, faultyStore, type StoreHooks } from "./_faulty_store.ts";
import { FILE, UPLOADS } from "./_keyed_app.ts";
import { type PeopleApp, type Person, startPeopleApp, uploadAs } from "./_people.ts";
import { type RawAnswer, rawClient, rawRequest } from "./_raw_http.ts";

// Goal: who loses a right while a request of theirs is under way changes nothing and charges nothing.
// Method: real HTTP; the body, the store or the database makes the request wait, and meanwhile the right goes.

const WORKFLOWS = "/api/v1/workflows";

interface Refusal {
  status: number;
  message: RegExp;
}

const REVOKED: Refusal = { status: 401, message: /was revoked/ };
const EXPIRED: Refusal = { status: 401, message: /has expired/ };
const UNKNOWN_KEY: Refusal = { status: 401, message: /is not known/ };
const NO_WORKSPACE: Refusal = { status: 404, message: /There is no such workspace/ };
const NOT_YOURS: Refusal = { status: 404, message: /names no workspace of yours/ };
const DEMOTED: Refusal = { status: 403, message: /Your role in this workspace is viewer/ };

function assertRefused({ status, text, json }: RawAnswer | Answer, refusal: Refusal, what: string): void {
  assert.equal(status, refusal.status, `${what}: ${text}`);
  assert.match(json.error.message, refusal.message, what);
}

/** Sends a request whose body stops half-way until the service has let it in and `act` is done. */
async function trickle(
  t: TestContext,
  url: string,
  { method, path, headers, body }: { method: string; path: string; headers: Record<string, string>; body: unknown },
  act: () => unknown,
): Promise<RawAnswer> {
  const text = JSON.stringify(body);
  const head = rawRequest(method, path, {
    ...{ "Content-Type": "application/json", "Content-Length": String(text.length), ...headers },
    // The interim answer comes when the credential was looked at.
    Expect: "100-continue",
  });
  const client = await rawClient(t, url);
  client.send(head);
  assert.equal((await client.answer()).status, 100);
  client.send(text.slice(0, 5));
  await act();
  client.send(text.slice(5));
  return client.answer();
}

test("an API key that goes while a body trickles in: 401, and nothing is made", async (t) => {
  const app = await startTestApp(t, { cleansInBackground: false });
  const { keys, workspaces } = app.app.core;
  const ways: [string, Refusal, (made: { workspaceId: string; apiKeyId: string }) => unknown][] = [
    ["revoked", REVOKED, ({ apiKeyId }) => keys.revoke(apiKeyId)],
    ["expired", EXPIRED, () => app.clock.advance(2 * DAY_MS)],
    ["its workspace deleted", UNKNOWN_KEY, ({ workspaceId }) => workspaces.removeAny(workspaceId)],
  ];
  for (const [way, refusal, act] of ways) {
    for (const route of ["upload", "workflow", "change", "confirm"] as const) {
      const { workspaceId } = await app.addOwner();
      const { apiKeyId, apiKey: key } = await keys.create({ workspaceId, expiresInDays: 1 });
      const { id, uploadUrl } = await app.createUpload({ key });
      await app.put(uploadUrl, "12345");
      const workflow = (await app.call("POST", WORKFLOWS, { key, body: { name: "n" } })).json.data.id;
      const requests = {
        upload: { method: "POST", path: UPLOADS, body: FILE },
        workflow: { method: "POST", path: WORKFLOWS, body: {} },
        change: { method: "PATCH", path: `${WORKFLOWS}/${workflow}`, body: { name: "changed" } },
        confirm: {
          ...{ method: "POST", path: `${UPLOADS}/${id}` },
          body: { context_type: "workspace", context_id: workspaceId },
        },
      };
      const headers = { Authorization: `Bearer ${key}` };
      const answer = await trickle(t, app.app.url, { ...requests[route], headers }, () =>
        act({ workspaceId, apiKeyId }),
      );
      assertRefused(answer, refusal, `${way}, ${route}`);
      const rows = (table: string) =>
        app.sql.prepare(`SELECT count(*) FROM ${table} WHERE workspace_id = ?`).pluck().get(workspaceId);
      assert.deepEqual([rows("uploads"), rows("contexts"), rows("storage_events")], [1, 1, 0]);
      assert.equal(app.sql.prepare("SELECT name FROM contexts WHERE id = ?").pluck().get(workflow), "n");
    }
  }
});

test("a session that loses its role while a body trickles in is refused as if it had never had it", async (t) => {
  const app = await startPeopleApp(t);
  const ann = await app.signIn("ann");
  const { members, workspaces } = app.app.core;
  const ways: [string, Refusal, (workspace: string, userId: string) => unknown][] = [
    ["removed", NOT_YOURS, (workspace, userId) => members.remove("administrator", workspace, userId)],
    [
      "demoted",
      DEMOTED,
      (workspace, userId) => members.setRole("administrator", workspace, { userId, role: "viewer" }),
    ],
    ["its workspace deleted", NOT_YOURS, (workspace) => workspaces.removeAny(workspace)],
  ];
  for (const [way, refusal, act] of ways) {
    for (const [path, body] of [
      [UPLOADS, FILE],
      [WORKFLOWS, {}],
    ] as const) {
      const workspace = await app.makeWorkspace(ann);
      const bob = await app.signIn("bob");
      await app.join(workspace, bob, "editor");
      const headers = { Authorization: `Bearer ${bob.token}`, "X-Workspace-Id": workspace };
      const request = { method: "POST", path, headers, body };
      assertRefused(
        await trickle(t, app.app.url, request, () => act(workspace, bob.userId)),
        refusal,
        `${way}, ${path}`,
      );
    }
  }
  assert.equal(app.sql.prepare("SELECT count(*) FROM uploads").pluck().get(), 0);
  assert.equal(app.sql.prepare("SELECT count(*) FROM contexts").pluck().get(), 0);

  const headers = { Authorization: `Bearer ${ann.token}` };
  const personal = { method: "POST", path: UPLOADS, headers, body: FILE };
  const late = await trickle(t, app.app.url, personal, () => app.clock.advance(DAY_MS));
  assertRefused(late, { status: 401, message: /has expired/ }, "its token");
});

test("a slow body counts once towards the rate limit", async (t) => {
  const app = await startTestApp(t, { clock: stillClock(), env: { STOWAGE_RATE_LIMIT_PER_MIN: "2" } });
  const headers = { Authorization: `Bearer ${app.owner.key}` };
  const request = { method: "POST", path: UPLOADS, headers, body: FILE };
  for (const status of [201, 201]) assert.equal((await trickle(t, app.app.url, request, () => {})).status, status);
  assert.equal((await app.call("POST", UPLOADS, { body: FILE })).status, 429);
});

/** Does something in the middle of a request: when the store has copied and its answer has not been heard. */
async function during<T>(hooks: StoreHooks, request: () => Promise<T>, act: () => Promise<unknown>): Promise<T> {
  const gate = createGate();
  hooks.after = ({ name }) => (name === "promote" ? gate.pass() : undefined);
  const answer = request();
  await gate.reached;
  hooks.after = undefined;
  await act();
  gate.open();
  return answer;
}

test("an API key that goes during a confirm charges nothing, and the copy is removed", async (t) => {
  const its = await startFaultyApp(t);
  const { keys, workspaces } = its.app.core;
  const ways: [Refusal, (made: { workspaceId: string; apiKeyId: string }) => Promise<unknown>][] = [
    [REVOKED, ({ apiKeyId }) => keys.revoke(apiKeyId)],
    [EXPIRED, async () => its.clock.advance(2 * DAY_MS)],
    [NO_WORKSPACE, ({ workspaceId }) => workspaces.removeAny(workspaceId)],
  ];
  for (const [refusal, act] of ways) {
    const { workspaceId, userId } = await its.addOwner();
    const { apiKeyId, apiKey: key } = await keys.create({ workspaceId, expiresInDays: 1 });
    const { id, uploadUrl } = await its.createUpload({ key });
    assert.equal((await its.put(uploadUrl, "12345")).status, 200);
    const owner = { workspaceId, userId, apiKeyId, key };
    const answer = await during(
      its.hooks,
      () => its.confirm(id, owner),
      () => act({ workspaceId, apiKeyId }),
    );
    assertRefused(answer, refusal, String(refusal.message));
    assert.equal(its.statusOf(id), "pending");
    assert.equal(its.usedBytes(), 0);
    const [lease] = its.entries().filter(({ object_key }) => object_key.includes(id));
    assert.ok(lease !== undefined && lease.due_at_ms <= its.clock.now() && lease.again_at_ms === null, "it is ended");
    its.check();
  }
  await its.checkEnd();
});

test("a confirm that waited for another is asked again; who still has the right gets the confirmed upload", async (t) => {
  const its = await startFaultyApp(t);
  const { keys } = its.app.core;
  const { workspaceId } = its.owner;
  const [second, third] = [await keys.create({ workspaceId }), await keys.create({ workspaceId })];
  const { id } = await its.staged("12345");
  let late: Promise<Answer>[] = [];
  const first = await during(
    its.hooks,
    () => its.confirm(id),
    async () => {
      late = [second, third].map(({ apiKey: key, apiKeyId }) => its.confirm(id, { ...its.owner, apiKeyId, key }));
      // Until both were let in, and so long that they are asked again.
      await delay(500);
      await keys.revoke(third.apiKeyId);
    },
  );
  assert.equal(first.status, 200, first.text);
  const [allowed, refused] = await Promise.all(late);
  assert.ok(allowed !== undefined && refused !== undefined);
  assert.equal(allowed.status, 200, allowed.text);
  assert.equal(allowed.json.data.status, "uploaded");
  assertRefused(refused, REVOKED, "the one whose key was revoked");
  assert.equal(its.usedBytes(), 5);
});

/** What someone may do to a member while that member confirms. */
type Act = (app: PeopleApp, workspace: string, person: Person) => Promise<unknown>;

test("a member who is removed or demoted during a confirm binds and charges nothing", async (t) => {
  const { hooks, wrapStore } = faultyStore();
  const app = await startPeopleApp(t, {
    ...{ clock: stillClock(), cleansInBackground: false, leaseMs: () => LEASE_MS, wrapStore },
  });
  const [ann, bob] = [await app.signIn("ann"), await app.signIn("bob")];
  const remove: Act = ({ app: { core } }, workspace, { userId }) =>
    core.members.remove("administrator", workspace, userId);
  const demote: Act = ({ app: { core } }, workspace, { userId }) =>
    core.members.setRole("administrator", workspace, { userId, role: "viewer" });
  const noUpload: Refusal = { status: 404, message: /There is no such upload/ };
  const noContext: Refusal = { status: 404, message: /context_id/ };
  const ways: { what: string; of: "own" | "another's" | "personal"; act: Act; refusal: Refusal }[] = [
    { what: "removed", of: "own", act: remove, refusal: noUpload },
    { what: "removed", of: "another's", act: remove, refusal: noUpload },
    { what: "removed", of: "personal", act: remove, refusal: noContext },
    { what: "demoted", of: "own", act: demote, refusal: DEMOTED },
    { what: "demoted", of: "another's", act: demote, refusal: noUpload },
    { what: "demoted", of: "personal", act: demote, refusal: DEMOTED },
  ];
  for (const { what, of, act, refusal } of ways) {
    const workspace = await app.makeWorkspace(ann);
    await app.join(workspace, bob, "editor");
    const id = await uploadAs(app, of === "another's" ? ann : bob, {
      ...(of === "personal" ? {} : { workspace }),
      bytes: "12345",
    });
    const body = { context_type: "workspace", context_id: workspace };
    const confirm = () => bob.call("POST", `${UPLOADS}/${id}`, { body });
    const answer = await during(hooks, confirm, () => act(app, workspace, bob));
    assertRefused(answer, refusal, `${what}, ${of}`);
    assert.equal(app.sql.prepare("SELECT status FROM uploads WHERE id = ?").pluck().get(id), "pending");
  }
  const workspace = await app.makeWorkspace(ann);
  const workflow = (await ann.call("POST", WORKFLOWS, { workspace, body: {} })).json.data.id;
  const id = await uploadAs(app, ann, { workspace, bytes: "12345" });
  const body = { context_type: "workflow", context_id: workflow };
  const answer = await during(
    hooks,
    () => ann.call("POST", `${UPLOADS}/${id}`, { body }),
    () => ann.call("DELETE", `${WORKFLOWS}/${workflow}`, { workspace }),
  );
  assertRefused(answer, noContext, "the workflow deleted");

  assert.equal(app.sql.prepare("SELECT count(*) FROM storage_events").pluck().get(), 0);
  app.clock.advance(3 * DAY_MS);
  for (let pass = 0; pass < 4; pass++) await app.app.cleaner.runOnce();
  checkDrained(app.sql, app.dataDir);
});

interface Locked {
  sql: PeopleApp["sql"];
  requests: () => Promise<Answer>[];
  /** What the holder of the lock changes before it lets go. */
  change: string;
}

/** Holds the database as another process does, until the requests wait for it. */
async function behindLock({ sql, requests, change }: Locked): Promise<Answer[]> {
  sql.exec("BEGIN IMMEDIATE");
  const answers = requests();
  // Where that is too short to let them in, they are refused at the door: the test then proves less, and does not fail.
  await delay(400);
  sql.exec(`${change}; COMMIT`);
  return Promise.all(answers);
}

test("a key that another process revokes while writes wait for the database: 401, and nothing is changed", async (t) => {
  const app = await startTestApp(t, { cleansInBackground: false });
  const { key, apiKeyId } = app.owner;
  const { id } = await app.createUpload();
  const workflow = (await app.call("POST", WORKFLOWS, { body: { name: "n" } })).json.data.id;
  const keyed = { "Idempotency-Key": "a" };
  const requests = () => [
    app.call("POST", UPLOADS, { key, body: FILE }),
    app.call("POST", UPLOADS, { key, body: FILE, headers: keyed }),
    app.call("DELETE", `${UPLOADS}/${id}`, { key }),
    app.call("DELETE", `${UPLOADS}/${id}`, { key, headers: keyed }),
    app.call("POST", WORKFLOWS, { key, body: {} }),
    app.call("PATCH", `${WORKFLOWS}/${workflow}`, { key, body: { name: "changed" } }),
    app.call("DELETE", `${WORKFLOWS}/${workflow}`, { key }),
  ];
  const change = `UPDATE api_keys SET revoked_at_ms = 1 WHERE id = '${apiKeyId}'`;
  for (const answer of await behindLock({ sql: app.sql, requests, change })) assertRefused(answer, REVOKED, "a write");
  assert.deepEqual(app.sql.prepare("SELECT id FROM uploads").pluck().all(), [id]);
  assert.deepEqual(app.sql.prepare("SELECT name FROM contexts").pluck().all(), ["n"]);
  assert.equal(app.sql.prepare("SELECT count(*) FROM idempotency_keys").pluck().get(), 0);
});

test("a member who is demoted or removed while writes wait for the database changes nothing", async (t) => {
  const app = await startPeopleApp(t, { cleansInBackground: false });
  const [ann, bob] = [await app.signIn("ann"), await app.signIn("bob")];
  const workspace = await app.makeWorkspace(ann);
  await app.join(workspace, bob, "admin");
  const id = await uploadAs(app, ann, { workspace });
  const workflow = (await ann.call("POST", WORKFLOWS, { workspace, body: { name: "n" } })).json.data.id;
  const path = `/api/v1/workspaces/${workspace}`;
  const requests = () => [
    bob.call("POST", UPLOADS, { workspace, body: FILE }),
    bob.call("DELETE", `${UPLOADS}/${id}`),
    bob.call("POST", WORKFLOWS, { workspace, body: {} }),
    bob.call("PATCH", `${WORKFLOWS}/${workflow}`, { workspace, body: { name: "changed" } }),
    bob.call("DELETE", `${WORKFLOWS}/${workflow}`, { workspace }),
    bob.call("PATCH", path, { body: { name: "changed" } }),
    bob.call("PATCH", `${path}/members/${ann.userId}`, { body: { role: "viewer" } }),
    bob.call("DELETE", `${path}/members/${ann.userId}`),
  ];
  const state = () => [
    ...app.sql.prepare("SELECT id FROM uploads").pluck().all(),
    ...app.sql.prepare("SELECT name FROM contexts").pluck().all(),
    ...app.sql.prepare("SELECT name FROM workspaces WHERE id = ?").pluck().all(workspace),
    ...app.sql.prepare("SELECT role FROM memberships WHERE user_id = ?").pluck().all(ann.userId),
  ];
  const was = state();
  const where = `WHERE workspace_id = '${workspace}' AND user_id = '${bob.userId}'`;
  for (const [change, statuses] of [
    [`UPDATE memberships SET role = 'viewer' ${where}`, [403, 404, 403, 403, 403, 404, 403, 403]],
    [`UPDATE memberships SET role = 'admin' ${where}; DELETE FROM memberships ${where}`, Array(8).fill(404)],
  ] as const) {
    const answers = await behindLock({ sql: app.sql, requests, change });
    assert.deepEqual(
      answers.map(({ status }) => status),
      statuses,
    );
    assert.deepEqual(state(), was);
    app.sql.exec(`INSERT OR REPLACE INTO memberships VALUES ('${workspace}', '${bob.userId}', 'admin', 1)`);
  }
});
