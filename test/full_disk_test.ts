// Goal: a full disk does not keep the service from starting: reads and deletes go on, by which room is won back.
// Method: the real program on a small file system that is filled to its last page.
import assert from "node:assert/strict";
import { existsSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { freeBytesOf } from "../lib/db/free_space.ts";
import { confirmUploads, fillDisk, isRoot, mountSmallDisk } from "./_operator.ts";
import { type InitOutput, runProgram, type ServingProgram, serveProgram } from "./_process.ts";
import { until } from "./_until.ts";

const MIB = 1024 * 1024;
const UPLOADS = 40;

interface OnSmallDisk {
  disk: string;
  dataDir: string;
  env: Record<string, string>;
  owner: { key: string; workspaceId: string };
  server: ServingProgram;
  ids: string[];
}

async function startOnSmallDisk(t: TestContext): Promise<OnSmallDisk> {
  const disk = mountSmallDisk(t, 64 * MIB);
  const dataDir = join(disk, "data");
  const env = { STOWAGE_DATA_DIR: dataDir, STOWAGE_MIN_FREE_BYTES: String(16 * MIB) };
  const made: InitOutput = JSON.parse((await runProgram(t, ["init", "--json"], env)).stdout);
  const owner = { key: made.api_key, workspaceId: made.workspace_id };
  const server = await serveProgram(t, dataDir, { env });
  assert.equal(statSync(join(dataDir, "stowage.reserve")).size, 8 * MIB);
  return { disk, dataDir, env, owner, server, ids: await confirmUploads(server, owner, UPLOADS) };
}

/** Reads go on, nothing new is taken, and everything can be deleted. */
async function readsAndDeletes({ call }: ServingProgram, { owner, ids }: OnSmallDisk): Promise<void> {
  const created = await call("POST", "/api/v1/uploads", { ...owner, body: { filename: "a.bin", category: "file" } });
  assert.equal(created.status, 507, created.text);
  for (const id of ids) {
    const got = await call("GET", `/api/v1/uploads/${id}`, owner);
    assert.equal(got.status, 200, got.text);
    assert.equal((await call("GET", got.json.data.download_url)).status, 200);
    const deleted = await call("DELETE", `/api/v1/uploads/${id}`, owner);
    assert.equal(deleted.status, 200, deleted.text);
  }
  const usage = await call("GET", "/api/v1/usage/summary", owner);
  assert.match(usage.text, /"bytes_used":0/);
}

/** Doctor finds nothing but that the disk is small. */
async function isSound(t: TestContext, { env }: OnSmallDisk): Promise<void> {
  const { stdout } = await runProgram(t, ["doctor", "--json"], env);
  const findings: { check: string; result: string }[] = JSON.parse(stdout).findings;
  assert.deepEqual(
    findings.filter(({ result }) => result !== "ok").map(({ check }) => check),
    ["files"],
    stdout,
  );
}

for (const signal of ["SIGTERM", "SIGKILL"] as const) {
  test(`after ${signal} and with a full disk it starts, serves reads and deletes, and keeps a reserve again later`, async (t) => {
    if (!isRoot(t)) return;
    const its = await startOnSmallDisk(t);
    its.server.child.kill(signal);
    await its.server.ended;
    const filler = fillDisk(its.disk);
    assert.ok(freeBytesOf(its.dataDir) < 4_096);

    const onFull = await serveProgram(t, its.dataDir, { env: its.env });
    assert.match(onFull.stderr(), /"msg":"reserve_released"/);
    assert.equal(existsSync(join(its.dataDir, "stowage.reserve")), false);
    await readsAndDeletes(onFull, its);
    const doctor = await runProgram(t, ["doctor"], its.env);
    assert.equal(doctor.exitCode, 1);
    assert.match(doctor.stdout, /^problem +files +\d+ bytes are free: below STOWAGE_MIN_FREE_BYTES/m);
    assert.match(doctor.stdout, /^ok +BOOKS/m);
    onFull.child.kill("SIGTERM");
    assert.equal((await onFull.ended).exitCode, 0);

    rmSync(filler);
    const after = await serveProgram(t, its.dataDir, { env: its.env });
    assert.equal(statSync(join(its.dataDir, "stowage.reserve")).size, 8 * MIB);
    assert.equal((await confirmUploads(after, its.owner, 1)).length, 1);
    await isSound(t, its);
  });
}

test("a disk that gets full while it runs: the reserve is given, and deletes go on", async (t) => {
  if (!isRoot(t)) return;
  const its = await startOnSmallDisk(t);
  const filler = fillDisk(its.disk);
  const { call } = its.server;
  // What was answered with 503 was not done, or is shown to be done when it is asked for again.
  for (const id of its.ids) {
    for (let attempt = 0; ; attempt++) {
      const { status, text } = await call("DELETE", `/api/v1/uploads/${id}`, its.owner);
      if (status === 200 || status === 404) break;
      assert.equal(status, 503, text);
      assert.ok(attempt < 10, "the reserve lets deletes go on");
    }
  }
  const list = await call("GET", "/api/v1/uploads", its.owner);
  assert.equal(list.json.pagination.total, 0);
  rmSync(filler);
  its.server.child.kill("SIGTERM");
  assert.equal((await its.server.ended).exitCode, 0);
  await isSound(t, its);
});

test("a second serve on a full disk leaves the running server its reserve", async (t) => {
  if (!isRoot(t)) return;
  const its = await startOnSmallDisk(t);
  fillDisk(its.disk);
  const { exitCode, stderr } = await runProgram(t, ["serve"], its.env);
  assert.equal(exitCode, 1);
  assert.match(stderr, /is already served by process \d+ at http/);
  assert.doesNotMatch(stderr, /"msg":"reserve_released"/);
  // The running server may need its reserve itself by now, for a write of its cleaner. Nobody else may take it.
  const reserve = statSync(join(its.dataDir, "stowage.reserve"), { throwIfNoEntry: false });
  if (reserve !== undefined) assert.equal(reserve.size, 8 * MIB);
  // It says so only after it has done it.
  else
    await until(() => its.server.stderr().includes('"msg":"reserve_released"'), "the running server gave its reserve");
});
