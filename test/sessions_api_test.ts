import assert from "node:assert/strict";
import { test } from "node:test";
import { SCOPES } from "../lib/core/principals.ts";
import { createLog } from "../lib/log.ts";
import { type Answer, startTestApp } from "./_app.ts";
import { checkBooks } from "./_books.ts";
import { type PeopleApp, type Person, startPeopleApp, uploadAs, wordsOf } from "./_people.ts";
import { until } from "./_until.ts";

const WHOAMI = "/api/v1/auth/whoami";
const UPLOADS = "/api/v1/uploads";
const WORKFLOWS = "/api/v1/workflows";
const STRANGER = "01890a5d-ac96-774b-bcce-b302099a8057";

function assertError(answer: Answer, status: number, code: string, message = /./): void {
  assert.equal(answer.status, status, answer.text);
  assert.equal(answer.json.error.code, code);
  assert.match(answer.json.error.message, message);
}

function confirmAs(person: Person, id: string, workspaceId: string, workspace?: string): Promise<Answer> {
  return person.call("POST", `${UPLOADS}/${id}`, {
    body: { context_type: "workspace", context_id: workspaceId },
    ...(workspace === undefined ? {} : { workspace }),
  });
}

function used({ sql }: PeopleApp, workspaceId: string): unknown {
  return sql.prepare("SELECT storage_bytes_used FROM workspaces WHERE id = ?").pluck().get(workspaceId);
}

test("whoami tells of a session: every scope, and the workspace that the header selects", async (t) => {
  const app = await startPeopleApp(t);
  const ann = await app.signIn("ann");
  const workspace = await app.makeWorkspace(ann);
  const data = {
    auth_kind: "clerk",
    user_id: ann.userId,
    workspace_id: null,
    api_key_id: null,
    scopes: [...SCOPES].sort(),
  };
  assert.deepEqual((await ann.call("GET", WHOAMI)).json.data, data);
  assert.deepEqual((await ann.call("GET", WHOAMI, { workspace: "" })).json.data, data, "empty counts as absent");
  for (const header of [workspace, workspace.toUpperCase(), ` ${workspace} `]) {
    assert.deepEqual((await ann.call("GET", WHOAMI, { workspace: header })).json.data, {
      ...data,
      workspace_id: workspace,
    });
  }
});

test("the first sight of a person makes one user, however many requests come at once", async (t) => {
  const app = await startPeopleApp(t);
  const token = await app.issuer.mint({ sub: "user_2abc", email: "Ann@Example.com", name: "Ann" });
  const answers = await Promise.all(Array.from({ length: 40 }, () => app.callAs(token, "GET", WHOAMI)));
  const ids = new Set(answers.map(({ json }) => json.data.user_id));
  assert.equal(ids.size, 1);
  const rows = app.sql.prepare("SELECT id, email, name FROM users WHERE external_id = 'user_2abc'").all();
  assert.deepEqual(rows, [{ id: [...ids][0], email: "Ann@Example.com", name: "Ann" }]);
  assert.match(String([...ids][0]), /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  const other = await app.issuer.mint({ sub: "user_2abd" });
  assert.notEqual((await app.callAs(other, "GET", WHOAMI)).json.data.user_id, [...ids][0]);
});

test("a new address is kept; an older token, or one without an address, takes nothing back", async (t) => {
  const app = await startPeopleApp(t);
  const emailOf = () => app.sql.prepare("SELECT email FROM users WHERE external_id = 'ann'").pluck().get();
  const before = await app.issuer.mint({ sub: "ann", email: "old@example.com", ttlSeconds: 600 });
  const after = await app.issuer.mint({ sub: "ann", email: "new@example.com", ttlSeconds: 700 });
  const without = await app.issuer.mint({ sub: "ann", name: "Ann", ttlSeconds: 800 });
  await app.callAs(before, "GET", WHOAMI);
  assert.equal(emailOf(), "old@example.com");
  await app.callAs(after, "GET", WHOAMI);
  await until(() => emailOf() === "new@example.com", "the new address");
  const nameOf = () => app.sql.prepare("SELECT name FROM users WHERE external_id = 'ann'").pluck().get();
  for (const token of [before, without, before]) assert.equal((await app.callAs(token, "GET", WHOAMI)).status, 200);
  await until(() => nameOf() === "Ann", "the new name");
  // A write of the older token would be durable before this one.
  await app.app.core.workspaces.checkWritable();
  assert.equal(emailOf(), "new@example.com");
});

test("a token that does not hold is 401 UNAUTHORIZED; one that begins with op_ is never read as one", async (t) => {
  const app = await startPeopleApp(t);
  const token = await app.issuer.mint({ sub: "ann" });
  const [head = "", payload = ""] = token.split(".");
  const late = await app.issuer.mint({ sub: "ann", ttlSeconds: 60 });
  assert.equal((await app.callAs(late, "GET", WHOAMI)).status, 200);
  for (const bad of [`${head}.${payload}.AAAA`, `${head}.${payload}.`, "x", "a.b.c", token.slice(1)]) {
    const answer = await app.callAs(bad, "GET", WHOAMI);
    assertError(answer, 401, "UNAUTHORIZED", /session token/);
    assert.equal(answer.headers["www-authenticate"], "Bearer");
  }
  for (const prefix of ["op_", "op_live_", "op_test_"]) {
    assertError(await app.callAs(prefix + token, "GET", WHOAMI), 401, "INVALID_API_KEY");
  }
  app.clock.advance(120_000);
  assertError(await app.callAs(late, "GET", WHOAMI), 401, "UNAUTHORIZED", /expired/);
  assert.equal((await app.callAs(token, "GET", WHOAMI)).status, 200);
});

test("without settings of an issuer a JWT is told that sessions are not configured", async (t) => {
  const people = await startPeopleApp(t);
  const token = await people.issuer.mint({ sub: "ann" });
  const { call } = await startTestApp(t);
  assertError(await call("GET", WHOAMI, { key: token }), 401, "UNAUTHORIZED", /not configured/);
});

test("tokens are accepted only from the parties that are set", async (t) => {
  const app = await startPeopleApp(t, { env: { STOWAGE_CLERK_AUTHORIZED_PARTIES: "https://a.example.com" } });
  const whoami = async (azp?: string) =>
    (await app.callAs(await app.issuer.mint({ sub: "ann", azp }), "GET", WHOAMI)).status;
  assert.deepEqual(
    [await whoami("https://a.example.com"), await whoami("https://b.example.com"), await whoami()],
    [200, 401, 401],
  );
});

test("the log names the user of a session and holds no token", async (t) => {
  let text = "";
  const log = createLog({
    level: "debug",
    write: (line) => {
      text += line;
    },
  });
  const app = await startPeopleApp(t, { log });
  const ann = await app.signIn("ann");
  await app.callAs(`${ann.token}x`, "GET", WHOAMI);
  await until(() => text.split('"msg":"request"').length >= 3, "two lines of requests");
  assert.ok(text.includes(`"user_id":"${ann.userId}"`));
  assert.ok(!text.includes(ann.token.split(".")[2] ?? ""));
});

test("X-Workspace-Id: malformed 400; unknown, foreign and deleted one and the same 404; missing 400 where one is needed", async (t) => {
  const app = await startPeopleApp(t);
  const [ann, bob] = [await app.signIn("ann"), await app.signIn("bob")];
  const own = await app.makeWorkspace(ann);
  const foreign = await app.makeWorkspace(bob);
  const gone = await app.makeWorkspace(ann);
  await ann.call("DELETE", `/api/v1/workspaces/${gone}`);
  const id = await uploadAs(app, ann, { workspace: own });
  const calls = [
    ["GET", WHOAMI],
    ["GET", UPLOADS],
    ["GET", `${UPLOADS}/${id}`],
    ["POST", UPLOADS],
    ["POST", `${UPLOADS}/${id}`],
    ["DELETE", `${UPLOADS}/${id}`],
    ["GET", WORKFLOWS],
    ["GET", "/api/v1/usage/summary"],
    ["GET", "/api/v1/users/me/limits"],
  ] as const;
  for (const [method, path] of calls) {
    for (const workspace of ["nonsense", "null", `${own},${own}`, own.slice(1), `{${own}}`]) {
      assertError(await ann.call(method, path, { workspace }), 400, "BAD_REQUEST", /X-Workspace-Id/);
    }
    const answers = await Promise.all(
      [STRANGER, foreign, gone].map((workspace) => ann.call(method, path, { workspace })),
    );
    for (const answer of answers) assertError(answer, 404, "NOT_FOUND", /X-Workspace-Id/);
    assert.equal(new Set(answers.map((answer) => JSON.stringify(wordsOf(answer)))).size, 1);
  }
  for (const [method, path] of [
    ["GET", WORKFLOWS],
    ["POST", WORKFLOWS],
    ["GET", `${WORKFLOWS}/${STRANGER}`],
    ["PATCH", `${WORKFLOWS}/${STRANGER}`],
    ["DELETE", `${WORKFLOWS}/${STRANGER}`],
    ["GET", `${WORKFLOWS}/${STRANGER}/uploads`],
    ["GET", "/api/v1/usage/summary"],
    ["GET", "/api/v1/usage/activity"],
    ["GET", "/api/v1/usage/by-language"],
    ["GET", "/api/v1/usage/storage-events"],
  ] as const) {
    for (const header of [{}, { workspace: "" }]) {
      assertError(await ann.call(method, path, header), 400, "BAD_REQUEST", /X-Workspace-Id.*\/api\/v1\/workspaces/);
    }
  }
  assert.equal((await ann.call("GET", `${UPLOADS}/${id}`)).status, 200, "nothing was deleted");
});

test("a personal upload is its creator's alone, and charged only when a confirm binds it to a workspace", async (t) => {
  const app = await startPeopleApp(t);
  const [ann, bob] = [await app.signIn("ann"), await app.signIn("bob")];
  const workspace = await app.makeWorkspace(ann, 10);
  await app.join(workspace, bob, "admin");
  const { apiKey: key } = await app.app.core.keys.create({ workspaceId: workspace });
  const created = await ann.call("POST", UPLOADS, {
    body: { filename: "a.bin", category: "file", size_bytes: 11 },
  });
  assert.equal(created.status, 201, "no quota is asked of what is nobody's yet");
  assert.equal(created.json.data.upload.workspace_id, null);
  assert.equal(created.json.data.upload.user_id, ann.userId);

  const id = await uploadAs(app, ann, { bytes: "1234567" });
  for (const refuse of [
    () => bob.call("GET", `${UPLOADS}/${id}`),
    () => bob.call("GET", `${UPLOADS}/${id}`, { workspace }),
    () => bob.call("DELETE", `${UPLOADS}/${id}`),
    () => confirmAs(bob, id, workspace),
    () => app.call("GET", `${UPLOADS}/${id}`, { key }),
    () => app.call("DELETE", `${UPLOADS}/${id}`, { key }),
  ]) {
    assertError(await refuse(), 404, "NOT_FOUND", /no such upload/);
  }
  const listed = async (person: Person, header?: string) =>
    (await person.call("GET", UPLOADS, header === undefined ? {} : { workspace: header })).json.data.map(
      (upload: { id: string }) => upload.id,
    );
  assert.ok((await listed(ann)).includes(id));
  assert.deepEqual(await listed(ann, workspace), []);
  assert.deepEqual(await listed(bob), []);
  assert.equal((await ann.call("GET", `${UPLOADS}/${id}`, { workspace })).status, 200);
  assert.equal((await ann.call("GET", `${UPLOADS}?category=script`)).json.pagination.total, 0);
  assert.equal((await ann.call("GET", `${UPLOADS}?status=uploaded`)).json.pagination.total, 0);
  assert.equal((await ann.call("GET", `${UPLOADS}?limit=1`)).json.pagination.total, 2);

  assert.equal(used(app, workspace), 0);
  const confirmed = await confirmAs(ann, id, workspace);
  assert.equal(confirmed.status, 200, confirmed.text);
  assert.equal(confirmed.json.data.workspace_id, workspace);
  assert.equal(used(app, workspace), 7);
  assert.ok(!(await listed(ann)).includes(id), "it is the workspace's now");
  assert.deepEqual(await listed(bob, workspace), [id]);

  const large = await uploadAs(app, ann, { bytes: "1234" });
  assertError(await confirmAs(ann, large, workspace), 402, "STORAGE_LIMIT_EXCEEDED");
  assert.equal((await ann.call("GET", `${UPLOADS}/${large}`)).json.data.status, "pending");
  assert.equal((await ann.call("DELETE", `${UPLOADS}/${large}`)).status, 200);
  assert.equal((await bob.call("DELETE", `${UPLOADS}/${id}`)).status, 200);
  assert.equal(used(app, workspace), 0);
  checkBooks(app.sql);
});

test("header, context and upload must name one workspace; else 404", async (t) => {
  const app = await startPeopleApp(t);
  const ann = await app.signIn("ann");
  const [a, b] = [await app.makeWorkspace(ann), await app.makeWorkspace(ann)];
  const flow = (await ann.call("POST", WORKFLOWS, { workspace: a, body: {} })).json.data.id;
  const bind = (id: string, workspace?: string) =>
    ann.call("POST", `${UPLOADS}/${id}`, {
      body: { context_type: "workflow", context_id: flow },
      ...(workspace === undefined ? {} : { workspace }),
    });
  const personal = await uploadAs(app, ann, { bytes: "x" });
  assertError(await bind(personal, b), 404, "NOT_FOUND", /context_id/);
  assertError(await confirmAs(ann, personal, a, b), 404, "NOT_FOUND", /context_id/);
  const ofB = await uploadAs(app, ann, { workspace: b, bytes: "x" });
  assertError(await bind(ofB), 404, "NOT_FOUND", /context_id/);
  assertError(await confirmAs(ann, ofB, a), 404, "NOT_FOUND", /context_id/);
  for (const method of ["GET", "DELETE"]) {
    assertError(await ann.call(method, `${UPLOADS}/${ofB}`, { workspace: a }), 404, "NOT_FOUND", /no such upload/);
  }
  assertError(await confirmAs(ann, ofB, a, a), 404, "NOT_FOUND", /no such upload/);
  assert.equal((await bind(personal)).json.data.workspace_id, a, "the workflow tells the workspace");
  assert.equal((await confirmAs(ann, ofB, b, b)).status, 200);
  assert.deepEqual([used(app, a), used(app, b)], [1, 1]);
  for (const path of [`${WORKFLOWS}/${flow}`, `${WORKFLOWS}/${flow}/uploads`]) {
    assert.equal((await ann.call("GET", path, { workspace: a })).status, 200);
    assertError(await ann.call("GET", path, { workspace: b }), 404, "NOT_FOUND", /no such workflow/);
  }
});

test("a session's checks at confirm come in order: upload, confirmed already, context, role, bytes, room", async (t) => {
  const app = await startPeopleApp(t);
  const [ann, vic] = [await app.signIn("ann"), await app.signIn("vic")];
  const workspace = await app.makeWorkspace(ann, 4);
  const other = await app.makeWorkspace(ann);
  await app.join(workspace, vic, "viewer");
  // Each lacks all that is looked at later as well.
  assertError(await confirmAs(vic, STRANGER, STRANGER), 404, "NOT_FOUND", /no such upload/);
  assertError(await confirmAs(vic, await uploadAs(app, ann, { workspace }), STRANGER), 404, "NOT_FOUND", /upload/);
  const { id, upload_url } = await (async () => {
    const { data } = (await vic.call("POST", UPLOADS, { body: { filename: "a.bin", category: "file" } })).json;
    return { id: data.upload.id, upload_url: data.upload_url };
  })();
  for (const context of [STRANGER, other]) {
    assertError(await confirmAs(vic, id, context), 404, "NOT_FOUND", /context_id/);
  }
  assertError(await confirmAs(vic, id, workspace), 403, "FORBIDDEN", /viewer.*editor or admin/);
  await app.app.core.members.setRole("administrator", workspace, { userId: vic.userId, role: "editor" });
  assertError(await confirmAs(vic, id, workspace), 422, "VALIDATION_ERROR", /upload_url/);
  await app.put(upload_url, "12345");
  assertError(await confirmAs(vic, id, workspace), 402, "STORAGE_LIMIT_EXCEEDED");
  await app.put(upload_url, "1234");
  assert.equal((await confirmAs(vic, id, workspace)).status, 200);
  await app.app.core.members.setRole("administrator", workspace, { userId: vic.userId, role: "viewer" });
  assert.equal(
    (await confirmAs(vic, id, STRANGER)).status,
    200,
    "confirmed already, whatever the role and the context",
  );
  checkBooks(app.sql);
});

test("one personal upload that is confirmed into two workspaces at once is charged to one", async (t) => {
  const app = await startPeopleApp(t);
  const ann = await app.signIn("ann");
  const [a, b] = [await app.makeWorkspace(ann), await app.makeWorkspace(ann)];
  for (let round = 0; round < 5; round++) {
    const id = await uploadAs(app, ann, { bytes: "123" });
    const answers = await Promise.all([confirmAs(ann, id, a), confirmAs(ann, id, b), confirmAs(ann, id, a)]);
    const bound = answers.map(({ status, json }) => [status, json.data.workspace_id]);
    assert.deepEqual(bound, Array(3).fill([200, bound[0]?.[1]]));
  }
  assert.equal(Number(used(app, a)) + Number(used(app, b)), 15);
  checkBooks(app.sql);
});

test("pending uploads are bounded for each person and each workspace on its own", async (t) => {
  const app = await startPeopleApp(t, { env: { STOWAGE_PENDING_UPLOADS_MAX: "2" } });
  const [ann, bob] = [await app.signIn("ann"), await app.signIn("bob")];
  const workspace = await app.makeWorkspace(ann);
  const create = (person: Person, header?: string) =>
    person.call("POST", UPLOADS, {
      body: { filename: "a.bin", category: "file" },
      ...(header === undefined ? {} : { workspace: header }),
    });
  const ids = [await uploadAs(app, ann), await uploadAs(app, ann)];
  assertError(await create(ann), 429, "RATE_LIMITED", /^You have 2 uploads/);
  assert.equal((await create(bob)).status, 201);
  assertError(await create(ann), 429, "RATE_LIMITED");
  for (const _ of ids) assert.equal((await create(ann, workspace)).status, 201);
  assertError(await create(ann, workspace), 429, "RATE_LIMITED", /^The workspace has 2 uploads/);
  await ann.call("DELETE", `${UPLOADS}/${ids[0]}`);
  assert.equal((await create(ann)).status, 201);
  assertError(await create(ann), 429, "RATE_LIMITED");
});

test("who has left a workspace sees nothing of it any more, not even what they uploaded", async (t) => {
  const app = await startPeopleApp(t);
  const [ann, bob] = [await app.signIn("ann"), await app.signIn("bob")];
  const workspace = await app.makeWorkspace(ann);
  await app.join(workspace, bob, "editor");
  const id = await uploadAs(app, bob, { workspace, bytes: "x" });
  assert.equal((await confirmAs(bob, id, workspace)).status, 200);
  assert.equal((await bob.call("DELETE", `/api/v1/workspaces/${workspace}/members/${bob.userId}`)).status, 200);
  for (const method of ["GET", "DELETE"]) {
    assertError(await bob.call(method, `${UPLOADS}/${id}`), 404, "NOT_FOUND", /no such upload/);
  }
  assertError(await confirmAs(bob, id, workspace), 404, "NOT_FOUND", /no such upload/);
  assertError(await bob.call("GET", UPLOADS, { workspace }), 404, "NOT_FOUND");
  assert.equal((await ann.call("GET", `${UPLOADS}/${id}`)).status, 200);
});

test("limits without a workspace are those of one that is yet to be made, with one its own", async (t) => {
  const app = await startPeopleApp(t, {
    env: { STOWAGE_DEFAULT_QUOTA_BYTES: "77", STOWAGE_WORKSPACES_PER_OWNER_MAX: "3" },
  });
  const ann = await app.signIn("ann");
  const workspace = await app.makeWorkspace(ann, 5);
  const limits = async (header?: string) =>
    (await ann.call("GET", "/api/v1/users/me/limits", header === undefined ? {} : { workspace: header })).json.data;
  assert.equal((await limits()).storage_bytes_per_workspace, 77);
  assert.equal((await limits()).workspaces_per_owner, 3);
  assert.equal((await limits(workspace)).storage_bytes_per_workspace, 5);
  assert.equal((await ann.call("GET", "/api/v1/users/me/credits")).json.data.plan_tier, "custom");
});
