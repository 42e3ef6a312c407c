import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { SCOPES } from "../lib/core/principals.ts";
import { createRoutes } from "../lib/routes/routes.ts";
import type { Answer } from "./_app.ts";
import { type PeopleApp, type Person, startPeopleApp, uploadAs } from "./_people.ts";
import { CALLERS, type Caller, PERMISSION_TABLE, printPermissions, type Row, type Scene } from "./_permission_table.ts";

// Goal: what docs/permissions.md says of each operation and each caller is what the service does.
// Method: each cell asks the real service once, in a workspace of its own, and the printed table is compared with the file.

const rows = PERMISSION_TABLE.flatMap((part) => part.rows);

test("docs/permissions.md has these very tables", () => {
  const docs = readFileSync(new URL("../docs/permissions.md", import.meta.url), "utf8");
  const tables = /<!-- tables -->\n(.*?)\n<!-- \/tables -->/s.exec(docs)?.[1];
  assert.equal(tables, printPermissions());
});

test("every route that asks for a credential is in the table", async (t) => {
  const { app, config } = await startPeopleApp(t);
  const unused = () => Promise.reject(new Error("Nothing is called here"));
  const routes = createRoutes({ ...app, config, confirm: unused, objectRoutes: null });
  const asked = new Set(rows.map(({ route }) => route));
  const missing = routes
    .filter(({ access }) => access !== "public")
    .map(({ method, path }) => `${method} ${path}`)
    .filter((route) => !asked.has(route));
  assert.deepEqual(missing, []);
});

/** Someone to call, and a scene for it. */
interface Cell {
  scene: Scene;
  send: (row: Row) => Promise<Answer>;
}

interface Cast {
  app: PeopleApp;
  caller: Person;
  other: Person;
  founder: Person;
}

const ROLES = { admin: "admin", editor: "editor", viewer: "viewer" } as const;

async function prepare({ app, caller, other, founder }: Cast, who: Caller, { scope, what }: Row): Promise<Cell> {
  const needsBytes = what.startsWith("confirm");
  const workspace = await app.makeWorkspace(who === "owner" ? caller : founder);
  await app.join(workspace, other, "editor");
  // An owner can leave only where another admin is.
  if (who === "owner") await app.join(workspace, founder, "admin");
  const role = who === "admin" || who === "editor" || who === "viewer" ? ROLES[who] : null;
  // Made by a viewer, too: by someone who was an editor before.
  if (role !== null) await app.join(workspace, caller, role === "viewer" ? "editor" : role);
  const isMember = role !== null || who === "owner";
  // Only what a confirm is asked for has to be there.
  const bytes = needsBytes ? { bytes: "x" } : {};
  const [flow, own, anothers, personal] = await Promise.all([
    other.call("POST", "/api/v1/workflows", { workspace, body: {} }),
    uploadAs(app, isMember ? caller : other, { workspace, ...bytes }),
    uploadAs(app, other, { workspace, ...bytes }),
    uploadAs(app, other, bytes),
  ]);
  const scene: Scene = {
    ...{ workspace, own, anothers, personal },
    workflow: flow.json.data.id,
    otherMember: other.userId,
    caller: caller.userId,
  };
  if (what.startsWith("show the deletion")) {
    for (const [by, id] of [
      [isMember ? caller : other, own],
      [other, anothers],
      [other, personal],
    ] as const) {
      assert.equal((await by.call("DELETE", `/api/v1/uploads/${id}`)).status, 200);
    }
  }
  if (role === "viewer") {
    await app.app.core.members.setRole("administrator", workspace, { userId: caller.userId, role });
  }
  const isKey = who === "key" || who === "keyWithout" || who === "otherKey";
  const ofKey = who === "otherKey" ? await app.makeWorkspace(founder) : workspace;
  const scopes = who === "keyWithout" ? SCOPES.filter((known) => known !== scope) : [scope ?? "catalog:read"];
  const token = isKey ? (await app.app.core.keys.create({ workspaceId: ofKey, scopes })).apiKey : caller.token;
  return {
    scene,
    send({ request, route }) {
      const { path, body, header } = request(scene);
      const method = route.split(" ")[0] ?? "";
      const call = { body, ...(header && !isKey ? { workspace } : {}) };
      return app.callAs(token, method, `/api/v1${path}`, call);
    },
  };
}

test("every cell", async (t) => {
  const app = await startPeopleApp(t, {
    cleansInBackground: false,
    env: { STOWAGE_WORKSPACES_PER_OWNER_MAX: "1000000" },
  });
  const cast: Cast = {
    app,
    caller: await app.signIn("caller"),
    other: await app.signIn("other"),
    founder: await app.signIn("founder"),
  };
  await app.signIn("newcomer");
  for (const { title, rows } of PERMISSION_TABLE) {
    for (const row of rows) {
      const [method = ""] = row.route.split(" ");
      await t.test(`${title}: ${row.what}`, async () => {
        for (const who of CALLERS) {
          const { send } = await prepare(cast, who, row);
          const { status, text } = await send(row);
          const ownStatus = method === "POST" ? 201 : 200;
          assert.equal(status, row.cells[who] ?? ownStatus, `${who}: ${text}`);
        }
        const { path, body } = row.request((await prepare(cast, "owner", row)).scene);
        const nobody = await app.call(method, `/api/v1${path}`, { key: "", body });
        assert.equal(nobody.status, 401, "without a credential");
      });
    }
  }
});
