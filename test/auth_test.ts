import assert from "node:assert/strict";
import { test } from "node:test";
import Database from "better-sqlite3";
import { SCOPES } from "../lib/core/principals.ts";
import { type Answer, startTestApp, type TestApp } from "./_app.ts";
import { rawClient, rawRequest } from "./_raw_http.ts";

const WHOAMI = "/api/v1/auth/whoami";
const UPLOADS = "/api/v1/uploads";
const STRANGER = "01890a5d-ac96-774b-bcce-b302099a8057";

/** Every 401 says in which form a credential is to be sent. */
function assertUnauthorized(answer: Answer, code: string, message: RegExp): void {
  assert.equal(answer.status, 401, answer.text);
  assert.equal(answer.json.error.code, code);
  assert.match(answer.json.error.message, message);
  assert.equal(answer.json.error.details, null);
  assert.equal(answer.headers["www-authenticate"], "Bearer");
  assert.match(answer.json.meta.request_id, /^[0-9A-Z]{26}$/);
}

function createKey({ app, owner }: TestApp, options: { scopes?: string[]; expiresInDays?: number } = {}) {
  return app.core.keys.create({ workspaceId: owner.workspaceId, ...options });
}

test("whoami tells everything of a key, scopes in order and once", async (t) => {
  const app = await startTestApp(t);
  const answer = await app.call("GET", WHOAMI);
  assert.equal(answer.status, 200);
  assert.deepEqual(answer.json.data, {
    auth_kind: "api_key",
    user_id: app.owner.userId,
    workspace_id: app.owner.workspaceId,
    api_key_id: app.owner.apiKeyId,
    scopes: [...SCOPES].sort(),
  });
  assert.match(app.owner.key, /^op_live_[0-9A-Za-z]{32}$/);
  const few = await createKey(app, { scopes: ["workspace:read", "uploads:write", "uploads:write"] });
  const { data } = (await app.call("GET", WHOAMI, { key: few.apiKey })).json;
  assert.equal(data.api_key_id, few.apiKeyId);
  assert.deepEqual(data.scopes, ["uploads:write", "workspace:read"]);
});

test("a credential that is missing, of another form or unknown is 401 INVALID_API_KEY", async (t) => {
  const { call, owner } = await startTestApp(t);
  assertUnauthorized(await call("GET", WHOAMI, { key: "" }), "INVALID_API_KEY", /Authorization: Bearer/);
  for (const Authorization of [
    "",
    "Bearer",
    "Bearer ",
    owner.key,
    `Basic ${owner.key}`,
    `Token ${owner.key}`,
    `Bearer ${owner.key} x`,
  ]) {
    const answer = await call("GET", WHOAMI, { key: "", headers: { Authorization } });
    assertUnauthorized(answer, "INVALID_API_KEY", /Bearer/);
  }
  const cut = owner.key.slice(0, -1);
  const last = owner.key.endsWith("A") ? "B" : "A";
  for (const key of [
    `${cut}${last}`,
    cut,
    `${owner.key}A`,
    "op_live_",
    `op_live_${"x".repeat(32)}`,
    "op_live_' OR 1=1 --",
  ]) {
    assertUnauthorized(await call("GET", WHOAMI, { key: key.replaceAll(" ", "") }), "INVALID_API_KEY", /not known/);
  }
  for (const Authorization of [`bearer ${owner.key}`, `BEARER   ${owner.key}`]) {
    assert.equal((await call("GET", WHOAMI, { key: "", headers: { Authorization } })).status, 200);
  }
});

test("reserved kinds of keys are refused as such, and none is taken for a session", async (t) => {
  const { call, owner } = await startTestApp(t);
  for (const key of [owner.key.replace("live", "test"), "op_test_x", "op_pub_x", "op_", "op_live", "op_a.b.c"]) {
    assertUnauthorized(await call("GET", WHOAMI, { key }), "INVALID_API_KEY", /reserved.*op_live_/);
  }
  for (const key of ["eyJhbGciOiJSUzI1NiJ9.e30.x", "OP_LIVE_x", "x"]) {
    assertUnauthorized(await call("GET", WHOAMI, { key }), "UNAUTHORIZED", /op_live_/);
  }
});

test("every path under /api asks for a credential before anything else; probes ask for none", async (t) => {
  const { call, app } = await startTestApp(t);
  for (const [method, path] of [
    ["POST", UPLOADS],
    ["GET", UPLOADS],
    ["POST", `${UPLOADS}/x`],
    ["DELETE", `${UPLOADS}/`],
    ["GET", `${UPLOADS}/x`],
    ["GET", WHOAMI],
    ["POST", "/api/v1/workflows"],
    ["GET", "/api/v1/workflows?limit=x"],
    ["GET", "/api/v1/workflows/x"],
    ["PATCH", "/api/v1/workflows/x"],
    ["DELETE", "/api/v1/workflows/x"],
    ["GET", "/api/v1/workflows/x/uploads"],
  ] as const) {
    assertUnauthorized(await call(method, path, { key: "" }), "INVALID_API_KEY", /No credential/);
  }
  for (const path of ["/health", "/ready"]) {
    assert.equal((await call("GET", path, { key: "" })).status, 200);
    assert.equal((await call("GET", path, { key: "nonsense" })).status, 200);
  }
  const client = await rawClient(t, app.url);
  client.send(rawRequest("HEAD", WHOAMI));
  const head = await client.answer({ bodiless: true });
  assert.equal(head.status, 401);
  assert.equal(head.headers.get("www-authenticate"), "Bearer");
});

test("a revoked key is refused from then on, also where another process revoked it", async (t) => {
  const app = await startTestApp(t);
  const { apiKeyId, apiKey } = await createKey(app);
  const other = await createKey(app);
  for (const key of [apiKey, other.apiKey]) assert.equal((await app.call("GET", WHOAMI, { key })).status, 200);
  await app.app.core.keys.revoke(apiKeyId);
  assertUnauthorized(await app.call("GET", WHOAMI, { key: apiKey }), "INVALID_API_KEY", /revoked/);
  app.sql.prepare("UPDATE api_keys SET revoked_at_ms = 1 WHERE id = ?").run(other.apiKeyId);
  assertUnauthorized(await app.call("GET", WHOAMI, { key: other.apiKey }), "INVALID_API_KEY", /revoked/);
  app.sql.prepare("DELETE FROM api_keys WHERE id = ?").run(other.apiKeyId);
  assertUnauthorized(await app.call("GET", WHOAMI, { key: other.apiKey }), "INVALID_API_KEY", /not known/);
  assert.equal((await app.call("GET", WHOAMI)).status, 200);
});

test("a key expires at its time; the keys of a deleted workspace are not known", async (t) => {
  const app = await startTestApp(t);
  const { apiKey: key } = await createKey(app, { expiresInDays: 1 });
  app.clock.advance(86_400_000 - 60_000);
  assert.equal((await app.call("GET", WHOAMI, { key })).status, 200);
  app.clock.advance(60_000);
  assertUnauthorized(await app.call("GET", WHOAMI, { key }), "INVALID_API_KEY", /expired/);
  assert.equal((await app.call("GET", WHOAMI)).status, 200);
  app.sql.prepare("UPDATE workspaces SET deleted_at_ms = 1").run();
  assertUnauthorized(await app.call("GET", WHOAMI), "INVALID_API_KEY", /not known/);
});

test("each path asks for its scope, 403 without it, before it looks at the request", async (t) => {
  const app = await startTestApp(t);
  const { id } = await app.createUpload();
  const workflow = (await app.call("POST", "/api/v1/workflows", { body: {} })).json.data.id;
  for (const [method, path, scope] of [
    ["POST", UPLOADS, "uploads:write"],
    ["POST", `${UPLOADS}/${id}`, "uploads:write"],
    ["DELETE", `${UPLOADS}/${id}`, "uploads:write"],
    ["DELETE", `${UPLOADS}/nonsense`, "uploads:write"],
    ["POST", "/api/v1/workflows", "workflows:write"],
    ["PATCH", `/api/v1/workflows/${workflow}`, "workflows:write"],
    ["DELETE", `/api/v1/workflows/${workflow}`, "workflows:write"],
    ["GET", "/api/v1/workflows", "workflows:read"],
    ["GET", `/api/v1/workflows/${workflow}`, "workflows:read"],
    ["GET", `/api/v1/workflows/${workflow}/uploads`, "workflows:read"],
  ] as const) {
    const { apiKey: without } = await createKey(app, { scopes: SCOPES.filter((other) => other !== scope) });
    const refused = await app.call(method, path, { key: without });
    assert.equal(refused.status, 403, `${method} ${path}`);
    assert.equal(refused.json.error.code, "FORBIDDEN");
    assert.match(refused.json.error.message, new RegExp(scope));
    assert.equal(refused.json.error.details, null);
    const { apiKey: only } = await createKey(app, { scopes: [scope] });
    assert.notEqual((await app.call(method, path, { key: only })).status, 403, `${method} ${path}`);
  }
  const fresh = await app.createUpload();
  const { apiKey: least } = await createKey(app, { scopes: ["catalog:read"] });
  for (const path of [WHOAMI, UPLOADS, `${UPLOADS}/${fresh.id}`]) {
    assert.equal((await app.call("GET", path, { key: least })).status, 200, "any scope reads uploads");
  }
});

test("X-Workspace-Id may be left out, empty or the key's own; any other is 403", async (t) => {
  const app = await startTestApp(t);
  const other = await app.addOwner();
  const { id } = await app.createUpload();
  const withHeader = (method: string, path: string, value: string) =>
    app.call(method, path, { headers: { "X-Workspace-Id": value } });
  for (const value of ["", app.owner.workspaceId, app.owner.workspaceId.toUpperCase(), ` ${app.owner.workspaceId} `]) {
    assert.equal((await withHeader("GET", WHOAMI, value)).json.data.workspace_id, app.owner.workspaceId);
  }
  for (const value of [
    other.workspaceId,
    STRANGER,
    "nonsense",
    `${app.owner.workspaceId},${app.owner.workspaceId}`,
    "null",
  ]) {
    for (const [method, path] of [
      ["GET", WHOAMI],
      ["POST", UPLOADS],
      ["GET", UPLOADS],
      ["DELETE", `${UPLOADS}/${id}`],
      ["GET", "/api/v1/workflows"],
    ] as const) {
      const answer = await withHeader(method, path, value);
      assert.equal(answer.status, 403, value);
      assert.equal(answer.json.error.code, "FORBIDDEN");
    }
  }
  const client = await rawClient(t, app.app.url);
  const twice = `Authorization: Bearer ${app.owner.key}\r\nX-Workspace-Id: ${app.owner.workspaceId}\r\nX-Workspace-Id: ${other.workspaceId}`;
  client.send(`GET ${WHOAMI} HTTP/1.1\r\nHost: x\r\n${twice}\r\n\r\n`);
  assert.equal((await client.answer()).status, 403);
  assert.equal((await app.call("GET", `${UPLOADS}/${id}`)).status, 200, "nothing was deleted");
});

test("the time of a key's last use is not written with the request, and not lost at the end", async (t) => {
  const app = await startTestApp(t);
  const lastUsed = (sql = app.sql) =>
    sql.prepare("SELECT last_used_at_ms FROM api_keys WHERE id = ?").pluck().get(app.owner.apiKeyId);
  const before = app.clock.now();
  const { id } = await app.createUpload();
  await app.call("DELETE", `${UPLOADS}/${id}`);
  assert.equal(lastUsed(), null);
  await app.app.core.keys.flushUses();
  const first = lastUsed();
  assert.ok(typeof first === "number" && first >= before);
  app.clock.advance(5_000);
  assert.equal((await app.call("GET", WHOAMI)).status, 200);
  assert.equal(lastUsed(), first);
  await app.close();
  const sql = new Database(`${app.dataDir}/stowage.db`);
  t.after(() => sql.close());
  const last = lastUsed(sql);
  assert.ok(typeof last === "number" && last >= first + 5_000);
});
