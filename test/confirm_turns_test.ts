// Goal: slow copies and long texts keep nothing from anyone else: not the store's connections, not the place of another
// workspace, and not the time of a lease.
// Method: the real service with a real MinIO behind a proxy that holds copies; and with a store whose reads are held.
import assert from "node:assert/strict";
import { test } from "node:test";
import { startTestApp } from "./_app.ts";
import { startFaultProxy } from "./_fault_proxy.ts";
import { startFaultyApp } from "./_faulty_app.ts";
import { createGate } from "./_faulty_store.ts";
import { s3Env } from "./_s3_app.ts";
import { useS3Server } from "./_s3_servers.ts";
import { until } from "./_until.ts";

/** Half of the store's connections for copies: what one workspace may hold. */
const SHARE = 16;

test("one workspace's slow copies leave /ready, short calls and another workspace's confirms alone, and what waits holds no lease", async (t) => {
  const server = await useS3Server(t, "minio");
  if (server === null) return;
  const proxy = await startFaultProxy(t, server.endpoint);
  const its = await startTestApp(t, { env: s3Env(server, server.newBucketName(), proxy.url) });
  const leases = its.sql.prepare<[], number>("SELECT count(*) FROM object_removals WHERE object_key LIKE 'final/%'");
  const uploads = await Promise.all(Array.from({ length: SHARE + 4 }, () => its.createUpload()));
  for (const { uploadUrl } of uploads) assert.equal((await its.put(uploadUrl, "slow")).status, 200);

  const held = proxy.setFault({ kind: "hold", match: { header: ["x-amz-copy-source", /./] }, times: SHARE });
  const confirms = uploads.map(({ id }) => its.confirm(id));
  await until(() => held.hits() === SHARE, "the copies are held");
  const ready = await its.call("GET", "/ready", { key: "" });
  assert.deepEqual([ready.status, ready.json.store], [200, "ok"]);
  const other = await its.addOwner();
  await its.confirmedUpload("quick", { owner: other });
  const mine = await its.createUpload();
  assert.equal((await its.call("DELETE", `/api/v1/uploads/${mine.id}`)).status, 200);
  assert.equal(leases.pluck().get(), SHARE);

  // Those that got no turn are told so, and were not begun.
  const refused = await firstRefusals(confirms, 4);
  assert.deepEqual(
    refused.map(({ status, json, headers }) => [status, json.error.code, headers["retry-after"]]),
    Array.from({ length: 4 }, () => [503, "STORAGE_UNAVAILABLE", "10"]),
  );
  assert.equal(leases.pluck().get(), SHARE);
  held.release();
  const answers = await Promise.all(confirms);
  assert.equal(answers.filter(({ status }) => status === 200).length, SHARE);
  for (const [i, { id }] of uploads.entries()) {
    if (answers[i]?.status !== 200) assert.equal((await its.confirm(id)).status, 200);
  }
});

/** Resolves with the first answers that are no success. */
function firstRefusals<T extends { status: number }>(answers: readonly Promise<T>[], count: number): Promise<T[]> {
  const refused: T[] = [];
  return new Promise((resolve) => {
    for (const answer of answers) {
      void answer.then((one) => {
        if (one.status !== 200) refused.push(one);
        if (refused.length === count) resolve(refused);
      });
    }
  });
}

test("of huge texts one for each workspace and two in all are counted at once; others wait without a lease, and small ones pass", async (t) => {
  const its = await startFaultyApp(t, { quotaBytes: 1_000_000_000 });
  const owners = [its.owner, await its.addOwner(), await its.addOwner()];
  const text = Buffer.alloc(5 * 1024 * 1024, "word ");
  const script = { filename: "text.txt", category: "script" };
  const huge: { id: string; owner: (typeof owners)[number] }[] = [];
  for (const owner of [...owners, ...owners]) {
    const { id, uploadUrl } = await its.createUpload({ ...script, key: owner.key });
    assert.equal((await its.put(uploadUrl, text)).status, 200);
    huge.push({ id, owner });
  }
  const gate = createGate();
  const reads: string[] = [];
  its.hooks.before = ({ name, keys: [key = ""] }) => {
    if (name !== "read" || !huge.some(({ id }) => key.includes(id))) return;
    reads.push(key.split("/")[2] ?? "");
    return gate.pass();
  };
  const confirms = huge.map(({ id, owner }) => its.confirm(id, owner));
  await until(() => reads.length === 2, "two texts are counted");
  await its.confirmedUpload("small", script);
  await its.confirmedUpload("no text");
  assert.equal(reads.length, 2);
  const ownersOf = reads.map((read) => huge.find(({ id }) => id === read)?.owner.workspaceId);
  assert.equal(new Set(ownersOf).size, 2, "they belong to two workspaces");
  assert.equal(its.entries().filter(({ object_key }) => object_key.startsWith("final/")).length, 2);
  gate.open();
  for (const { status, json } of await Promise.all(confirms)) {
    assert.equal(status, 200);
    assert.equal(json.data.char_count, text.length - 1);
  }
  await its.checkEnd();
});
