import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { StoreError } from "../lib/store/objects.ts";
import { type Answer, startTestApp } from "./_app.ts";
import { until } from "./_until.ts";

const { version } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
/** How long /ready keeps an answer, and a little. */
const READY_KEPT_MS = 550;

function assertUnavailable({ status, json, headers }: Answer): void {
  assert.equal(status, 503);
  assert.equal(json.error.code, "STORAGE_UNAVAILABLE");
  assert.match(json.meta.request_id, /^[0-9A-Z]{26}$/);
  assert.equal(headers["retry-after"], "1");
}

test("health and ready tell the version, without envelope", async (t) => {
  const { call } = await startTestApp(t);
  const health = await call("GET", "/health", { key: "" });
  assert.equal(health.status, 200);
  assert.deepEqual(health.json, { status: "ok", version });
  const ready = await call("GET", "/ready", { key: "" });
  assert.equal(ready.status, 200);
  assert.deepEqual(ready.json, { status: "ok", version, database: "ok", store: "ok" });
});

test("a store that fails, or does not answer, is a field of ready, not a failure", async (t) => {
  let probe: () => Promise<void> = async () => {
    throw new StoreError("unavailable", "down");
  };
  const { call, createUpload } = await startTestApp(t, {
    wrapStore: (objects) => ({ ...objects, probe: () => probe() }),
  });
  const failed = await call("GET", "/ready");
  assert.equal(failed.status, 200);
  assert.deepEqual(failed.json, { status: "ok", version, database: "ok", store: "unavailable" });
  const { id } = await createUpload();
  assert.equal((await call("DELETE", `/api/v1/uploads/${id}`)).status, 200, "deletes go on");

  probe = () => new Promise(() => {});
  await new Promise((resolve) => setTimeout(resolve, READY_KEPT_MS));
  const silent = await call("GET", "/ready");
  assert.equal(silent.status, 200);
  assert.equal(silent.json.store, "unavailable");
  probe = async () => {};
  await until(async () => (await call("GET", "/ready")).json.store === "ok", "the store is found to be back");
});

test("while the store hangs, ready answers from what was known, and the next answer tells", async (t) => {
  let probe = async (): Promise<void> => {};
  const { call } = await startTestApp(t, { wrapStore: (objects) => ({ ...objects, probe: () => probe() }) });
  assert.equal((await call("GET", "/ready")).json.store, "ok");
  const { promise: never, reject } = Promise.withResolvers<void>();
  probe = () => never;
  await new Promise((resolve) => setTimeout(resolve, READY_KEPT_MS));
  // The probe is still under way: its answer is not waited for.
  assert.equal((await call("GET", "/ready")).json.store, "ok");
  reject(new StoreError("unavailable", "down"));
  assert.equal((await call("GET", "/ready")).json.store, "unavailable");
});

test("many who ask at once share one look", async (t) => {
  let probes = 0;
  const { call } = await startTestApp(t, {
    wrapStore: (objects) => ({
      ...objects,
      async probe() {
        probes++;
      },
    }),
  });
  // A start asks an S3 store as well.
  probes = 0;
  const answers = await Promise.all(Array.from({ length: 20 }, () => call("GET", "/ready")));
  assert.ok(answers.every(({ status }) => status === 200));
  assert.equal(probes, 1);
});

test("ready is 503 while the database cannot be written, and so is a write; reads and health go on", async (t) => {
  const { call, sql, createUpload } = await startTestApp(t);
  const { id } = await createUpload();
  sql.exec("BEGIN IMMEDIATE");
  const [ready, deleted, health, read] = await Promise.all([
    call("GET", "/ready"),
    call("DELETE", `/api/v1/uploads/${id}`),
    call("GET", "/health"),
    call("GET", `/api/v1/uploads/${id}`),
  ]);
  assertUnavailable(ready);
  assertUnavailable(deleted);
  assert.equal(health.status, 200);
  assert.equal(read.status, 200);
  sql.exec("ROLLBACK");
  await new Promise((resolve) => setTimeout(resolve, READY_KEPT_MS));
  assert.equal((await call("GET", "/ready")).status, 200);
  assert.equal((await call("DELETE", `/api/v1/uploads/${id}`)).status, 200, "the refused delete did nothing");
});

test("ready is 503 where a write fails at once", async (t) => {
  const { call, sql } = await startTestApp(t);
  sql.exec("CREATE TRIGGER refuse BEFORE UPDATE ON installation BEGIN SELECT RAISE(ABORT, 'no'); END");
  assertUnavailable(await call("GET", "/ready"));
});
