// Goal: what a small request makes the service keep, send or hold is in proportion to it.
import assert from "node:assert/strict";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import Database from "better-sqlite3";
import { startTestApp, temporaryFolder } from "./_app.ts";
import { skipLoudly } from "./_loud_skip.ts";
import { runProgram } from "./_process.ts";
import { rawClient, rawRequest } from "./_raw_http.ts";
import { EMBEDDED_ONLY } from "./_test_store.ts";
import { until } from "./_until.ts";

test("a body with thousands of wrong items gets a short refusal that names the first", async (t) => {
  const app = await startTestApp(t);
  for (const part of ["nodes", "edges"]) {
    const body = JSON.stringify({ definition: { graph: { [part]: Array.from({ length: 30_000 }, () => 0) } } });
    const answer = await app.call("POST", "/api/v1/workflows", { body });
    assert.equal(answer.status, 422);
    assert.deepEqual(answer.json.error.details, [
      { field: `definition.graph.${part}.0`, message: "must be a JSON object" },
    ]);
  }
});

test("a parameter that is repeated without measure gets a short refusal", async (t) => {
  const app = await startTestApp(t);
  const many = await app.call("GET", `/api/v1/workflows?${"sort=a&".repeat(2_000)}`);
  assert.equal(many.status, 422);
  assert.ok(many.text.length < 1_000, `${many.text.length} characters`);
  assert.equal((await app.call("GET", "/api/v1/workflows?sort=name&sort=updated_at&order=asc&order=desc")).status, 200);
});

test("a refusal names twenty fields and how many more there are", async (t) => {
  const app = await startTestApp(t);
  const answer = await app.call(
    "GET",
    `/api/v1/workflows?${Array.from({ length: 15 }, () => "sort=a&order=b").join("&")}`,
  );
  assert.equal(answer.status, 422);
  assert.equal(answer.json.error.details.length, 20);
  assert.match(answer.json.error.message, /; and 10 more$/);
});

test("a definition that grows when it is written out is refused, at create and at change", async (t) => {
  const app = await startTestApp(t);
  const made = await app.call("POST", "/api/v1/workflows", { body: { name: "small" } });
  const body = `{"definition":{"x":[${Array.from({ length: 10_000 }, () => "1e20").join()}]}}`;
  assert.ok(body.length < 64 * 1024);
  for (const [method, path] of [
    ["POST", "/api/v1/workflows"],
    ["PATCH", `/api/v1/workflows/${made.json.data.id}`],
  ] as const) {
    const answer = await app.call(method, path, { body });
    assert.equal(answer.status, 413, method);
    assert.match(answer.json.error.message, /65536 are allowed/);
  }
  assert.equal(app.sql.prepare("SELECT max(length(definition_json)) FROM contexts").pluck().get(), 2);
});

test("pipelined downloads that are not read hold one file open for each connection", EMBEDDED_ONLY, async (t) => {
  if (process.platform !== "linux") return skipLoudly(t, "it counts open files in /proc", "run the tests on Linux");
  const app = await startTestApp(t, { quotaBytes: 100_000_000 });
  const { download_url } = await app.confirmedUpload(Buffer.alloc(20_000_000, "x"));
  const { pathname, search } = new URL(download_url);
  const client = await rawClient(t, app.app.url);
  client.socket.pause();
  client.send(rawRequest("GET", pathname + search).repeat(8));
  const held = () =>
    readdirSync("/proc/self/fd").filter((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`).startsWith(join(app.dataDir, "objects", "final"));
      } catch {
        return false;
      }
    }).length;
  await until(() => held() === 1, "the first is open");
  await new Promise((resolve) => setTimeout(resolve, 200));
  assert.equal(held(), 1);
  client.socket.resume();
  for (let i = 0; i < 8; i++) assert.equal((await client.answer()).text.length, 20_000_000);
  await until(() => held() === 0, "all are closed");
});

test("a file that is larger than all that may be unconfirmed at once is 413, not a 429 to be tried again", async (t) => {
  const app = await startTestApp(t, { env: { STOWAGE_STAGED_BYTES_MAX: "1000" } });
  const body = { filename: "a.bin", category: "file", size_bytes: 1_001 };
  const answer = await app.call("POST", "/api/v1/uploads", { body });
  assert.equal(answer.status, 413);
  assert.match(answer.json.error.message, /1000 bytes at once/);
  assert.equal(answer.headers["retry-after"], undefined);
});

test("init leaves a data directory of an older version as it is", async (t) => {
  const dataDir = await temporaryFolder(t);
  const db = new Database(join(dataDir, "stowage.db"));
  db.exec(readFileSync(new URL("./_schema_1.sql", import.meta.url), "utf8"));
  db.pragma("user_version = 1");
  db.close();
  const { exitCode, stderr } = await runProgram(t, ["init"], { STOWAGE_DATA_DIR: dataDir });
  assert.equal(exitCode, 1);
  assert.match(stderr, /schema version 1 is older/);
  const after = new Database(join(dataDir, "stowage.db"), { readonly: true });
  assert.equal(after.pragma("user_version", { simple: true }), 1);
  after.close();
});
