import assert from "node:assert/strict";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { createIdempotency } from "../lib/core/idempotency.ts";
import { DATABASE_FILE } from "../lib/db/db.ts";
import type { TestApp } from "./_app.ts";
import { noAnswer } from "./_faulty_store.ts";
import { assertKeyRefused, FILE, OTHER_REQUEST, startKeyedApp, UPLOADS } from "./_keyed_app.ts";
import { startPeopleApp } from "./_people.ts";
import { queryPlans } from "./_query_plans.ts";
import { type RawAnswer, rawClient } from "./_raw_http.ts";

const HOUR_MS = 3_600_000;
const MINUTE_MS = 60_000;

/** Sends headers exactly as they are given: a client library would refuse some of them itself. */
function rawSender(t: TestContext, { app, owner }: TestApp) {
  async function post(method: string, path: string, body: string, headers: string[]): Promise<RawAnswer> {
    const client = await rawClient(t, app.url);
    const lines = [
      `${method} ${path} HTTP/1.1`,
      "Host: stowage",
      `Authorization: Bearer ${owner.key}`,
      ...(body === "" ? [] : ["Content-Type: application/json", `Content-Length: ${body.length}`]),
      ...headers,
    ];
    client.send(`${lines.join("\r\n")}\r\n\r\n${body}`);
    const answer = await client.answer();
    client.socket.destroy();
    return answer;
  }
  return { post };
}

test("a create that is repeated is answered alike, with the same URL, and makes no second upload", async (t) => {
  const its = await startKeyedApp(t);
  const first = await its.create("a");
  assert.equal(first.status, 201);
  its.clock.advance(10 * MINUTE_MS);
  const second = await its.create("a");
  assert.equal(second.status, 201);
  assert.deepEqual(second.json.data, first.json.data);
  assert.notEqual(second.json.meta.request_id, first.json.meta.request_id);
  assert.equal(its.count("uploads"), 1);
  assert.equal((await its.put(second.json.data.upload_url, "bytes")).status, 200);
  // The URL ends when the first would have, however often it is asked for.
  its.clock.advance(6 * MINUTE_MS);
  const late = await its.create("a");
  assert.deepEqual(late.json.data, first.json.data);
  assert.equal((await its.put(late.json.data.upload_url, "bytes")).status, 403);
  its.check();
  await its.checkEnd();
});

test("a key that comes with another request is refused, and that request is not done", async (t) => {
  const its = await startKeyedApp(t);
  const { id } = (await its.create("a")).json.data.upload;
  const other = await its.staged("12345");
  for (const body of [
    { ...FILE, filename: "other.bin" },
    { ...FILE, size_bytes: 5 },
    { filename: "a.txt", category: "script" },
  ]) {
    assertKeyRefused(await its.create("a", body), OTHER_REQUEST);
  }
  for (const uploadId of [id, other.id, "01890a5d-ac96-774b-bcce-b302099a8057"]) {
    assertKeyRefused(await its.confirmAs("a", uploadId), OTHER_REQUEST);
    assertKeyRefused(await its.deleteAs("a", uploadId), OTHER_REQUEST);
  }
  assert.equal(its.count("uploads"), 2);
  assert.equal((await its.confirmAs("b", other.id)).status, 200);
  assertKeyRefused(await its.deleteAs("b", other.id), OTHER_REQUEST);
  assertKeyRefused(await its.create("b"), OTHER_REQUEST);
  const { json } = await its.call("POST", "/api/v1/workflows", { body: {} });
  const elsewhere = { body: { context_type: "workflow", context_id: json.data.id } };
  assertKeyRefused(await its.keyed("b", "POST", `${UPLOADS}/${other.id}`, elsewhere), OTHER_REQUEST);
  assert.equal(its.statusOf(other.id), "uploaded");
  its.check();
});

test("what counts is what is asked for: spaces, the order of fields and unknown ones make no other request", async (t) => {
  const its = await startKeyedApp(t);
  const { id } = (await its.create("a")).json.data.upload;
  for (const body of ['{ "category": "file",\n "filename": "file.bin" }', { ...FILE, unknown: 1 }]) {
    assert.equal((await its.create("a", body)).json.data.upload.id, id);
  }
  const gone = await its.deleteAs("b", id);
  assert.equal(gone.status, 200);
  const again = await its.keyed("b", "DELETE", `${UPLOADS}/${id.toUpperCase()}`, { body: {} });
  assert.equal(again.status, 200);
});

test("the same key of another caller is another key: of each API key, and of each person by sessions", async (t) => {
  const its = await startPeopleApp(t);
  const second = await its.app.core.keys.create({ workspaceId: its.owner.workspaceId });
  const stranger = await its.addOwner();
  const [ann, bob] = [await its.signIn("ann"), await its.signIn("bob")];
  const tokens = [its.owner.key, second.apiKey, stranger.key, ann.token, bob.token];
  const ids = new Set<string>();
  const ask = (key: string, body: unknown) =>
    its.call("POST", UPLOADS, { key, body, headers: { "Idempotency-Key": "same" } });
  for (const [i, key] of tokens.entries()) {
    const body = { ...FILE, filename: `of-${i}.bin` };
    const [first, again] = [await ask(key, body), await ask(key, body)];
    assert.deepEqual([first.status, again.status], [201, 201]);
    assert.deepEqual(again.json.data, first.json.data);
    ids.add(first.json.data.upload.id);
  }
  assert.equal(ids.size, tokens.length);
  // A person's other token is the same person; another workspace is another request.
  const token = await its.issuer.mint({ sub: "ann", ttlSeconds: 600 });
  const [id] = [...ids].slice(3);
  assert.equal((await ask(token, { ...FILE, filename: "of-3.bin" })).json.data.upload.id, id);
  const workspace = await its.makeWorkspace(ann);
  const headers = { "Idempotency-Key": "same", "X-Workspace-Id": workspace };
  const elsewhere = await its.call("POST", UPLOADS, { key: token, body: { ...FILE, filename: "of-3.bin" }, headers });
  assertKeyRefused(elsewhere, OTHER_REQUEST);
});

test("a repeated create tells nothing to someone who may no longer see the upload", async (t) => {
  const its = await startPeopleApp(t);
  const [ann, bob] = [await its.signIn("ann"), await its.signIn("bob")];
  const workspace = await its.makeWorkspace(ann);
  await its.join(workspace, bob, "editor");
  const ask = () =>
    its.call("POST", UPLOADS, {
      key: bob.token,
      body: FILE,
      headers: { "Idempotency-Key": "a", "X-Workspace-Id": workspace },
    });
  assert.equal((await ask()).status, 201);
  assert.equal((await ann.call("DELETE", `/api/v1/workspaces/${workspace}/members/${bob.userId}`)).status, 200);
  assert.equal((await ask()).status, 404);
  // A personal upload that was confirmed into the workspace is the workspace's.
  const other = await its.signIn("cid");
  await its.join(workspace, other, "editor");
  const askPersonal = () =>
    its.call("POST", UPLOADS, { key: other.token, body: FILE, headers: { "Idempotency-Key": "a" } });
  const { upload, upload_url } = (await askPersonal()).json.data;
  assert.equal((await its.put(upload_url, "12345")).status, 200);
  const bind = { context_type: "workspace", context_id: workspace };
  assert.equal((await other.call("POST", `${UPLOADS}/${upload.id}`, { body: bind })).status, 200);
  assert.equal((await askPersonal()).json.data.upload.workspace_id, workspace);
  await ann.call("DELETE", `/api/v1/workspaces/${workspace}/members/${other.userId}`);
  const gone = await askPersonal();
  assert.equal(gone.status, 404);
  assert.doesNotMatch(gone.text, new RegExp(upload.id));
});

test("a key is 1 to 255 visible ASCII characters, else 422 that names the header, and nothing is done", async (t) => {
  const its = await startKeyedApp(t);
  const staged = await its.staged("12345");
  const { post } = rawSender(t, its);
  for (const bad of ["", "two words", "a\tb", "x".repeat(256), "schl\u00fcssel", "\u00a0"]) {
    for (const [method, path, body] of [
      ["POST", UPLOADS, JSON.stringify(FILE)],
      [
        "POST",
        `${UPLOADS}/${staged.id}`,
        JSON.stringify({ context_type: "workspace", context_id: its.owner.workspaceId }),
      ],
      ["DELETE", `${UPLOADS}/${staged.id}`, ""],
    ] as const) {
      const { status, text } = await post(method, path, body, [`Idempotency-Key: ${bad}`]);
      assert.equal(status, 422, `${method} ${JSON.stringify(bad)}: ${text}`);
      assert.match(
        text,
        /"message":"Invalid Idempotency-Key: must have 1 to 255 characters, all of them visible ASCII"/,
      );
    }
  }
  const twice = await post("POST", UPLOADS, JSON.stringify(FILE), ["Idempotency-Key: a", "Idempotency-Key: b"]);
  assert.equal(twice.status, 422, "given twice it is none");
  assert.equal(its.count("uploads"), 1);
  for (const good of ["a", "x".repeat(255), '"8e03978e-40d5-43dd-bc93-6894a57f9324"', "!~"]) {
    const [first, again] = [await its.create(good), await its.create(good)];
    assert.equal(first.status, 201);
    assert.equal(again.json.data.upload.id, first.json.data.upload.id);
  }
  // Elsewhere it means nothing.
  const other = await its.keyed("two words", "POST", "/api/v1/workflows", { body: {} });
  assert.equal(other.status, 201);
});

test("failures are not stored: the same key goes on to do what failed before", async (t) => {
  const its = await startKeyedApp(t, { quotaBytes: 10, env: { STOWAGE_PENDING_UPLOADS_MAX: "1" } });
  assert.equal((await its.create("a", { filename: "x" })).status, 422);
  assert.equal((await its.create("a", { ...FILE, size_bytes: 11 })).status, 402);
  const { upload, upload_url } = (await its.create("a", { ...FILE, size_bytes: 3 })).json.data;
  assert.equal((await its.create("b")).status, 429, "one may be pending");

  assert.equal((await its.confirmAs("c", upload.id)).status, 422, "nothing was PUT");
  assert.equal((await its.put(upload_url, "123")).status, 200);
  its.hooks.before = ({ name }) => {
    if (name === "promote") throw noAnswer();
  };
  assert.equal((await its.confirmAs("c", upload.id)).status, 503);
  its.heal();
  assert.equal((await its.confirmAs("c", upload.id)).status, 200);
  assert.equal((await its.create("b")).status, 201);

  const unknown = "01890a5d-ac96-774b-bcce-b302099a8057";
  assert.equal((await its.deleteAs("d", unknown)).status, 404);
  assert.equal((await its.deleteAs("d", unknown)).status, 404);
  assert.equal((await its.deleteAs("d", upload.id)).status, 200);
  assert.equal(its.count("idempotency_keys"), 4);
  its.check();
});

test("what the first request was given is not refused to its repetition, though nothing is left", async (t) => {
  const its = await startKeyedApp(t, { quotaBytes: 10, env: { STOWAGE_PENDING_UPLOADS_MAX: "1" } });
  const first = await its.create("a", { ...FILE, size_bytes: 10 });
  await its.app.core.workspaces.setQuota(its.owner.workspaceId, 0);
  assert.equal((await its.create("b", { ...FILE, size_bytes: 10 })).status, 402);
  assert.equal((await its.create("b")).status, 429);
  const again = await its.create("a", { ...FILE, size_bytes: 10 });
  assert.equal(again.status, 201);
  assert.deepEqual(again.json.data, first.json.data);
});

test("a delete that is repeated is 200 again with the same key, and 404 without it", async (t) => {
  const its = await startKeyedApp(t);
  const { id } = await its.confirmedUpload("12345");
  for (let time = 0; time < 3; time++) {
    const answer = await its.deleteAs("a", id);
    assert.equal(answer.status, 200);
    assert.deepEqual(answer.json.data, {});
  }
  assert.equal((await its.call("DELETE", `${UPLOADS}/${id}`)).status, 404);
  assert.equal((await its.deleteAs("b", id)).status, 404);
  assert.equal(its.usedBytes(), 0);
  assert.equal(its.count("storage_events"), 2);
  its.check();
  await its.checkEnd();
});

test("a confirm that is repeated shows the present state; one that changed nothing takes its key too", async (t) => {
  const its = await startKeyedApp(t);
  const { id } = await its.staged("12345");
  const first = await its.confirmAs("a", id);
  assert.equal(first.status, 200);
  its.clock.advance(MINUTE_MS);
  const again = await its.confirmAs("a", id);
  assert.deepEqual({ ...again.json.data, download_url: null }, { ...first.json.data, download_url: null });
  assert.notEqual(again.json.data.download_url, first.json.data.download_url, "a fresh one, not one that was kept");
  assert.equal((await its.confirmAs("b", id)).status, 200);
  assertKeyRefused(await its.deleteAs("b", id), OTHER_REQUEST);
  assert.equal(its.count("storage_events"), 1);
  assert.equal((await its.deleteAs("c", id)).status, 200);
  assert.equal((await its.confirmAs("a", id)).status, 404, "the present state is that there is none");
  its.check();
});

test("a create whose upload was deleted meanwhile is 404 when it is repeated, and makes no other", async (t) => {
  const its = await startKeyedApp(t);
  const { id } = (await its.create("a")).json.data.upload;
  assert.equal((await its.call("DELETE", `${UPLOADS}/${id}`)).status, 200);
  const again = await its.create("a");
  assert.equal(again.status, 404);
  assert.equal(
    again.json.error.message,
    "The upload that this Idempotency-Key created is gone: send a new key to create another",
  );
  assert.equal(its.count("uploads"), 0);
  assertKeyRefused(await its.create("a", { ...FILE, filename: "other.bin" }), OTHER_REQUEST);
});

test("a create whose upload was confirmed meanwhile shows it confirmed, and its URL takes nothing more", async (t) => {
  const its = await startKeyedApp(t);
  const { upload, upload_url } = (await its.create("a")).json.data;
  assert.equal((await its.put(upload_url, "12345")).status, 200);
  assert.equal((await its.confirm(upload.id)).status, 200);
  const again = await its.create("a");
  assert.equal(again.status, 201);
  assert.equal(again.json.data.upload.status, "uploaded");
  assert.equal(again.json.data.upload.size_bytes, 5);
  assert.equal(again.json.data.upload_url, upload_url);
  assert.ok(!again.json.data.upload_url.includes(its.keyOf(upload.id)), "never a URL to write the file itself");
  assert.equal((await its.put(again.json.data.upload_url, "54321")).status, 404);
  assert.equal(its.bytesOf(upload.id), "12345");
  its.check();
  await its.checkEnd();
});

test("for 24 hours, and no longer: then the key is as good as new", async (t) => {
  const its = await startKeyedApp(t, { env: { STOWAGE_PENDING_TTL_SECONDS: "604800" } });
  const first = await its.create("a");
  its.clock.advance(24 * HOUR_MS - 1);
  assert.equal((await its.create("a")).json.data.upload.id, first.json.data.upload.id);
  its.clock.advance(1);
  // Nothing has removed the row yet.
  assert.equal(its.count("idempotency_keys"), 1);
  const second = await its.create("a", { ...FILE, filename: "other.bin" });
  assert.equal(second.status, 201);
  assert.notEqual(second.json.data.upload.id, first.json.data.upload.id);
  its.clock.advance(24 * HOUR_MS - 1);
  const repeated = await its.create("a", { ...FILE, filename: "other.bin" });
  assert.equal(repeated.json.data.upload.id, second.json.data.upload.id, "repeating does not count from the old row");
  assert.equal(its.count("uploads"), 2);
});

test("the cleaner removes expired keys, in steps, and only them; not while the clock is in doubt", async (t) => {
  const its = await startKeyedApp(t);
  const { idempotency, db } = its.app.core;
  const request = { callerId: "c", requestSha256: "0".repeat(64), status: 200 };
  const fill = (count: number, name: string) =>
    db.write(() => {
      for (let i = 0; i < count; i++) idempotency.remember({ ...request, idempotencyKey: `${name}${i}` }, "an upload");
    });
  await fill(1_250, "old");
  its.clock.advance(HOUR_MS);
  await fill(10, "new");
  await its.app.cleaner.runOnce();
  assert.equal(its.count("idempotency_keys"), 1_260);

  its.clock.setBy(24 * HOUR_MS);
  await its.app.cleaner.runOnce();
  assert.equal(its.count("idempotency_keys"), 1_260, "someone has just set the clock");
  its.clock.setBy(-24 * HOUR_MS);
  await its.app.cleaner.runOnce();

  its.clock.advance(23 * HOUR_MS);
  const left: unknown[] = [];
  while (await idempotency.expire(its.clock.now())) left.push(its.count("idempotency_keys"));
  assert.deepEqual(left, [760, 260]);
  assert.equal(its.count("idempotency_keys"), 10);
  await fill(1_250, "more");
  its.clock.advance(24 * HOUR_MS);
  await its.app.cleaner.runOnce();
  assert.equal(its.count("idempotency_keys"), 0, "one pass does all that is due");
});

test("on an S3 store the URL is signed with its first date: it is the same text, and no younger", async (t) => {
  const env = {
    STOWAGE_STORE: "s3",
    // Nobody listens there: a create asks the store nothing.
    STOWAGE_S3_ENDPOINT: "http://127.0.0.1:1",
    STOWAGE_S3_ACCESS_KEY: "a",
    STOWAGE_S3_SECRET_KEY: "b",
  };
  const its = await startKeyedApp(t, { env });
  const first = (await its.create("a")).json.data.upload_url;
  its.clock.advance(10 * MINUTE_MS);
  assert.equal((await its.create("a")).json.data.upload_url, first);
  its.clock.advance(HOUR_MS);
  assert.equal((await its.create("a")).json.data.upload_url, first);
  // The service's clock was ahead, and is set right: a date in the future would be refused.
  its.clock.setBy(-2 * HOUR_MS);
  const early = new URL((await its.create("a")).json.data.upload_url);
  const signedAt = String(early.searchParams.get("X-Amz-Date")).replace(/(....)(..)(..T..)(..)(..Z)/, "$1-$2-$3:$4:$5");
  assert.ok(Date.parse(signedAt) <= its.clock.now(), signedAt);
});

test("no URL is kept, and without the header nothing is", async (t) => {
  const its = await startKeyedApp(t);
  await its.confirmedUpload("12345");
  assert.equal(its.count("idempotency_keys"), 0);
  const { upload } = (await its.create("a")).json.data;
  assert.deepEqual(its.sql.prepare("SELECT * FROM idempotency_keys").all(), [
    {
      caller_id: its.owner.apiKeyId,
      idempotency_key: "a",
      request_sha256: its.sql.prepare("SELECT request_sha256 FROM idempotency_keys").pluck().get(),
      status: 201,
      upload_id: upload.id,
      staging_key: its.keyOf(upload.id),
      expires_at_ms: its.clock.now() + 24 * HOUR_MS,
    },
  ]);
});

test("keys are looked up and expired by index, however many there are", async (t) => {
  const its = await startKeyedApp(t);
  const plans = queryPlans(join(its.dataDir, DATABASE_FILE), (db) =>
    createIdempotency(db, { background: db, now: its.clock.now, keysMax: 1 }),
  );
  assert.ok(plans.length >= 4);
  for (const { sql, steps } of plans) assert.doesNotMatch(steps, /SCAN (?!CONSTANT)|TEMP B-TREE/, sql);
});
