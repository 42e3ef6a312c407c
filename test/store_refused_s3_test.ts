// Goal: a store that refuses us when the service starts ends nothing: what can be done without it is done, and once it is
// set right the service notices by itself.
// Method: the real program on a real MinIO, through a proxy that answers in its place.
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { startFaultProxy } from "./_fault_proxy.ts";
import { initProgram, logLines, runProgram, type ServingProgram, serveProgram } from "./_process.ts";
import { s3Env } from "./_s3_app.ts";
import { useS3Server } from "./_s3_servers.ts";

const FILE = { filename: "a.bin", category: "file" };

/** Waits until `/ready` says this of the store. */
async function storeIs(server: ServingProgram, state: string): Promise<void> {
  for (let tries = 0; (await server.call("GET", "/ready")).json.store !== state; tries++) {
    assert.ok(tries < 200, `/ready never says that the store is ${state}`);
    await delay(100);
  }
}

for (const [code, hint] of [
  ["RequestTimeTooSkewed", /set this machine's clock or the store's/],
  ["AccessDenied", /service\.json/],
  ["InvalidAccessKeyId", /STOWAGE_S3_ACCESS_KEY/],
] as const) {
  test(`a store that answers ${code} at start: serve starts, deletes go on, and it goes on by itself once that is over`, async (t) => {
    const s3 = await useS3Server(t, "minio");
    if (s3 === null) return;
    const proxy = await startFaultProxy(t, s3.endpoint);
    const body = `<Error><Code>${code}</Code><Message>no</Message></Error>`;
    proxy.setFault({ kind: "answer", status: 403, body });
    const { dataDir, made } = await initProgram(t);
    const server = await serveProgram(t, dataDir, { env: s3Env(s3, s3.newBucketName(), proxy.url) });
    const key = made.api_key;

    const refused = logLines(server.stderr()).find(({ msg }) => msg === "store_refused");
    assert.equal(refused?.level, "error");
    assert.match(refused.error, hint);
    await storeIs(server, "unavailable");
    const { upload } = (await server.call("POST", "/api/v1/uploads", { key, body: FILE })).json.data;
    assert.equal((await server.call("DELETE", `/api/v1/uploads/${upload.id}`, { key })).status, 200);

    await proxy.heal();
    await server.says('"msg":"store_ready"');
    await storeIs(server, "ok");
    const again = (await server.call("POST", "/api/v1/uploads", { key, body: FILE })).json.data;
    assert.equal((await server.call("PUT", again.upload_url, { body: "x" })).status, 200);
    const context = { context_type: "workspace", context_id: made.workspace_id };
    const confirmed = await server.call("POST", `/api/v1/uploads/${again.upload.id}`, { key, body: context });
    assert.equal(confirmed.status, 200);
    const complaints = logLines(server.stderr()).filter(({ msg }) => msg === "store_refused");
    assert.equal(complaints.length, 1, "the same reason is told once");
  });
}

test("a store that is asked in vain is asked after longer and longer pauses, and ends with the service", async (t) => {
  const s3 = await useS3Server(t, "minio");
  if (s3 === null) return;
  const proxy = await startFaultProxy(t, s3.endpoint);
  proxy.setFault({ kind: "answer", status: 403, body: "<Error><Code>AccessDenied</Code></Error>" });
  const { dataDir } = await initProgram(t);
  const server = await serveProgram(t, dataDir, { env: s3Env(s3, s3.newBucketName(), proxy.url) });
  const asked = () =>
    proxy.requests.filter(({ query }) => query.includes("prefix=staging%2F&") || query.endsWith("staging%2F")).length;
  await delay(5_000);
  // At 0, 1 and 3 s; a slow machine may be late, and never early.
  assert.ok(asked() >= 2 && asked() <= 3, `asked ${asked()} times`);
  server.child.kill("SIGTERM");
  assert.equal((await server.ended).exitCode, 0);
});

test("a setting that cannot be right still stops the start, with its name", async (t) => {
  const { dataDir } = await initProgram(t);
  for (const [name, value] of [
    ["STOWAGE_S3_ENDPOINT", "http://127.0.0.1:9000/path"],
    ["STOWAGE_S3_ENDPOINT", "http://-no-host"],
    ["STOWAGE_S3_BUCKET", "no..bucket"],
  ] as const) {
    const env = {
      ...{ STOWAGE_DATA_DIR: dataDir, STOWAGE_STORE: "s3", STOWAGE_S3_ENDPOINT: "http://127.0.0.1:9000" },
      ...{ STOWAGE_S3_ACCESS_KEY: "key", STOWAGE_S3_SECRET_KEY: "secret", [name]: value },
    };
    const { exitCode, stderr } = await runProgram(t, ["serve"], env);
    assert.equal(exitCode, 1, `${name}=${value}`);
    assert.match(stderr, new RegExp(name));
  }
});
