import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { createMembers } from "../lib/core/members.ts";
import { createUploads } from "../lib/core/uploads.ts";
import { createWorkspaces } from "../lib/core/workspaces.ts";
import { DATABASE_FILE } from "../lib/db/db.ts";
import { newId } from "../lib/ids.ts";
import type { Answer, Json } from "./_app.ts";
import { type PeopleApp, type Person, startPeopleApp, wordsOf } from "./_people.ts";
import { initProgram, runProgram } from "./_process.ts";
import { queryPlans } from "./_query_plans.ts";

const STRANGER = "01890a5d-ac96-774b-bcce-b302099a8057";

function assertError(answer: Answer, status: number, code: string, field?: string): void {
  assert.equal(answer.status, status, answer.text);
  assert.equal(answer.json.error.code, code);
  assert.equal(answer.json.error.details?.[0]?.field, field);
}

/** Someone's calls on the members of one workspace. */
function membersOf(workspaceId: string, person: Person) {
  const path = `/api/v1/workspaces/${workspaceId}/members`;
  return {
    list: () => person.call("GET", path),
    add: (body: unknown) => person.call("POST", path, { body }),
    setRole: ({ userId }: Person, role: unknown) => person.call("PATCH", `${path}/${userId}`, { body: { role } }),
    remove: ({ userId }: Person) => person.call("DELETE", `${path}/${userId}`),
  };
}

async function peopleOf(app: PeopleApp): Promise<{ ann: Person; bob: Person; vic: Person; workspace: string }> {
  const [ann, bob, vic] = [await app.signIn("ann"), await app.signIn("bob"), await app.signIn("vic")];
  return { ann, bob, vic, workspace: await app.makeWorkspace(ann) };
}

const rolesOf = ({ json }: Answer) => json.data.map(({ user_id, role }: Json) => [user_id, role]);

test("members are added by user id or address, whatever its case, and listed: oneself, admins, the others", async (t) => {
  const app = await startPeopleApp(t);
  const { ann, bob, vic, workspace } = await peopleOf(app);
  const byAnn = membersOf(workspace, ann);
  const added = await byAnn.add({ email: "VIC@example.COM", role: "viewer" });
  assert.equal(added.status, 201, added.text);
  assert.deepEqual(added.json.data, {
    id: vic.userId,
    user_id: vic.userId,
    email: "vic@example.com",
    first_name: "vic",
    last_name: null,
    image_url: null,
    role: "viewer",
    last_active_at: null,
    status: "active",
    created_at: added.json.data.created_at,
  });
  app.clock.advance(1_000);
  assert.equal((await byAnn.add({ user_id: bob.userId.toUpperCase(), role: "admin" })).status, 201);
  const list = await byAnn.list();
  assert.deepEqual(rolesOf(list), [
    [ann.userId, "admin"],
    [bob.userId, "admin"],
    [vic.userId, "viewer"],
  ]);
  assert.deepEqual(list.json.pagination, { next: null, prev: null, limit: 3, total: 3 });
  assert.deepEqual(
    rolesOf(await membersOf(workspace, vic).list()).map(([id]: [string]) => id),
    [vic.userId, ann.userId, bob.userId],
  );
  assertError(await byAnn.add({ user_id: vic.userId, role: "editor" }), 409, "CONFLICT");
  const eve = await app.signIn("eve");
  const byEve = membersOf(workspace, eve);
  const [strange, unknown] = [await byEve.list(), await membersOf(STRANGER, eve).list()];
  assertError(strange, 404, "NOT_FOUND");
  for (const answer of [unknown, await byEve.remove(eve), await byEve.remove(vic), await byEve.setRole(vic, "admin")]) {
    assert.deepEqual(wordsOf(answer), wordsOf(strange), "a stranger learns nothing");
  }
});

test("someone without an address is listed with an empty one, because clients insist on a string", async (t) => {
  const app = await startPeopleApp(t);
  const { ann, workspace } = await peopleOf(app);
  const token = await app.issuer.mint({ sub: "silent" });
  const userId = (await app.callAs(token, "GET", "/api/v1/auth/whoami")).json.data.user_id;
  const { data } = (await membersOf(workspace, ann).add({ user_id: userId, role: "viewer" })).json;
  assert.deepEqual([data.email, data.first_name], ["", null]);
});

test("who was never here, or whose address is not one user's alone, cannot be added", async (t) => {
  const app = await startPeopleApp(t);
  const { ann, bob, workspace } = await peopleOf(app);
  const { add } = membersOf(workspace, ann);
  assertError(await add({ email: "nobody@example.com", role: "viewer" }), 404, "NOT_FOUND", "email");
  assertError(await add({ user_id: STRANGER, role: "viewer" }), 404, "NOT_FOUND", "user_id");
  await app.signIn("bob2", { email: bob.email.toUpperCase() });
  assertError(await add({ email: bob.email, role: "viewer" }), 422, "VALIDATION_ERROR", "email");
  for (const [body, field] of [
    [{}, "role"],
    [{ role: "viewer" }, "body"],
    [{ user_id: bob.userId, email: bob.email, role: "viewer" }, "body"],
    [{ user_id: "bob", role: "viewer" }, "user_id"],
    [{ email: "bob", role: "viewer" }, "email"],
    [{ email: 5, role: "viewer" }, "email"],
    [{ user_id: bob.userId, role: "owner" }, "role"],
    [{ user_id: bob.userId, role: null }, "role"],
  ] as const) {
    assertError(await add(body), 422, "VALIDATION_ERROR", field);
  }
  assert.equal((await membersOf(workspace, ann).list()).json.data.length, 1);
});

test("a role that changes, or ends, holds from the next request on", async (t) => {
  const app = await startPeopleApp(t);
  const { ann, vic, workspace } = await peopleOf(app);
  const byAnn = membersOf(workspace, ann);
  await byAnn.add({ user_id: vic.userId, role: "viewer" });
  const create = async () => (await vic.call("POST", "/api/v1/workflows", { workspace, body: {} })).status;
  assert.equal(await create(), 403);
  assert.equal((await byAnn.setRole(vic, "editor")).json.data.role, "editor");
  assert.equal(await create(), 201);
  assert.equal((await byAnn.setRole(vic, "editor")).status, 200, "once more is no error");
  assertError(await byAnn.setRole(vic, "owner"), 422, "VALIDATION_ERROR", "role");
  assert.deepEqual((await byAnn.remove(vic)).json.data, {});
  assert.equal(await create(), 404);
  assertError(await byAnn.remove(vic), 404, "NOT_FOUND");
  assertError(await byAnn.setRole(vic, "viewer"), 404, "NOT_FOUND");
});

test("the last admin can neither leave nor be demoted; two that leave at once do not both go", async (t) => {
  const app = await startPeopleApp(t);
  const { ann, bob, workspace } = await peopleOf(app);
  const byAnn = membersOf(workspace, ann);
  const byBob = membersOf(workspace, bob);
  for (const answer of [await byAnn.remove(ann), await byAnn.setRole(ann, "editor")]) {
    assertError(answer, 409, "CONFLICT");
    assert.match(answer.json.error.message, /last admin.*another member admin first/);
  }
  assert.equal((await byAnn.setRole(ann, "admin")).status, 200, "admin stays admin");
  await byAnn.add({ user_id: bob.userId, role: "admin" });
  const both = await Promise.all([byAnn.remove(ann), byBob.remove(bob)]);
  assert.deepEqual(both.map(({ status }) => status).sort(), [200, 409]);
  const admins = app.sql.prepare("SELECT count(*) FROM memberships WHERE workspace_id = ? AND role = 'admin'").pluck();
  assert.equal(admins.get(workspace), 1);
});

test("the owner is unseated by nobody else, but may step back where another admin is there", async (t) => {
  const app = await startPeopleApp(t);
  const { ann, bob, workspace } = await peopleOf(app);
  const byAnn = membersOf(workspace, ann);
  const byBob = membersOf(workspace, bob);
  await byAnn.add({ user_id: bob.userId, role: "admin" });
  for (const answer of [await byBob.remove(ann), await byBob.setRole(ann, "viewer")]) {
    assertError(answer, 409, "CONFLICT");
    assert.match(answer.json.error.message, /owner/);
  }
  assert.equal((await byAnn.setRole(ann, "editor")).status, 200);
  assertError(await byBob.remove(ann), 409, "CONFLICT");
  assert.equal((await byAnn.remove(ann)).status, 200);
  assertError(await ann.call("DELETE", `/api/v1/workspaces/${workspace}`), 404, "NOT_FOUND");
  assertError(await bob.call("DELETE", `/api/v1/workspaces/${workspace}`), 404, "NOT_FOUND");
  const { created_by } = (await bob.call("GET", `/api/v1/workspaces/${workspace}`)).json.data;
  assert.equal(created_by, ann.userId, "a workspace names its owner whatever becomes of them");
});

test("an admin who cannot sign in does not count: the owner that the command line makes is a name", async (t) => {
  const app = await startPeopleApp(t);
  const ann = await app.signIn("ann");
  const { workspaceId } = app.owner;
  await app.join(workspaceId, ann, "admin");
  assertError(await membersOf(workspaceId, ann).remove(ann), 409, "CONFLICT");
  await app.app.core.members.remove("administrator", workspaceId, ann.userId);
  await assert.rejects(app.app.core.members.remove("administrator", workspaceId, app.owner.userId), /last admin/);
});

test("a workspace has so many members and no more", async (t) => {
  const app = await startPeopleApp(t);
  const { ann, bob, workspace } = await peopleOf(app);
  const insert = app.sql.prepare("INSERT INTO memberships VALUES (?, ?, 'viewer', 1)");
  const user = app.sql.prepare("INSERT INTO users (id, created_at_ms) VALUES (?, 1)");
  for (let i = 1; i < 1_000; i++) {
    const id = newId();
    user.run(id);
    insert.run(workspace, id);
  }
  assertError(
    await membersOf(workspace, ann).add({ user_id: bob.userId, role: "viewer" }),
    422,
    "VALIDATION_ERROR",
    "workspace_id",
  );

  // The list is read in steps, and is in one order all the same.
  app.sql.exec(
    "UPDATE memberships SET created_at_ms = abs(random() % 20), role = iif(random() % 3, 'viewer', 'admin')",
  );
  const wanted = app.sql
    .prepare<unknown[], string>(`
      SELECT user_id FROM memberships WHERE workspace_id = ?
       ORDER BY user_id = ? DESC, role = 'admin' DESC, created_at_ms, user_id`)
    .pluck()
    .all(workspace, ann.userId);
  assert.equal(wanted.length, 1_000);
  assert.deepEqual(
    rolesOf(await membersOf(workspace, ann).list()).map(([id]: [string]) => id),
    wanted,
  );
});

test("finding someone by address, a person's workspaces, or what is to be emptied, walks no table", async (t) => {
  const app = await startPeopleApp(t);
  const { workspaces, rights, removals, idempotency, unconfirmed } = app.app.core;
  const options = { uploadUrlTtlMs: 1, pendingTtlMs: 1 };
  const plans = queryPlans(join(app.dataDir, DATABASE_FILE), (db) => {
    createMembers(db, { workspaces, now: Date.now });
    createWorkspaces(db, Date.now);
    createUploads(db, {
      background: db,
      workspaces,
      rights,
      removals,
      idempotency,
      unconfirmed,
      now: Date.now,
      options,
    });
  });
  // Whether there is a workspace at all is the first entry of an index that holds none but those in use.
  const few = /FROM installation|json_tree|ORDER BY id$|SELECT 1 FROM workspaces WHERE deleted_at_ms IS NULL LIMIT 1$/;
  const walks = plans.filter(({ sql, steps }) => /^\s*SELECT/.test(sql) && /SCAN/.test(steps) && !few.test(sql));
  assert.deepEqual(walks, []);
  for (const index of ["users_by_email", "workspaces_to_empty"]) {
    assert.ok(
      plans.some(({ steps }) => steps.includes(index)),
      index,
    );
  }
});

test("invites are not served", async (t) => {
  const app = await startPeopleApp(t);
  const { ann, workspace } = await peopleOf(app);
  const body = { email: "x@example.com", role: "viewer" };
  assertError(await ann.call("POST", `/api/v1/workspaces/${workspace}/invites`, { body }), 404, "NOT_FOUND");
});

test("an administrator manages members with commands, beside a server or without one", async (t) => {
  const { dataDir, made } = await initProgram(t);
  const app = await startPeopleApp(t, {
    dataDir,
    owner: { workspaceId: made.workspace_id, userId: made.user_id, apiKeyId: made.api_key_id, key: made.api_key },
  });
  const [ann, bob] = [await app.signIn("ann"), await app.signIn("bob")];
  const members = (...args: string[]) =>
    runProgram(t, ["workspaces", "members", ...args], { STOWAGE_DATA_DIR: dataDir });
  const added = await members("add", made.workspace_id, "--email", "Ann@example.com", "--role", "editor", "--json");
  assert.equal(added.exitCode, 0, added.stderr);
  const { added_at, ...row } = JSON.parse(added.stdout);
  assert.deepEqual(row, { user_id: ann.userId, email: "ann@example.com", name: "ann", role: "editor" });
  assert.match(added_at, /Z$/);
  assert.equal((await members("add", made.workspace_id, "--user", bob.userId, "--role", "viewer")).exitCode, 0);
  assert.equal((await ann.call("GET", `/api/v1/workspaces/${made.workspace_id}`)).status, 200);
  const changed = await members("set-role", made.workspace_id, bob.userId, "admin");
  assert.equal(changed.stdout, `${bob.userId} is admin\n`);
  assert.equal((await members("remove", made.workspace_id, ann.userId)).exitCode, 0);
  const listed = JSON.parse((await members("list", made.workspace_id, "--json")).stdout);
  assert.deepEqual(
    listed.map(({ user_id, role }: Json) => [user_id, role]),
    [
      [made.user_id, "admin"],
      [bob.userId, "admin"],
    ],
  );
  for (const [args, exitCode, message] of [
    [["add", made.workspace_id, "--role", "viewer"], 2, /Either --user or --email/],
    [["add", made.workspace_id, "--email", "x@y", "--role", "owner"], 2, /viewer, editor, admin, not "owner"/],
    [["add", made.workspace_id, "--email", "x@y", "--role", "viewer"], 1, /email names nobody/],
    [["list", "nope"], 1, /There is no workspace "nope"\nstowage: hint/],
    [["remove", made.workspace_id, ann.userId], 1, /no such member/],
  ] as const) {
    const ended = await members(...args);
    assert.equal(ended.exitCode, exitCode, ended.stderr);
    assert.match(ended.stderr, message);
  }
});
