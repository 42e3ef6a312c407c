import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, rm, utimes, writeFile } from "node:fs/promises";
import { type ClientRequest, type IncomingMessage, request } from "node:http";
import { dirname } from "node:path";
import { test } from "node:test";
import { rawPathOf, rawTemporaryFiles } from "./_books.ts";
import { DAY_MS, startFaultyApp } from "./_faulty_app.ts";
import { createGate } from "./_faulty_store.ts";
import { until } from "./_until.ts";

/** A PUT whose first half has arrived: the service is writing it. */
async function halfPut(url: string, dataDir: string): Promise<{ end: (rest: string) => Promise<number | undefined> }> {
  const req: ClientRequest = request(url, { method: "PUT", headers: { "Content-Length": 8 } });
  const answer = once(req, "response") as Promise<[IncomingMessage]>;
  req.write("half");
  await until(() => rawTemporaryFiles(dataDir).length > 0, "the service takes the first half");
  return {
    async end(rest) {
      req.end(rest);
      const [response] = await answer;
      response.resume();
      await once(response, "end");
      return response.statusCode;
    },
  };
}

test("a PUT after the delete, or after the confirm, gets 404 and nothing of it is kept", async (t) => {
  const its = await startFaultyApp(t);
  const deleted = await its.staged("first");
  assert.equal((await its.call("DELETE", `/api/v1/uploads/${deleted.id}`)).status, 200);
  assert.equal((await its.put(deleted.uploadUrl, "late")).status, 404);

  const confirmed = await its.staged("first");
  assert.equal((await its.confirm(confirmed.id)).status, 200);
  assert.equal((await its.put(confirmed.uploadUrl, "late")).status, 404);
  assert.equal(its.bytesOf(confirmed.id), "first");
  its.check();

  await its.app.cleaner.runOnce();
  // The URL is still good, and the object has been removed once: it must not come back.
  assert.equal((await its.put(deleted.uploadUrl, "late")).status, 404);
  assert.equal((await its.put(confirmed.uploadUrl, "late")).status, 404);
  assert.deepEqual(its.files(), [its.keyOf(confirmed.id)]);
  await its.checkEnd();
});

test("a PUT that began before the delete, and ends after it, gets 404 and nothing of it is kept", async (t) => {
  const its = await startFaultyApp(t);
  const { id, uploadUrl } = await its.createUpload();
  const late = await halfPut(uploadUrl, its.dataDir);
  assert.equal((await its.call("DELETE", `/api/v1/uploads/${id}`)).status, 200);
  await its.app.cleaner.runOnce();
  assert.equal(await late.end("full"), 404);
  assert.deepEqual(its.files(), []);
  assert.deepEqual(rawTemporaryFiles(its.dataDir), []);
  await its.checkEnd();
});

test("a PUT that began before the confirm, and ends after it, gets 404 and the confirmed bytes stay", async (t) => {
  const its = await startFaultyApp(t);
  const { id, uploadUrl } = await its.staged("first");
  const late = await halfPut(uploadUrl, its.dataDir);
  assert.equal((await its.confirm(id)).status, 200);
  assert.equal(await late.end("full"), 404);
  assert.equal(its.usedBytes(), 5);
  await its.checkEnd();
  assert.equal(its.bytesOf(id), "first");
});

test("a PUT that began before its upload expired, and ends after it, gets 404 and nothing of it is kept", async (t) => {
  const its = await startFaultyApp(t);
  const { uploadUrl } = await its.createUpload();
  const late = await halfPut(uploadUrl, its.dataDir);
  its.clock.advance(2 * DAY_MS);
  assert.equal((await its.app.cleaner.runOnce()).expired, 1);
  assert.equal(await late.end("full"), 404);
  assert.deepEqual(its.files(), []);
  await its.checkEnd();
});

test("a staged object that is replaced between look and copy is not confirmed as the one that was looked at", async (t) => {
  const its = await startFaultyApp(t);
  const { id, uploadUrl } = await its.staged("first");
  const gate = createGate();
  its.hooks.before = ({ name }) => (name === "promote" ? gate.pass() : undefined);
  const outrun = its.confirm(id);
  await gate.reached;
  its.heal();
  assert.equal((await its.put(uploadUrl, "other")).status, 200);
  gate.open();
  assert.equal((await outrun).status, 503);
  assert.equal(its.statusOf(id), "pending");
  assert.equal(its.usedBytes(), 0);
  its.check();

  assert.equal((await its.confirm(id)).status, 200);
  await its.checkEnd();
  assert.equal(its.bytesOf(id), "other");
});

test("a staged object that vanishes between look and copy charges nothing", async (t) => {
  const its = await startFaultyApp(t);
  const { id } = await its.staged("first");
  its.hooks.before = async ({ name, keys: [stagingKey = ""] }) => {
    if (name === "promote") await rm(rawPathOf(its.dataDir, stagingKey));
  };
  assert.equal((await its.confirm(id)).status, 503);
  assert.equal((await its.confirm(id)).status, 422);
  assert.equal(its.usedBytes(), 0);
  await its.checkEnd();
});

test("two confirms of one upload with two bodies: one body is charged, once, and both are told which", async (t) => {
  const its = await startFaultyApp(t);
  const { id, uploadUrl } = await its.staged("first");
  const gate = createGate();
  its.hooks.before = ({ name }) => (name === "promote" ? gate.pass() : undefined);
  const first = its.confirm(id);
  await gate.reached;
  its.heal();
  assert.equal((await its.put(uploadUrl, "the second")).status, 200);
  const second = its.confirm(id);
  gate.open();
  const answers = await Promise.all([first, second]);
  assert.deepEqual(
    answers.map(({ status }) => status),
    [503, 200],
  );
  assert.equal(answers[1]?.json.data.size_bytes, 10);
  assert.equal((await its.confirm(id)).json.data.size_bytes, 10);
  assert.equal(its.usedBytes(), 10);
  await its.checkEnd();
  assert.equal(its.bytesOf(id), "the second");
});

test("ten confirms at once copy one object and charge it once", async (t) => {
  const its = await startFaultyApp(t);
  const { id } = await its.staged("first");
  let copies = 0;
  its.hooks.before = ({ name }) => {
    if (name === "promote") copies++;
  };
  const answers = await Promise.all(Array.from({ length: 10 }, () => its.confirm(id)));
  assert.deepEqual(
    answers.map(({ status, json }) => [status, json.data.size_bytes]),
    answers.map(() => [200, 5]),
  );
  assert.equal(copies, 1);
  assert.equal(its.usedBytes(), 5);
  await its.checkEnd();
});

test("someone else's confirm of an upload that is being confirmed gets its 404 without waiting", async (t) => {
  const its = await startFaultyApp(t);
  const stranger = await its.addOwner();
  const { id } = await its.staged("first");
  const gate = createGate();
  its.hooks.before = ({ name }) => (name === "promote" ? gate.pass() : undefined);
  const slow = its.confirm(id);
  await gate.reached;
  let status = 0;
  void its.confirm(id, stranger).then((answer) => {
    status = answer.status;
  });
  await until(() => status > 0, "the stranger's answer");
  assert.equal(status, 404);
  gate.open();
  assert.equal((await slow).status, 200);
  await its.checkEnd();
});

test("a confirm whose upload is deleted while it copies gets 404, and neither charge nor object stays", async (t) => {
  const its = await startFaultyApp(t);
  const { id } = await its.staged("first");
  const gate = createGate();
  its.hooks.after = ({ name }) => (name === "promote" ? gate.pass() : undefined);
  const overtaken = its.confirm(id);
  await gate.reached;
  assert.equal((await its.call("DELETE", `/api/v1/uploads/${id}`)).status, 200);
  its.heal();
  await its.app.cleaner.runOnce();
  gate.open();
  assert.equal((await overtaken).status, 404);
  assert.equal(its.usedBytes(), 0);
  its.check();
  await its.checkEnd();
  assert.deepEqual(its.files(), []);
});

test("two deletes of one upload at once: one 200, one 404, one release", async (t) => {
  const its = await startFaultyApp(t);
  const { id } = await its.confirmedUpload("first");
  const answers = await Promise.all([1, 2].map(() => its.call("DELETE", `/api/v1/uploads/${id}`)));
  assert.deepEqual(answers.map(({ status }) => status).sort(), [200, 404]);
  assert.equal(its.usedBytes(), 0);
  its.check();
  await its.checkEnd();
});

test("what lands under a key after its removal is removed when the URL has expired", async (t) => {
  const its = await startFaultyApp(t);
  const { id } = await its.staged("first");
  const key = its.keyOf(id);
  assert.equal((await its.call("DELETE", `/api/v1/uploads/${id}`)).status, 200);
  await its.app.cleaner.runOnce();
  const [entry] = its.entries();
  assert.equal(entry?.object_key, key);
  assert.ok(entry.due_at_ms > its.clock.now() && entry.due_at_ms <= its.clock.now() + 900_000);

  // The embedded store refuses such a PUT; others take it.
  const path = await putByHand(its.dataDir, key, Date.now());
  await its.app.cleaner.runOnce();
  assert.ok(existsSync(path));
  its.check();
  its.clock.advance(900_001);
  await its.app.cleaner.runOnce();
  assert.deepEqual(its.files(), []);
  assert.deepEqual(its.entries(), []);
});

test("the look through staging enters what nothing names and is older than its URL's life and a day, and nothing else", async (t) => {
  const its = await startFaultyApp(t);
  const { app, clock, dataDir } = its;
  const installationId = app.core.workspaces.installationId();
  const nowMs = clock.now();
  const isOldMs = nowMs - DAY_MS - 900_000 - 1_000;
  const random = (digit: string) => digit.repeat(32);

  const pending = await its.staged("named");
  const pendingPath = rawPathOf(dataDir, its.keyOf(pending.id));
  await utimes(pendingPath, isOldMs / 1_000, isOldMs / 1_000);
  const confirmed = await its.confirmedUpload("confirmed");
  const unknownId = "0190a000-0000-7000-8000-000000000000";
  const lateKey = `staging/${installationId}/${unknownId}/${random("a")}`;
  const youngKey = `staging/${installationId}/${unknownId}/${random("b")}`;
  // The row is there and names another key: a staging object of an earlier life is still nobody's.
  const otherKey = `staging/${installationId}/${confirmed.id}/${random("c")}`;
  for (const key of [lateKey, otherKey]) await putByHand(dataDir, key, isOldMs);
  await putByHand(dataDir, youngKey, isOldMs + 60_000);
  const strangersPath = await putByHand(dataDir, `staging/${installationId}/${unknownId}/README`, isOldMs);
  await app.cleaner.runOnce();

  assert.equal(await app.cleaner.lookForLateArrivals(), 2);
  assert.equal(await app.cleaner.lookForLateArrivals(), 0);
  await app.cleaner.runOnce();
  assert.deepEqual(
    its
      .files()
      .filter((key) => !key.endsWith("README"))
      .sort(),
    [its.keyOf(confirmed.id), ...[youngKey, its.keyOf(pending.id)].sort()],
  );
  clock.advance(61_000);
  assert.equal(await app.cleaner.lookForLateArrivals(), 1);
  await app.cleaner.runOnce();
  assert.ok(!its.files().includes(youngKey));
  assert.equal((await its.confirm(pending.id)).status, 200);
  assert.ok(existsSync(strangersPath));
  await rm(strangersPath);
  await its.checkEnd();
});

async function putByHand(dataDir: string, objectKey: string, modifiedAtMs: number): Promise<string> {
  const path = rawPathOf(dataDir, objectKey);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, "late");
  await utimes(path, modifiedAtMs / 1_000, modifiedAtMs / 1_000);
  return path;
}
