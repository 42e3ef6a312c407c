import assert from "node:assert/strict";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import Database from "better-sqlite3";
import type { Principal } from "../lib/core/principals.ts";
import { AppError } from "../lib/errors.ts";
import { type Answer, type Owner, startTestApp, type TestApp } from "./_app.ts";
import { checkBooks, rawDiskKeys } from "./_books.ts";
import { afterwards } from "./_db.ts";
import { startPeopleApp, uploadAs, wordsOf } from "./_people.ts";
import { initProgram, runProgram, serveProgram } from "./_process.ts";
import { until } from "./_until.ts";

const UPLOADS = "/api/v1/uploads";
const STRANGER = "01890a5d-ac96-774b-bcce-b302099a8057";

/** Confirmed uploads of 10 bytes each, as rows: their objects were never there, which a removal does not mind. */
function seedUploads(sql: Database.Database, workspaceId: string, count: number): void {
  sql.transaction(() => {
    sql
      .prepare(`
        INSERT INTO uploads (id, user_id, workspace_id, filename, category, content_type, status, object_key, url_expires_at_ms,
                             expires_at_ms, created_at_ms, updated_at_ms)
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count),
             named (id, i) AS (SELECT printf('01900000-0000-7000-8000-%012x', i), i FROM n)
        SELECT named.id, w.created_by, w.id, 'a.bin', 'file', 'application/octet-stream', 'pending',
               'staging/' || (SELECT id FROM installation) || '/' || named.id || '/' || printf('%032x', i), 1, 9e15, 1, 1
          FROM named, workspaces w WHERE w.id = :workspaceId`)
      .run({ count, workspaceId });
    sql
      .prepare(`
        UPDATE uploads
           SET status = 'uploaded', size_bytes = 10, etag = 'e', object_key = replace(object_key, 'staging/', 'final/')
         WHERE workspace_id = ?`)
      .run(workspaceId);
    sql.exec("DELETE FROM object_removals");
  })();
}

const keyOf = ({ workspaceId, userId, apiKeyId }: Owner): Principal => ({
  ...{ authKind: "api_key", workspaceId, userId, apiKeyId, scopes: [], checkedAtMs: performance.now() },
});

const count = (sql: Database.Database, workspaceId: string) =>
  Number(sql.prepare("SELECT count(*) FROM uploads WHERE workspace_id = ?").pluck().get(workspaceId));

const isNotFound = (error: unknown) => error instanceof AppError && error.code === "not_found";

test("a deleted workspace is refused everywhere at once, before anything of it is removed", async (t) => {
  const app = await startPeopleApp(t, { cleansInBackground: false });
  const [ann, bob] = [await app.signIn("ann"), await app.signIn("bob")];
  const workspace = await app.makeWorkspace(ann);
  await app.join(workspace, bob, "admin");
  const { apiKey: key } = await app.app.core.keys.create({ workspaceId: workspace });
  const workflow = (await ann.call("POST", "/api/v1/workflows", { workspace, body: {} })).json.data.id;
  const [pending, confirmed] = [
    await uploadAs(app, ann, { workspace, bytes: "x" }),
    await uploadAs(app, ann, { workspace, bytes: "xy" }),
  ];
  const context = { context_type: "workflow", context_id: workflow };
  assert.equal((await ann.call("POST", `${UPLOADS}/${confirmed}`, { body: context })).status, 200);
  const personal = await uploadAs(app, ann, { bytes: "x" });

  const path = `/api/v1/workspaces/${workspace}`;
  assert.equal((await bob.call("DELETE", path)).status, 404, "an admin who is not the owner");
  assert.equal((await app.call("DELETE", path, { key })).status, 403);
  assert.deepEqual((await ann.call("DELETE", path)).json.data, {});
  assert.equal((await ann.call("DELETE", path)).status, 404, "once");

  assert.equal((await app.call("GET", UPLOADS, { key })).status, 401);
  const refusals: Answer[] = [
    await ann.call("GET", path),
    await ann.call("PATCH", path, { body: {} }),
    await ann.call("GET", `${path}/plan`),
    await ann.call("GET", `${path}/settings`),
    await ann.call("GET", `${path}/members`),
    await ann.call("POST", `${path}/members`, { body: { user_id: bob.userId, role: "viewer" } }),
    await ann.call("DELETE", `${path}/members/${bob.userId}`),
    await ann.call("GET", UPLOADS, { workspace }),
    await ann.call("POST", UPLOADS, { workspace, body: { filename: "a.bin", category: "file" } }),
    await ann.call("GET", "/api/v1/workflows", { workspace }),
    await ann.call("GET", "/api/v1/usage/summary", { workspace }),
    await ann.call("GET", `${UPLOADS}/${confirmed}`),
    await ann.call("DELETE", `${UPLOADS}/${confirmed}`),
    await ann.call("POST", `${UPLOADS}/${pending}`, { body: context }),
    await ann.call("POST", `${UPLOADS}/${personal}`, { body: context }),
    await ann.call("POST", `${UPLOADS}/${personal}`, {
      body: { context_type: "workspace", context_id: workspace },
    }),
  ];
  assert.deepEqual(new Set(refusals.map(({ status }) => status)), new Set([404]));
  assert.deepEqual(
    wordsOf(await ann.call("GET", `${UPLOADS}/${confirmed}`)),
    wordsOf(await ann.call("GET", `${UPLOADS}/${STRANGER}`)),
  );
  assert.deepEqual((await ann.call("GET", "/api/v1/workspaces")).json.data, []);
  assert.equal(count(app.sql, workspace), 2);

  await app.app.cleaner.runOnce();
  assert.equal(count(app.sql, workspace), 0);
  assert.equal((await ann.call("GET", `${UPLOADS}/${personal}`)).status, 200, "what is personal stays");
  assert.equal((await rawDiskKeys(app.dataDir, app.app.core.workspaces.installationId())).length, 1);
  checkBooks(app.sql);
});

test("uploads go in bounded steps through the same triggers; the row stays for the ledger", async (t) => {
  const app = await startTestApp(t, { cleansInBackground: false });
  const other = await app.addOwner();
  const kept = await app.confirmedUpload("kept", { owner: other });
  const { workspaceId } = app.owner;
  seedUploads(app.sql, workspaceId, 25);
  await app.createUpload();
  const { uploads, workspaces } = app.app.core;
  assert.equal(await uploads.removeOfDeletedWorkspaces(10), null, "nothing is deleted yet");
  await workspaces.removeAny(workspaceId);
  const used = () => app.sql.prepare("SELECT storage_bytes_used FROM workspaces WHERE id = ?").pluck().get(workspaceId);
  const steps: unknown[] = [];
  for (let removed = await uploads.removeOfDeletedWorkspaces(10); removed !== null; ) {
    checkBooks(app.sql);
    steps.push([removed, used()]);
    removed = await uploads.removeOfDeletedWorkspaces(10);
  }
  assert.deepEqual(steps, [
    [10, 150],
    [10, 50],
    [6, 0],
  ]);
  assert.equal((await app.call("GET", `${UPLOADS}/${kept.id}`, { key: other.key })).status, 200);
  const row = app.sql.prepare("SELECT deleted_at_ms, emptied_at_ms FROM workspaces WHERE id = ?").get(workspaceId);
  assert.ok(Object.values(row ?? {}).every((atMs) => typeof atMs === "number"));
  assert.equal(
    app.sql.prepare("SELECT count(*) FROM storage_events WHERE workspace_id = ?").pluck().get(workspaceId),
    50,
  );
});

test("one pass empties a workspace of any size, and objects of others are not kept waiting for it", async (t) => {
  const app = await startTestApp(t, { cleansInBackground: false });
  const other = await app.addOwner();
  const { workspaceId } = app.owner;
  seedUploads(app.sql, workspaceId, 2_500);
  const { id } = await app.confirmedUpload("x", { owner: other });
  await app.call("DELETE", `${UPLOADS}/${id}`, { key: other.key });
  await app.app.core.workspaces.removeAny(workspaceId);
  const entered = app.sql.prepare("SELECT count(*) FROM object_removals WHERE upload_id = ?").pluck();
  const pass = app.app.cleaner.runOnce();
  await until(() => entered.get(id) === 1, "the object of another workspace");
  const leftWhenRemoved = count(app.sql, workspaceId);
  await pass;
  assert.ok(leftWhenRemoved > 0, "it was removed before the workspace was empty");
  assert.equal(count(app.sql, workspaceId), 0);
  checkBooks(app.sql);
});

test("one pass sees to any number of workspaces that had no uploads", async (t) => {
  const app = await startTestApp(t, { cleansInBackground: false });
  for (let i = 0; i < 25; i++) await app.app.core.workspaces.removeAny((await app.addOwner()).workspaceId);
  const left = app.sql
    .prepare("SELECT count(*) FROM workspaces WHERE deleted_at_ms > 0 AND emptied_at_ms IS NULL")
    .pluck();
  assert.equal(left.get(), 25);
  await app.app.cleaner.runOnce();
  assert.equal(left.get(), 0);
});

test("its workflows go in the same steps, its members with the last one, and those of others stay", async (t) => {
  const app = await startTestApp(t, { cleansInBackground: false });
  const other = await app.addOwner();
  const { workspaceId } = app.owner;
  seedUploads(app.sql, workspaceId, 3);
  const made: Answer[] = [];
  for (let i = 0; i < 7; i++) made.push(await app.call("POST", "/api/v1/workflows", { body: {} }));
  made.push(await app.call("POST", "/api/v1/workflows", { key: other.key, body: {} }));
  assert.deepEqual(new Set(made.map(({ status }) => status)), new Set([201]));
  const { uploads, workspaces } = app.app.core;
  await workspaces.removeAny(workspaceId);
  const left = (table: string, id: string) =>
    app.sql.prepare(`SELECT count(*) FROM ${table} WHERE workspace_id = ?`).pluck().get(id);
  const steps: unknown[] = [];
  for (let removed = await uploads.removeOfDeletedWorkspaces(20); removed !== null; ) {
    steps.push([left("uploads", workspaceId), left("contexts", workspaceId), left("memberships", workspaceId)]);
    removed = await uploads.removeOfDeletedWorkspaces(20);
  }
  // A workflow may be large, so that a step has fewer of them.
  assert.deepEqual(steps, [
    [0, 5, 1],
    [0, 3, 1],
    [0, 1, 1],
    [0, 0, 0],
  ]);
  assert.deepEqual([left("contexts", other.workspaceId), left("memberships", other.workspaceId)], [1, 1]);
});

test("a workspace that is brought back by hand and deleted once more is emptied once more", async (t) => {
  const app = await startTestApp(t, { cleansInBackground: false });
  const { workspaceId } = app.owner;
  await app.app.core.workspaces.removeAny(workspaceId);
  await app.app.cleaner.runOnce();
  app.sql.prepare("UPDATE workspaces SET deleted_at_ms = NULL WHERE id = ?").run(workspaceId);
  await app.confirmedUpload("x");
  await app.app.core.workspaces.removeAny(workspaceId);
  await app.app.cleaner.runOnce();
  assert.equal(count(app.sql, workspaceId), 0);
  checkBooks(app.sql);
});

/** Deletes the workspace in the middle of a confirm: its copy waits for that. */
async function deleteDuringConfirm(t: TestContext): Promise<{ app: TestApp; answer: Answer }> {
  const midway = { reached: () => {}, goOn: () => {} };
  const reached = new Promise<void>((resolve) => {
    midway.reached = resolve;
  });
  const goOn = new Promise<void>((resolve) => {
    midway.goOn = resolve;
  });
  const app = await startTestApp(t, {
    cleansInBackground: false,
    wrapStore: (objects) => ({
      ...objects,
      async promote(...args) {
        const promoted = await objects.promote(...args);
        midway.reached();
        await goOn;
        return promoted;
      },
    }),
  });
  const { id, uploadUrl } = await app.createUpload();
  await app.put(uploadUrl, "12345");
  const confirming = app.confirm(id);
  await reached;
  await app.app.core.workspaces.removeAny(app.owner.workspaceId);
  midway.goOn();
  return { app, answer: await confirming };
}

test("requests that were under way when the workspace was deleted charge nothing and leave nothing behind", async (t) => {
  const { app, answer } = await deleteDuringConfirm(t);
  assert.equal(answer.status, 404, answer.text);
  const { uploads } = app.app.core;
  const type = { filename: "a.bin", contentType: "application/octet-stream", format: null };
  const late = (statedSizeBytes: number | null) =>
    uploads.create(keyOf(app.owner), { type, category: "file", statedSizeBytes, checksumSha256: null }, null);
  await assert.rejects(late(null), isNotFound);
  await assert.rejects(late(1), isNotFound);
  app.clock.advance(7 * 86_400_000);
  for (let pass = 0; pass < 3; pass++) await app.app.cleaner.runOnce();
  assert.equal(app.sql.prepare("SELECT count(*) FROM storage_events").pluck().get(), 0);
  assert.equal(count(app.sql, app.owner.workspaceId), 0);
  assert.deepEqual(await rawDiskKeys(app.dataDir, app.app.core.workspaces.installationId()), []);
});

test("a kill in the middle costs nothing: the next start goes on", async (t) => {
  const { dataDir, made } = await initProgram(t);
  // It takes its store: rows without objects in one that was never used would be those of another.
  const before = await serveProgram(t, dataDir);
  before.child.kill("SIGTERM");
  await before.ended;
  const sql = new Database(join(dataDir, "stowage.db"), { timeout: 10_000 });
  afterwards(t, () => sql.close());
  const total = 6_000;
  seedUploads(sql, made.workspace_id, total);
  const env = { STOWAGE_DATA_DIR: dataDir };
  const refused = await runProgram(t, ["workspaces", "delete", made.workspace_id], env);
  assert.equal(refused.exitCode, 2);
  assert.match(refused.stderr, /--yes is missing/);
  const deleted = await runProgram(t, ["workspaces", "delete", made.workspace_id, "--yes", "--json"], env);
  assert.deepEqual(JSON.parse(deleted.stdout), { workspace_id: made.workspace_id });
  assert.equal((await runProgram(t, ["workspaces", "delete", made.workspace_id, "--yes"], env)).exitCode, 1);

  const first = await serveProgram(t, dataDir);
  await until(() => count(sql, made.workspace_id) < total, "the first step");
  first.child.kill("SIGKILL");
  await first.ended;
  const left = count(sql, made.workspace_id);
  assert.ok(left > 0 && left < total, `killed in the middle: ${left} left`);
  checkBooks(sql);

  const second = await serveProgram(t, dataDir);
  const emptied = sql.prepare("SELECT emptied_at_ms IS NOT NULL FROM workspaces WHERE id = ?").pluck();
  await until(() => emptied.get(made.workspace_id) === 1, "the last step");
  assert.equal(count(sql, made.workspace_id), 0);
  checkBooks(sql);
  assert.equal(sql.prepare("SELECT count(*) FROM storage_events WHERE kind = 'release'").pluck().get(), total);
  second.child.kill("SIGTERM");
  assert.equal((await second.ended).exitCode, 0);
});

test("a command deletes a workspace beside a server, which refuses it from the next request on", async (t) => {
  const { dataDir, made } = await initProgram(t);
  const server = await serveProgram(t, dataDir);
  const whoami = () => server.call("GET", "/api/v1/auth/whoami", { key: made.api_key });
  assert.equal((await whoami()).status, 200);
  const env = { STOWAGE_DATA_DIR: dataDir };
  const { stdout } = await runProgram(t, ["workspaces", "delete", made.workspace_id, "--yes"], env);
  assert.equal(stdout, `${made.workspace_id} is deleted\n`);
  assert.equal((await whoami()).status, 401);
  const list = await runProgram(t, ["workspaces", "list", "--json"], env);
  assert.deepEqual(JSON.parse(list.stdout), []);
});
