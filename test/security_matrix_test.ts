import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { startDevIssuer } from "../lib/auth/dev_issuer.ts";
import { SCOPES } from "../lib/core/principals.ts";
import { METRICS_PATH } from "../lib/routes/metrics.ts";
import { createRoutes } from "../lib/routes/routes.ts";
import type { Answer } from "./_app.ts";
import { type PeopleApp, type Person, startPeopleApp } from "./_people.ts";
import {
  HELD_BACK,
  type HeldBack,
  type MatrixRow,
  type MatrixScene,
  PUBLIC_ROUTES,
  printSecurityMatrix,
  REFUSED,
  SECURITY_MATRIX,
} from "./_security_matrix.ts";

// Goal: no route answers anyone who should not be answered, and none can be added without saying who that is.
// Method: every route of the real table is asked by every caller; docs/security-matrix.md is printed from what is expected.

const DOCS = new URL("../docs/security-matrix.md", import.meta.url);
const TABLES = /(?<=<!-- tables -->\n).*?(?=\n<!-- \/tables -->)/s;

test("docs/security-matrix.md has these very tables (STOWAGE_TEST_WRITE_DOCS=1 writes them)", () => {
  const docs = readFileSync(DOCS, "utf8");
  if (process.env.STOWAGE_TEST_WRITE_DOCS === "1") {
    writeFileSync(
      DOCS,
      docs.replace(TABLES, () => printSecurityMatrix()),
    );
  } else assert.equal(TABLES.exec(docs)?.[0], printSecurityMatrix());
});

test("every route has an expectation, and every expectation a route", async (t) => {
  const { app, config } = await startPeopleApp(t);
  const unused = () => Promise.reject(new Error("Nothing is called here"));
  const objectRoutes = { putObject: unused, getObject: unused };
  const routes = createRoutes({ ...app, config, confirm: unused, objectRoutes });
  const names = (asks: boolean): string[] =>
    routes.filter(({ access }) => (access !== "public") === asks).map(({ method, path }) => `${method} ${path}`);
  const hint = "give each route a row in test/_security_matrix.ts";
  assert.deepEqual(names(true).sort(), SECURITY_MATRIX.map(({ route }) => route).sort(), hint);
  assert.deepEqual([...names(false), `GET ${METRICS_PATH}`].sort(), Object.keys(PUBLIC_ROUTES).sort(), hint);
});

type Headers = Record<string, string>;
const bearer = (token: string): Headers => ({ Authorization: `Bearer ${token}` });

/** The headers of each caller whose credential does not hold. Most of them held once. */
async function refusedHeaders(its: PeopleApp, workspace: string): Promise<Record<(typeof REFUSED)[number], Headers>> {
  const { keys, workspaces } = its.app.core;
  const { owner } = its;
  const expired = await keys.create({ workspaceId: workspace, expiresInDays: 1 });
  its.sql.prepare("UPDATE api_keys SET expires_at_ms = ? WHERE id = ?").run(Date.now() - 1, expired.apiKeyId);
  const revoked = await keys.create({ workspaceId: workspace });
  await keys.revoke(revoked.apiKeyId);
  const orphaned = await its.addOwner();
  await workspaces.removeAny(orphaned.workspaceId);
  const claims = { sub: "founder", email: "founder@example.com" };
  const otherIssuer = await startDevIssuer({ port: 0 });
  const foreign = await otherIssuer.mint(claims);
  await otherIssuer.close();
  const held = await its.issuer.mint(claims);
  const none = Buffer.from(JSON.stringify({ alg: "none", typ: "JWT" })).toString("base64url");
  return {
    "no credential": {},
    "malformed header": { Authorization: `Basic ${owner.key}` },
    "malformed key": bearer(`${owner.key}x`),
    "reserved kind of key": bearer(owner.key.replace("op_live_", "op_test_")),
    "unknown key": bearer(`op_live_${"A".repeat(32)}`),
    "expired key": bearer(expired.apiKey),
    "revoked key": bearer(revoked.apiKey),
    "key of a deleted workspace": bearer(orphaned.key),
    "session that expired": bearer(await its.issuer.mint({ ...claims, ttlSeconds: -3_600 })),
    "session of another issuer": bearer(foreign),
    "session without signature": bearer(`${none}.${held.split(".")[1]}.`),
  };
}

interface Cast {
  its: PeopleApp;
  founder: Person;
  member: Person;
  viewer: Person;
  stranger: Person;
}

async function makeScene({ its, founder, member, viewer }: Cast): Promise<MatrixScene> {
  const workspace = await its.makeWorkspace(founder);
  await its.join(workspace, member, "editor");
  await its.join(workspace, viewer, "viewer");
  const workflow = await founder.call("POST", "/api/v1/workflows", { workspace, body: {} });
  const body = { filename: "a.bin", category: "file" };
  const newUpload = async (): Promise<string> => {
    const created = await founder.call("POST", "/api/v1/uploads", { workspace, body });
    const { upload, upload_url } = created.json.data;
    assert.equal((await its.put(upload_url, "bytes")).status, 200);
    return upload.id;
  };
  const [upload, deletedUpload] = [await newUpload(), await newUpload()];
  assert.equal((await founder.call("DELETE", `/api/v1/uploads/${deletedUpload}`, { workspace })).status, 200);
  return { workspace, workflow: workflow.json.data.id, upload, deletedUpload, member: member.userId };
}

/** The headers of each caller whose credential holds. */
async function heldBackHeaders(
  cast: Cast,
  row: MatrixRow,
  { workspace }: MatrixScene,
): Promise<Record<HeldBack, Headers>> {
  const { its, founder, stranger, viewer } = cast;
  const { keys } = its.app.core;
  const scopes = [row.scope ?? "catalog:read"];
  const key = await keys.create({ workspaceId: workspace, scopes });
  const others = SCOPES.filter((scope) => scope !== row.scope);
  const header = row.route.includes(":workspace_id") ? {} : { "X-Workspace-Id": workspace };
  return {
    "key without the scope": bearer((await keys.create({ workspaceId: workspace, scopes: others })).apiKey),
    "key, and the header of another workspace": { ...bearer(key.apiKey), "X-Workspace-Id": its.owner.workspaceId },
    "key of another tenant": bearer((await keys.create({ workspaceId: its.owner.workspaceId, scopes })).apiKey),
    "session of no member": { ...bearer(stranger.token), ...header },
    "session of a viewer": { ...bearer(viewer.token), ...header },
    "who may": row.by === "key" ? bearer(key.apiKey) : { ...bearer(founder.token), ...header },
  };
}

async function castPeople(its: PeopleApp): Promise<Cast> {
  const [founder, member, viewer, stranger] = [
    await its.signIn("founder"),
    await its.signIn("member"),
    await its.signIn("viewer"),
    await its.signIn("stranger"),
  ];
  await its.signIn("newcomer");
  return { its, founder, member, viewer, stranger };
}

test("every route answers every caller as the matrix says", async (t) => {
  const its = await startPeopleApp(t, { cleansInBackground: false });
  const cast = await castPeople(its);
  const refused = await refusedHeaders(its, its.owner.workspaceId);

  for (const row of SECURITY_MATRIX) {
    await t.test(row.route, async () => {
      const scene = await makeScene(cast);
      const ask = (headers: Headers): Promise<Answer> =>
        its.call(row.route.split(" ")[0] ?? "", row.path(scene), { key: "", body: row.body?.(scene), headers });
      const secrets = [scene.workspace, scene.upload, scene.deletedUpload, scene.workflow, scene.member];
      const leaks = (answer: Answer): boolean => secrets.some((secret) => answer.text.includes(secret));

      for (const who of REFUSED) {
        const answer = await ask(refused[who]);
        assert.equal(answer.status, 401, `${who}: ${answer.text}`);
        assert.equal(answer.headers["www-authenticate"], "Bearer", who);
        const code = who.startsWith("session") ? "UNAUTHORIZED" : "INVALID_API_KEY";
        assert.equal(answer.json.error.code, code, who);
        assert.ok(!leaks(answer), who);
      }
      const held = await heldBackHeaders(cast, row, scene);
      for (const who of HELD_BACK) {
        const expected = row.expected[who];
        const answer = await ask(held[who]);
        assert.equal(answer.status, expected === "own" ? row.expected["who may"] : expected, `${who}: ${answer.text}`);
        if (expected === "own" || answer.status >= 400) assert.ok(!leaks(answer), `${who}: ${answer.text}`);
      }
    });
  }
});

test("routes that ask for no credential answer everyone alike", async (t) => {
  const its = await startPeopleApp(t);
  const refused = await refusedHeaders(its, its.owner.workspaceId);
  const { uploadUrl } = await its.createUpload();
  // A path that was really given out, without its signature.
  const { pathname } = new URL(uploadUrl);
  for (const [route, expected] of Object.entries(PUBLIC_ROUTES)) {
    const [method = "", pattern = ""] = route.split(" ");
    for (const headers of [...Object.values(refused), bearer(its.owner.key)]) {
      const answer = await its.call(method, pattern.endsWith("*") ? pathname : pattern, { key: "", headers });
      assert.equal(answer.status, expected, `${route}: ${answer.text}`);
    }
  }
});

/** All of an answer but what names the request itself. */
function sameness({ status, headers, json }: Answer): unknown {
  const { "x-request-id": _id, date: _date, ...rest } = headers;
  return { status, headers: rest, json: { ...json, meta: null } };
}

const UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057";

test("NO-LEAK: a foreign id, a deleted one and one that never was get the same answer from every route", async (t) => {
  const its = await startPeopleApp(t, { cleansInBackground: false });
  const cast = await castPeople(its);
  const { stranger, founder } = cast;
  const foreign = await makeScene(cast);
  const deleted = await makeScene(cast);
  for (const path of [
    `uploads/${deleted.upload}`,
    `workflows/${deleted.workflow}`,
    `workspaces/${deleted.workspace}`,
  ]) {
    const workspace = deleted.workspace;
    assert.equal((await founder.call("DELETE", `/api/v1/${path}`, { workspace })).status, 200);
  }
  const unknown = { workspace: UNKNOWN, upload: UNKNOWN, deletedUpload: UNKNOWN, workflow: UNKNOWN, member: UNKNOWN };
  const callers: [string, Headers][] = [
    ["key", bearer(its.owner.key)],
    ["session", bearer(stranger.token)],
    [
      "session in a workspace of its own",
      { ...bearer(stranger.token), "X-Workspace-Id": await its.makeWorkspace(stranger) },
    ],
  ];

  const taking = SECURITY_MATRIX.filter(({ route }) => route.includes(":"));
  assert.ok(taking.length > 10);
  for (const row of taking) {
    await t.test(row.route, async () => {
      for (const [who, headers] of callers) {
        if (row.by === "owner" && who === "key") continue;
        // Workflows are asked for in a workspace: without the header the answer is 400, whatever the id.
        if (row.route.includes("/workflows/") && who === "session") continue;
        const method = row.route.split(" ")[0] ?? "";
        const ask = (scene: MatrixScene): Promise<Answer> =>
          its.call(method, row.path(scene), { key: "", body: row.body?.(foreign), headers });
        const expected = await ask(unknown);
        assert.equal(expected.status, 404, `${who}: ${expected.text}`);
        for (const scene of [foreign, deleted]) assert.deepEqual(sameness(await ask(scene)), sameness(expected), who);
      }
    });
  }

  await t.test("as the header's workspace, in a query and in a body", async () => {
    const own = await its.createUpload();
    await its.put(own.uploadUrl, "bytes");
    const asSession = (workspace: string) => stranger.call("GET", "/api/v1/uploads", { workspace });
    const asks: ((scene: MatrixScene) => Promise<Answer>)[] = [
      ({ workspace }) => asSession(workspace),
      ({ workflow }) => its.call("GET", `/api/v1/uploads?context_id=${workflow}`),
      ({ upload }) => its.call("GET", `/api/v1/usage/storage-events?upload_id=${upload}`),
      ({ member }) => its.call("GET", `/api/v1/usage/activity?user_id=${member}`),
      ...(["workflow", "workspace", "playground", "assistant_session"] as const).map(
        (context_type) => (scene: MatrixScene) =>
          its.call("POST", `/api/v1/uploads/${own.id}`, {
            body: { context_type, context_id: context_type === "workflow" ? scene.workflow : scene.workspace },
          }),
      ),
    ];
    for (const [i, ask] of asks.entries()) {
      const expected = sameness(await ask(unknown));
      assert.deepEqual(sameness(await ask(foreign)), expected, `${i}`);
      assert.deepEqual(sameness(await ask(deleted)), expected, `${i}`);
    }
  });

  await t.test("as a member of one's own workspace", async () => {
    const workspace = await its.makeWorkspace(stranger);
    for (const method of ["PATCH", "DELETE"]) {
      const ask = (id: string): Promise<Answer> =>
        stranger.call(method, `/api/v1/workspaces/${workspace}/members/${id}`, { body: { role: "viewer" } });
      const expected = await ask(UNKNOWN);
      assert.equal(expected.status, 404);
      assert.deepEqual(sameness(await ask(foreign.member)), sameness(expected));
    }
  });
});
