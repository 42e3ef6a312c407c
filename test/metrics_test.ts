import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { createServer } from "node:net";
import { type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { request } from "undici";
import { openApp } from "../lib/app.ts";
import { readConfig } from "../lib/config/config.ts";
import { AppError } from "../lib/errors.ts";
import { createMetrics } from "../lib/metrics/metrics.ts";
import { metricsRoutes } from "../lib/routes/metrics.ts";
import { initDataDir, silentLog, startTestApp, temporaryFolder, testConfig } from "./_app.ts";
import { type FaultyApp, startFaultyApp } from "./_faulty_app.ts";
import { noAnswer } from "./_faulty_store.ts";
import { skipLoudly } from "./_loud_skip.ts";
import { scrape } from "./_metrics_page.ts";
import { rawClient, startHttpServer } from "./_raw_http.ts";
import { findBinary } from "./_s3_servers.ts";

const REQUESTS = "stowage_http_requests_total";
const SECONDS = "stowage_http_request_duration_seconds";
const REMOVALS = "stowage_removals_total";
const ENTRIES = "stowage_outbox_entries";

/** Something of everything: requests good and bad, a life of an upload, removals that work, fail and are put off. */
async function busyApp(t: TestContext): Promise<FaultyApp> {
  const its = await startFaultyApp(t);
  const { app, call, hooks } = its;
  await its.createUpload({ size_bytes: 7 });
  const kept = await its.confirmedUpload("kept");
  const gone = await its.confirmedUpload("gone");
  await call("DELETE", `/api/v1/uploads/${gone.id}`);
  const unfilled = await its.createUpload();
  assert.equal((await its.confirm(unfilled.id)).status, 422);
  await app.cleaner.runOnce();
  await call("DELETE", `/api/v1/uploads/${kept.id}`);
  hooks.before = ({ name }) => {
    if (name === "remove") throw noAnswer();
  };
  await app.cleaner.runOnce();
  its.heal();
  hooks.refuse = (keys) => new Map(keys.map((key) => [key, "no"]));
  await app.cleaner.runOnce();
  its.heal();
  await call("GET", "/api/v1/uploads", { key: "op_live_wrong" });
  await call("GET", "/somewhere/else");
  return its;
}

test("requests are counted by the pattern of their route and by status, whatever the path", async (t) => {
  const { app, call, addOwner } = await startTestApp(t);
  const { id } = (await call("POST", "/api/v1/uploads", { body: { filename: "a.bin", category: "file" } })).json.data
    .upload;
  await call("GET", `/api/v1/uploads/${id}`);
  await call("GET", `/api/v1/uploads/${id}`, { key: (await addOwner()).key });
  for (const path of ["/", "/nothing", "/api/v1/nothing/here", `/${"x".repeat(500)}`]) await call("GET", path);
  await call("GET", "/api/v1/auth/whoami", { key: "" });
  await call("PROPFIND", "/health");
  await call("SEARCH", "/health");
  const client = await rawClient(t, app.url);
  client.send("this is not HTTP\r\n\r\n");
  await client.answer();

  const page = await scrape(app.metricsUrl);
  assert.equal(page.contentType, "text/plain; version=0.0.4; charset=utf-8");
  const route = "/api/v1/uploads/:upload_id";
  assert.equal(page.value(REQUESTS, { method: "POST", route: "/api/v1/uploads", status: 201 }), 1);
  assert.equal(page.value(REQUESTS, { method: "GET", route, status: 200 }), 1);
  assert.equal(page.value(REQUESTS, { method: "GET", route, status: 404 }), 1);
  assert.equal(page.value(REQUESTS, { route: "/api/v1/auth/whoami", status: 401 }), 1);
  assert.equal(page.value(REQUESTS, { method: "GET", route: "(unmatched)", status: 404 }), 4);
  assert.equal(page.value(REQUESTS, { method: "other", route: "/health", status: 405 }), 2);
  assert.equal(page.value(REQUESTS, { method: "other", route: "(refused)", status: 400 }), 1);
  assert.equal(page.labelsOf(REQUESTS).length, 7, "and no other");

  assert.equal(page.value(`${SECONDS}_count`, { method: "GET", route }), 2);
  assert.ok(page.value(`${SECONDS}_sum`, { method: "GET", route }) > 0);
  assert.equal(page.value(`${SECONDS}_count`, { route: "(refused)" }), 0);
  assert.equal((await scrape(app.metricsUrl)).value(REQUESTS, { route: "/metrics", status: 200 }), 1);
  assert.equal((await request(app.metricsUrl, { method: "HEAD" })).statusCode, 200);
});

test("a histogram of requests adds up: each bucket holds those below it, the last one all", async (t) => {
  const metrics = createMetrics({ store: "disk", now: Date.now });
  t.after(metrics.close);
  // Exactly on a bound counts as within it.
  for (const durationMs of [0, 1, 1.001, 60_000, 60_001]) {
    metrics.onAnswered({ method: "GET", route: "/a", status: 200, durationMs });
  }
  const outbox = { due: 0, failing: 0, waiting: 0, oldestDueSinceMs: null, deletedOverdue: 0 };
  const totals = { bytesUsed: 0, uploadsPending: 0, bytesPendingStated: 0, outbox };
  const text = await metrics.render({ totals, log: { logBytes: 0, heldUpMs: 0 }, isPaused: false, nowMs: 0 });
  const buckets = [...text.matchAll(/_request_duration_seconds_bucket\{le="([^"]+)",.*\} (\d+)/g)];
  assert.deepEqual(
    buckets.map(([, le, count]) => `${le}: ${count}`),
    [
      "0.001: 2",
      "0.0025: 3",
      "0.005: 3",
      "0.01: 3",
      "0.025: 3",
      "0.05: 3",
      "0.1: 3",
      "0.25: 3",
      "0.5: 3",
      "1: 3",
    ].concat(["2.5: 3", "10: 3", "60: 4", "+Inf: 5"]),
  );
  assert.match(text, /_request_duration_seconds_sum\{.*\} 120\.003/);
  assert.match(text, /_request_duration_seconds_count\{.*\} 5$/m);
});

test("the figures follow an upload from its creation to its removal", async (t) => {
  const its = await startFaultyApp(t);
  const { app, call, put } = its;
  const figures = async () => {
    const page = await scrape(app.metricsUrl);
    return {
      pending: page.value("stowage_pending_uploads"),
      stated: page.value("stowage_pending_stated_bytes"),
      used: page.value("stowage_storage_used_bytes"),
      due: page.value(ENTRIES, { state: "due" }),
      waiting: page.value(ENTRIES, { state: "waiting" }),
      done: page.value(REMOVALS, { result: "done" }),
    };
  };
  const nothing = { pending: 0, stated: 0, used: 0, due: 0, waiting: 0, done: 0 };
  assert.deepEqual(await figures(), nothing);
  const { id, uploadUrl } = await its.createUpload({ size_bytes: 5 });
  await its.createUpload();
  assert.deepEqual(await figures(), { ...nothing, pending: 2, stated: 5 });
  await put(uploadUrl, "12345");
  assert.equal((await its.confirm(id)).status, 200);
  assert.deepEqual(await figures(), { ...nothing, pending: 1, used: 5, due: 1 });
  const other = await its.addOwner();
  await its.confirmedUpload("another's", { owner: other });
  assert.equal((await figures()).used, 14);
  await app.cleaner.runOnce();
  // Staging keys are removed once more when their URL has expired.
  assert.deepEqual(await figures(), { ...nothing, pending: 1, used: 14, waiting: 2, done: 2 });
  await call("DELETE", `/api/v1/uploads/${id}`);
  assert.deepEqual(await figures(), { ...nothing, pending: 1, used: 9, due: 1, waiting: 2, done: 2 });
  await app.cleaner.runOnce();
  const page = await scrape(app.metricsUrl);
  assert.equal(page.value(REMOVALS, { kind: "final", result: "done" }), 1);
  assert.equal(page.value(REMOVALS, { kind: "staging", result: "done" }), 2);
  for (const operation of ["stat", "promote", "remove"]) {
    assert.equal(page.value("stowage_store_call_duration_seconds_count", { operation }), 2, operation);
  }
  assert.equal(page.value("stowage_store_call_failures_total"), 0);
});

test("removals that fail and removals that are put off are told apart, and age", async (t) => {
  const its = await startFaultyApp(t);
  const { app, call, hooks, clock } = its;
  const { id } = await its.confirmedUpload("object");
  await app.cleaner.runOnce();
  await call("DELETE", `/api/v1/uploads/${id}`);
  hooks.before = ({ name }) => {
    if (name === "remove") throw noAnswer();
  };
  await app.cleaner.runOnce();
  let page = await scrape(app.metricsUrl);
  assert.equal(page.value(REMOVALS, { kind: "final", result: "postponed" }), 1);
  assert.equal(page.value(REMOVALS, { result: "failed" }), 0);
  assert.equal(page.value("stowage_store_call_failures_total", { operation: "remove", failure: "unavailable" }), 1);
  assert.equal(page.value(ENTRIES, { state: "due" }), 1);

  its.heal();
  hooks.refuse = (keys) => new Map(keys.map((key) => [key, "no"]));
  await app.cleaner.runOnce();
  page = await scrape(app.metricsUrl);
  assert.equal(page.value(REMOVALS, { kind: "final", result: "failed" }), 1);
  assert.equal(page.value(ENTRIES, { state: "failing" }), 1);
  assert.equal(page.value(ENTRIES, { state: "due" }), 0);

  // Its next attempt lies ahead, and still it is as old as it is. The second removal of the staging key is not.
  clock.advance(600_000);
  page = await scrape(app.metricsUrl);
  const age = page.value("stowage_outbox_oldest_due_age_seconds");
  assert.ok(age > 590 && age < 660, `${age} s`);
  assert.equal(page.value(ENTRIES, { state: "waiting" }), 1);
  its.heal();
  await app.cleaner.runOnce();
  assert.equal((await scrape(app.metricsUrl)).value("stowage_outbox_oldest_due_age_seconds"), 0);
});

test("calls to an S3 server are counted request by request, those that found none too", async (t) => {
  const { app } = await startTestApp(t, {
    cleansInBackground: false,
    env: {
      STOWAGE_STORE: "s3",
      // Nothing listens on the port of tcpmux.
      STOWAGE_S3_ENDPOINT: "http://127.0.0.1:1",
      STOWAGE_S3_ACCESS_KEY: "key",
      STOWAGE_S3_SECRET_KEY: "secret-key",
    },
  });
  const page = await scrape(app.metricsUrl);
  const failed = page.value("stowage_store_call_failures_total", { failure: "unavailable" });
  assert.ok(failed >= 1);
  assert.equal(page.value("stowage_store_call_duration_seconds_count"), failed);
  assert.equal(page.value("stowage_build_info", { store: "s3" }), 1);
});

test("commits, the writes that they hold, and groups that were lost are counted", async (t) => {
  const { app, sql, createUpload, call } = await startTestApp(t, { cleansInBackground: false });
  const before = await scrape(app.metricsUrl);
  await Promise.all(Array.from({ length: 30 }, () => createUpload()));
  const after = await scrape(app.metricsUrl);
  const grown = (name: string) => after.value(name) - before.value(name);
  assert.equal(grown("stowage_db_group_writes_sum"), 30);
  assert.ok(grown("stowage_db_group_writes_count") >= 1);
  assert.ok(grown("stowage_db_group_writes_count") <= 30);
  assert.equal(grown("stowage_db_commit_duration_seconds_count"), grown("stowage_db_group_writes_count"));
  assert.ok(grown("stowage_db_commit_duration_seconds_sum") > 0);
  assert.equal(after.value("stowage_db_failed_groups_total"), 0);

  sql.exec("CREATE TRIGGER test_fault BEFORE INSERT ON uploads BEGIN SELECT RAISE(ROLLBACK, 'everything goes'); END");
  assert.equal((await call("POST", "/api/v1/uploads", { body: { filename: "a", category: "file" } })).status, 503);
  sql.exec("DROP TRIGGER test_fault");
  const failed = await scrape(app.metricsUrl);
  assert.equal(failed.value("stowage_db_failed_groups_total"), 1);
  assert.equal(
    failed.value("stowage_db_commit_duration_seconds_count"),
    after.value("stowage_db_commit_duration_seconds_count"),
  );
});

test("a stall of the event loop shows in its lag", { timeout: 20_000 }, async (t) => {
  const { app } = await startTestApp(t);
  const stallUntilMs = performance.now() + 400;
  while (performance.now() < stallUntilMs);
  // Looked at ten times a second: of 400 ms at least the last 300 are seen.
  const lag = async () => (await scrape(app.metricsUrl)).value("stowage_event_loop_lag_seconds_sum");
  while ((await lag()) < 0.25) await delay(10);
});

test("no label says whose something is, or which", async (t) => {
  const its = await busyApp(t);
  const { text } = await scrape(its.app.metricsUrl);
  const { owner, sql } = its;
  const ids = sql
    .prepare<[], string>("SELECT upload_id FROM storage_events UNION SELECT id FROM uploads")
    .pluck()
    .all();
  assert.ok(ids.length >= 3);
  const installationId = its.app.core.workspaces.installationId();
  for (const id of [...ids, ...Object.values(owner), installationId, "file.bin"]) {
    assert.ok(!text.includes(id), id);
  }
});

test("promtool finds nothing to say about the page", async (t) => {
  const promtool = findBinary("promtool");
  if (promtool === null) {
    return skipLoudly(t, "promtool is not installed", "run ./scripts/install_promtool, or put promtool on the PATH");
  }
  const its = await busyApp(t);
  const { text } = await scrape(its.app.metricsUrl);
  const check = (page: string) => spawnSync(promtool, ["check", "metrics"], { input: page, encoding: "utf8" });
  const { status, stdout, stderr } = check(text);
  assert.deepEqual([status, stdout, stderr], [0, "", ""]);
  // It does look: a counter without its suffix, a text that breaks off.
  assert.notEqual(check(text.replaceAll("stowage_http_requests_total", "stowage_http_requests")).status, 0);
  assert.notEqual(check(text.slice(0, text.indexOf('status="'))).status, 0);
});

test("docs/metrics.md lists every metric as it is, and its labels", async (t) => {
  const docs = await readFile(new URL("../docs/metrics.md", import.meta.url), "utf8");
  const its = await busyApp(t);
  const page = await scrape(its.app.metricsUrl);
  const rows = page.families.map(({ name, type, help }) => {
    const labels = new Set(page.labelsOf(name).flatMap((each) => Object.keys(each)));
    labels.delete("le");
    const names = [...labels].map((label) => `\`${label}\``).sort();
    return `| \`${name}\` | ${type} | ${names.join(", ")} | ${help} |`;
  });
  const table = /<!-- metrics -->\n(.*?)<!-- \/metrics -->/s.exec(docs)?.[1] ?? "";
  assert.equal(table, ["| name | type | labels | meaning |", "|---|---|---|---|", ...rows, ""].join("\n"));
  for (const [name = ""] of docs.matchAll(/\bstowage_[a-z_]+/g)) {
    const base = name.replace(/_(bucket|sum|count)$/, "");
    assert.ok(
      page.families.some((family) => family.name === name || family.name === base),
      `${name} is no metric`,
    );
  }
});

test("with a port of its own the page is there and nowhere else, and nothing else is there", async (t) => {
  const { app, call, config } = await startTestApp(t, { env: { STOWAGE_METRICS_PORT: "0" } });
  assert.equal(config.metricsPort, 0);
  const url = new URL(app.metricsUrl);
  assert.notEqual(url.origin, new URL(app.url).origin);
  assert.equal(url.hostname, new URL(app.url).hostname);
  assert.equal((await call("GET", "/metrics")).status, 404);
  assert.equal((await request(`${url.origin}/health`)).statusCode, 404);
  assert.equal((await call("GET", "/health")).status, 200);
  assert.equal((await scrape(app.metricsUrl)).value(REQUESTS, { route: "/health", status: 200 }), 1);
});

test("a metrics port that cannot be used is an error that names the setting", async (t) => {
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
  t.after(() => new Promise((resolve) => taken.close(resolve)));
  const address = taken.address();
  assert.ok(typeof address === "object" && address !== null);
  const config = testConfig(`${await temporaryFolder(t)}/data`, { STOWAGE_METRICS_PORT: String(address.port) });
  await initDataDir(config, 1_000);
  const options = { config, log: silentLog, onFatal: assert.ifError };
  await assert.rejects(openApp(options), (error) => {
    assert.ok(error instanceof AppError);
    assert.match(`${error.message} ${error.hint}`, /Cannot listen on .*: another process uses .*STOWAGE_METRICS_PORT/);
    return true;
  });
  assert.throws(
    () => readConfig({ STOWAGE_PORT: "8000", STOWAGE_METRICS_PORT: "8000" }),
    /STOWAGE_METRICS_PORT must be another port than STOWAGE_PORT \(8000\)/,
  );
  readConfig({ STOWAGE_PORT: "0", STOWAGE_METRICS_PORT: "0" });
});

test("while the tables cannot be read the rest of the page still is, with the latest figures", async (t) => {
  const { app, sql, confirmedUpload } = await startTestApp(t, { cleansInBackground: false });
  await confirmedUpload("12345");
  assert.equal((await scrape(app.metricsUrl)).value("stowage_storage_used_bytes"), 5);
  sql.exec("ALTER TABLE object_removals RENAME TO mislaid");
  const page = await scrape(app.metricsUrl);
  sql.exec("ALTER TABLE mislaid RENAME TO object_removals");
  assert.equal(page.value("stowage_storage_used_bytes"), 5);
  assert.equal(page.value(REQUESTS, { route: "/metrics" }), 1);
});

test("a scrape does not wait for tables that take too long; before there are figures they are no numbers", {
  timeout: 20_000,
}, async (t) => {
  const metrics = createMetrics({ store: "disk", now: Date.now });
  t.after(metrics.close);
  const [route] = metricsRoutes({
    metrics,
    totals: { read: () => new Promise(() => {}) },
    logFigures: () => ({ logBytes: 0, heldUpMs: 0 }),
    isPaused: () => true,
    log: silentLog,
    now: Date.now,
    totalsMsMax: 1,
  });
  assert.ok(route !== undefined);
  const { url } = await startHttpServer(t, { routes: [route] });
  const page = await scrape(`${url}/metrics`);
  assert.ok(Number.isNaN(page.value("stowage_storage_used_bytes")));
  assert.equal(page.value("stowage_cleaner_paused"), 1);
  assert.equal(page.value("stowage_build_info", { store: "disk", node: process.versions.node }), 1);
});
