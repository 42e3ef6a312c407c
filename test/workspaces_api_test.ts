import assert from "node:assert/strict";
import { test } from "node:test";
import { checkSlug, slugOf, withSuffix } from "../lib/core/slugs.ts";
import type { Answer } from "./_app.ts";
import { type Person, startPeopleApp, wordsOf } from "./_people.ts";

const WORKSPACES = "/api/v1/workspaces";
const STRANGER = "01890a5d-ac96-774b-bcce-b302099a8057";

function assertError(answer: Answer, status: number, code: string, field?: string): void {
  assert.equal(answer.status, status, answer.text);
  assert.equal(answer.json.error.code, code);
  assert.equal(answer.json.error.details?.[0]?.field, field);
}

function createAs(person: Person, body: unknown): Promise<Answer> {
  return person.call("POST", WORKSPACES, { body });
}

test("a workspace is made with every field that clients insist on, and shown alike everywhere", async (t) => {
  const app = await startPeopleApp(t, { env: { STOWAGE_DEFAULT_QUOTA_BYTES: "123" } });
  const ann = await app.signIn("ann");
  const made = await createAs(ann, { name: "  Éclair & Söhne  ", color_idx: 6 });
  assert.equal(made.status, 201, made.text);
  const { data } = made.json;
  assert.deepEqual(data, {
    id: data.id,
    name: "Éclair & Söhne",
    slug: "eclair-sohne",
    color_idx: 6,
    created_by: ann.userId,
    organization_id: null,
    created_at: data.created_at,
    updated_at: data.created_at,
    routing_price_sensitivity: 0.5,
    routing_llm_fit: false,
  });
  assert.match(data.created_at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  assert.deepEqual((await ann.call("GET", `${WORKSPACES}/${data.id}`)).json.data, data);
  const list = (await ann.call("GET", WORKSPACES)).json;
  assert.deepEqual(list.data, [data]);
  assert.deepEqual(list.pagination, { next: null, prev: null, limit: 20, total: 1 });
  assert.deepEqual((await ann.call("GET", `${WORKSPACES}/${data.id}/settings`)).json.data, {
    default_language: null,
    theme: null,
  });
  const plan = (await ann.call("GET", `${WORKSPACES}/${data.id}/plan`)).json.data;
  assert.deepEqual([plan.storage_bytes_per_workspace, plan.monthly_credits], [123, 0]);
  assert.equal((await createAs(ann, { name: "n", slug: null, color_idx: null })).status, 201);
});

test("a slug is made of the name where it is left out, and is one workspace's alone", async (t) => {
  const app = await startPeopleApp(t);
  const [ann, bob] = [await app.signIn("ann"), await app.signIn("bob")];
  const first = await createAs(ann, { name: "Acme" });
  assert.equal(first.json.data.slug, "acme");
  const second = await createAs(bob, { name: "ACME!" });
  assert.match(second.json.data.slug, /^acme-[0-9a-z]{6}$/);
  assertError(await createAs(bob, { name: "x", slug: "acme" }), 409, "WORKSPACE_SLUG_TAKEN", "slug");
  const twice = await Promise.all(Array.from({ length: 5 }, () => createAs(ann, { name: "Same", slug: "same" })));
  assert.deepEqual(twice.map(({ status }) => status).sort(), [201, 409, 409, 409, 409]);

  const path = `${WORKSPACES}/${second.json.data.id}`;
  const renamed = (slug: string) => bob.call("PATCH", path, { body: { slug } });
  assertError(await renamed("acme"), 409, "WORKSPACE_SLUG_TAKEN", "slug");
  assert.equal((await renamed(second.json.data.slug)).status, 200, "its own is no conflict");
  await ann.call("DELETE", `${WORKSPACES}/${first.json.data.id}`);
  assert.equal((await renamed("acme")).json.data.slug, "acme", "a deleted workspace gives its slug up");
});

test("what cannot be a name, a slug or a colour is 422 and names the field", async (t) => {
  const app = await startPeopleApp(t);
  const ann = await app.signIn("ann");
  for (const [body, field] of [
    [{}, "name"],
    [{ name: "" }, "name"],
    [{ name: "   " }, "name"],
    [{ name: "x".repeat(201) }, "name"],
    [{ name: 5 }, "name"],
    [{ name: "x", slug: "" }, "slug"],
    [{ name: "x", slug: "Acme" }, "slug"],
    [{ name: "x", slug: "a b" }, "slug"],
    [{ name: "x", slug: "-a" }, "slug"],
    [{ name: "x", slug: "a--b" }, "slug"],
    [{ name: "x", slug: "a_b" }, "slug"],
    [{ name: "x", slug: "ä" }, "slug"],
    [{ name: "x", slug: "a".repeat(51) }, "slug"],
    [{ name: "x", slug: "admin" }, "slug"],
    [{ name: "x", slug: "slug-available" }, "slug"],
    [{ name: "x", slug: 7 }, "slug"],
    [{ name: "x", color_idx: 7 }, "color_idx"],
    [{ name: "x", color_idx: -1 }, "color_idx"],
    [{ name: "x", color_idx: 1.5 }, "color_idx"],
    [[], "body"],
  ] as const) {
    assertError(await createAs(ann, body), 422, "VALIDATION_ERROR", field);
  }
  const { id } = (await createAs(ann, { name: "x".repeat(200), slug: "a".repeat(50) })).json.data;
  for (const [body, field] of [
    [{ name: " " }, "name"],
    [{ slug: "API" }, "slug"],
    [{ color_idx: "3" }, "color_idx"],
    [{ routing_price_sensitivity: 1.01 }, "routing_price_sensitivity"],
    [{ routing_price_sensitivity: -0.01 }, "routing_price_sensitivity"],
    [{ routing_price_sensitivity: "0.5" }, "routing_price_sensitivity"],
    [{ routing_llm_fit: 1 }, "routing_llm_fit"],
  ] as const) {
    assertError(await ann.call("PATCH", `${WORKSPACES}/${id}`, { body }), 422, "VALIDATION_ERROR", field);
  }
  for (const path of [`${WORKSPACES}/nope`, `${WORKSPACES}/nope/plan`, `${WORKSPACES}/`]) {
    assertError(await ann.call("GET", path), 422, "VALIDATION_ERROR", "workspace_id");
  }
});

test("a workspace is changed in what is given; an empty change changes nothing", async (t) => {
  const app = await startPeopleApp(t);
  const ann = await app.signIn("ann");
  const before = (await createAs(ann, { name: "A" })).json.data;
  const path = `${WORKSPACES}/${before.id}`;
  app.clock.advance(1_000);
  assert.deepEqual((await ann.call("PATCH", path, { body: {} })).json.data, before);
  const after = (
    await ann.call("PATCH", path, {
      body: { name: " B ", color_idx: 3, routing_price_sensitivity: 0, routing_llm_fit: true },
    })
  ).json.data;
  assert.deepEqual(after, {
    ...before,
    ...{ name: "B", color_idx: 3, routing_price_sensitivity: 0, routing_llm_fit: true, updated_at: after.updated_at },
  });
  assert.ok(after.updated_at > before.updated_at);
  assert.equal((await ann.call("PATCH", path, { body: { routing_llm_fit: false } })).json.data.routing_llm_fit, false);
  assert.equal((await ann.call("GET", path)).json.data.name, "B");
});

test("a person sees the workspaces they are a member of, in pages; others are alike unknown", async (t) => {
  const app = await startPeopleApp(t);
  const [ann, bob] = [await app.signIn("ann"), await app.signIn("bob")];
  const ids: string[] = [];
  for (let i = 0; i < 5; i++) ids.push(await app.makeWorkspace(ann));
  const foreign = await app.makeWorkspace(bob);
  await app.join(foreign, ann, "viewer");
  await ann.call("DELETE", `${WORKSPACES}/${ids[1]}`);
  const mine = [...ids.filter((_, i) => i !== 1), foreign];
  const idsOf = ({ json }: Answer) => json.data.map(({ id }: { id: string }) => id);
  assert.deepEqual(idsOf(await ann.call("GET", WORKSPACES)), mine);
  const page = await ann.call("GET", `${WORKSPACES}?limit=2&offset=2`);
  assert.deepEqual(idsOf(page), mine.slice(2, 4));
  assert.deepEqual(page.json.pagination, {
    next: `${WORKSPACES}?offset=4&limit=2`,
    prev: `${WORKSPACES}?offset=0&limit=2`,
    limit: 2,
    total: 5,
  });
  assertError(await ann.call("GET", `${WORKSPACES}?limit=0`), 422, "VALIDATION_ERROR", "limit");
  assert.deepEqual(idsOf(await bob.call("GET", WORKSPACES)), [foreign]);
  const strange = await Promise.all([STRANGER, ids[0], ids[1]].map((id) => bob.call("GET", `${WORKSPACES}/${id}`)));
  for (const answer of strange) assertError(answer, 404, "NOT_FOUND");
  assert.equal(new Set(strange.map((answer) => JSON.stringify(wordsOf(answer)))).size, 1);
});

test("a person in more workspaces than are looked at in one step sees each once, in order", async (t) => {
  const app = await startPeopleApp(t);
  const ann = await app.signIn("ann");
  const workspace = app.sql.prepare(`
    INSERT INTO workspaces (id, name, slug, created_by, storage_bytes_quota, created_at_ms, updated_at_ms, deleted_at_ms)
    VALUES (?, 'w', ?, ?, 1, 1, 1, ?)`);
  const member = app.sql.prepare("INSERT INTO memberships VALUES (?, ?, 'viewer', 1)");
  const ids = Array.from({ length: 600 }, (_, i) => `0190a000-0000-7000-8000-${String(i).padStart(12, "0")}`);
  app.sql.transaction(() => {
    for (const [i, id] of ids.entries()) {
      workspace.run(id, `w-${i}`, ann.userId, i % 10 === 9 ? 1 : null);
      member.run(id, ann.userId);
    }
  })();
  const there = ids.filter((_, i) => i % 10 !== 9);
  for (const offset of [0, 220, 500]) {
    const { json } = await ann.call("GET", `${WORKSPACES}?limit=100&offset=${offset}`);
    assert.deepEqual(
      [json.data.map(({ id }: { id: string }) => id), json.pagination.total],
      [there.slice(offset, offset + 100), there.length],
    );
  }
});

test("the header is not looked at where the path names the workspace", async (t) => {
  const app = await startPeopleApp(t);
  const ann = await app.signIn("ann");
  const id = await app.makeWorkspace(ann);
  for (const workspace of [STRANGER, "nonsense"]) {
    assert.equal((await ann.call("GET", `${WORKSPACES}/${id}`, { workspace })).status, 200);
    assert.equal((await ann.call("GET", WORKSPACES, { workspace })).status, 200);
  }
});

test("an API key sees its own workspace and manages none", async (t) => {
  const app = await startPeopleApp(t);
  const ann = await app.signIn("ann");
  const id = await app.makeWorkspace(ann);
  const other = await app.makeWorkspace(ann);
  const { apiKey: key } = await app.app.core.keys.create({ workspaceId: id });
  const shown = (await ann.call("GET", `${WORKSPACES}/${id}`)).json.data;
  assert.deepEqual((await app.call("GET", `${WORKSPACES}/${id}`, { key })).json.data, shown);
  const list = (await app.call("GET", WORKSPACES, { key })).json;
  assert.deepEqual([list.data, list.pagination.total], [[shown], 1]);
  assert.deepEqual((await app.call("GET", `${WORKSPACES}?offset=1`, { key })).json.data, []);
  for (const path of [other, `${other}/plan`, `${other}/settings`, STRANGER]) {
    assertError(await app.call("GET", `${WORKSPACES}/${path}`, { key }), 404, "NOT_FOUND");
  }
  for (const [method, path] of [
    ["POST", WORKSPACES],
    ["PATCH", `${WORKSPACES}/${id}`],
    ["DELETE", `${WORKSPACES}/${id}`],
    ["GET", `${WORKSPACES}/${id}/members`],
    ["POST", `${WORKSPACES}/${id}/members`],
    ["PATCH", `${WORKSPACES}/${id}/members/${ann.userId}`],
    ["DELETE", `${WORKSPACES}/${id}/members/${ann.userId}`],
  ] as const) {
    assertError(await app.call(method, path, { key, body: { name: "x" } }), 403, "FORBIDDEN");
  }
});

test("a person may own so many workspaces and no more; a deleted one counts until it is empty", async (t) => {
  const app = await startPeopleApp(t, {
    env: { STOWAGE_WORKSPACES_PER_OWNER_MAX: "2" },
    cleansInBackground: false,
  });
  const [ann, bob] = [await app.signIn("ann"), await app.signIn("bob")];
  const [first] = [await app.makeWorkspace(ann), await app.makeWorkspace(ann)];
  await app.join(await app.makeWorkspace(bob), ann, "admin");
  assertError(await createAs(ann, { name: "Third" }), 402, "WORKSPACE_LIMIT_EXCEEDED");
  await ann.call("DELETE", `${WORKSPACES}/${first}`);
  assertError(await createAs(ann, { name: "Third" }), 402, "WORKSPACE_LIMIT_EXCEEDED");
  await app.app.cleaner.runOnce();
  assert.equal((await createAs(ann, { name: "Third" })).status, 201);
});

test("slugs made of names are valid, whatever the name", () => {
  const slugs: [name: string, slug: string | RegExp][] = [
    ["Hello World", "hello-world"],
    ["  --Hello__World--  ", "hello-world"],
    ["Ünïcode Ågren", "unicode-agren"],
    ["ﬁne Ⅳ", "fine-iv"],
    ["日本語", "untitled"],
    ["!!!", "untitled"],
    ["admin", /^admin-[0-9a-z]{6}$/],
    [`${"a".repeat(49)} b`, "a".repeat(49)],
    ["x".repeat(200), "x".repeat(50)],
  ];
  for (const [name, expected] of slugs) {
    const slug = slugOf(name);
    checkSlug(slug);
    if (typeof expected === "string") assert.equal(slug, expected);
    else assert.match(slug, expected);
    checkSlug(withSuffix(slug));
  }
});
