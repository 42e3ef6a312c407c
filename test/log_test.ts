import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { createLog, type LogFields, type LogOptions } from "../lib/log.ts";
import { initProgram, logLines, serveProgram } from "./_process.ts";

const AT_MS = Date.UTC(2026, 10, 24, 6, 5, 4, 321);

/** What a log writes, call by call. */
function collect(options: Partial<LogOptions> = {}): { log: ReturnType<typeof createLog>; written: string[] } {
  const written: string[] = [];
  const log = createLog({ level: "debug", now: () => AT_MS, write: (text) => written.push(text), ...options });
  return { log, written };
}

/** One event's line in the form for people. */
function pretty(fields: LogFields): string {
  const { log, written } = collect({ pretty: true });
  log.info("event", fields);
  log.flush();
  return written.join("");
}

test("an event is one JSON line with time, level and message", () => {
  const { log, written } = collect();
  log.warn("disk_low", { free_bytes: 5, path: "a\nb", none: undefined, big: 2n ** 60n });
  log.flush();
  assert.equal(
    written.join(""),
    '{"time":"2026-11-24T06:05:04.321Z","level":"warn","msg":"disk_low","free_bytes":5,"path":"a\\nb","big":"1152921504606846976"}\n',
  );
});

test("events below the level are not written", () => {
  for (const [level, expected] of [
    ["debug", ["debug", "info", "warn", "error"]],
    ["info", ["info", "warn", "error"]],
    ["warn", ["warn", "error"]],
    ["error", ["error"]],
    ["silent", []],
  ] as const) {
    const { log, written } = collect({ level });
    for (const name of ["debug", "info", "warn", "error"] as const) log[name]("event");
    log.flush();
    assert.deepEqual(
      logLines(written.join("")).map((event) => event.level),
      expected,
    );
  }
});

test("the events of one turn are written together; an error at once, after what came before it", async () => {
  const { log, written } = collect();
  log.info("one");
  log.info("two");
  assert.deepEqual(written, []);
  await nextTurn();
  assert.equal(written.length, 1);
  log.info("three");
  log.error("four");
  assert.equal(written.length, 2);
  assert.deepEqual(
    logLines(written.join("")).map(({ msg }) => msg),
    ["one", "two", "three", "four"],
  );
  await nextTurn();
  assert.equal(written.length, 2);
});

test("an error is told with its stack, its code and what caused it", () => {
  const cause = Object.assign(new Error("no room"), { code: "SQLITE_FULL" });
  const { log, written } = collect();
  log.error("group_failed", { error: new Error("Cannot write", { cause }) });
  const [{ error }] = logLines(written.join(""));
  assert.match(error, /^Error: Cannot write\n {4}at .*\ncaused by: Error: no room\n.*\[SQLITE_FULL\]$/s);
});

test("what cannot be written as JSON still leaves a line, and causes in a ring end", () => {
  const ring: LogFields = {};
  ring.ring = ring;
  const error = new Error("round");
  error.cause = error;
  const { log, written } = collect();
  log.warn("odd", ring);
  log.warn("rings", { error });
  log.flush();
  const [odd, rings] = logLines(written.join(""));
  assert.equal(odd.msg, "odd");
  assert.match(odd.unwritable, /circular/);
  assert.match(rings.error, /^Error: round/);
});

test("the form for people is one plain line: nothing that a stranger sent can forge one or move the cursor", () => {
  assert.equal(
    pretty({ method: "GET", status: 200, route: "/a b", none: null }),
    '06:05:04.321 info  event method=GET status=200 route="/a b"\n',
  );
  assert.equal(pretty({ text: "x\n12:00 info  forged" }).split("\n").length, 2);
  const error = new Error("\u001b[2Jcleared\u202e");
  const shown = pretty({ error });
  assert.ok(!shown.includes("\u001b") && !shown.includes("\u202e"));
  assert.match(shown, /error=Error: \?\[2Jcleared\?\n {4}at /);
});

test("serve logs each request as one JSON line, and never a key, a signature or a file's contents", async (t) => {
  const { dataDir, made } = await initProgram(t);
  const server = await serveProgram(t, dataDir, { env: { STOWAGE_LOG_LEVEL: "debug" } });
  const key = made.api_key;
  const created = await server.call("POST", "/api/v1/uploads", { key, body: { filename: "a.bin", category: "file" } });
  const { upload, upload_url } = created.json.data;
  const path = `/api/v1/uploads/${upload.id}`;
  const contents = "the contents of a file";
  await server.call("PUT", upload_url, { body: contents });
  const context = { context_type: "workspace", context_id: made.workspace_id };
  const confirmed = await server.call("POST", path, { key, body: context });
  const { download_url } = confirmed.json.data;
  assert.equal((await server.call("GET", download_url)).text, contents);
  const forged = `${upload_url.slice(0, -4)}0000`;
  assert.equal((await server.call("PUT", forged, { body: contents })).status, 403);
  const wrongKey = `op_live_${"x".repeat(32)}`;
  assert.equal((await server.call("GET", path, { key: wrongKey })).status, 401);
  assert.equal((await server.call("DELETE", path, { key })).status, 200);
  server.child.kill("SIGTERM");
  const { stderr, stdout } = await server.ended;
  assert.equal(stdout, "", "the log goes to stderr");

  const secrets = [upload_url, download_url, forged].flatMap((url) => [...new URL(url).searchParams.values()]);
  for (const secret of [key, wrongKey, contents, ...secrets.filter((value) => value.length > 12)]) {
    assert.ok(!stderr.includes(secret), `the log holds ${secret}`);
  }
  const requests = logLines(stderr).filter(({ msg }) => msg === "request");
  // A line is written when the answer has ended, which may be after its client has sent the next request.
  assert.deepEqual(
    requests
      .map(({ method, route, status, api_key_id }) => [method, route, status, api_key_id ?? "-"].join(" "))
      .toSorted(),
    [
      `DELETE /api/v1/uploads/:upload_id 200 ${made.api_key_id}`,
      "GET /api/v1/uploads/:upload_id 401 -",
      "GET /objects/* 200 -",
      `POST /api/v1/uploads 201 ${made.api_key_id}`,
      `POST /api/v1/uploads/:upload_id 200 ${made.api_key_id}`,
      "PUT /objects/* 200 -",
      "PUT /objects/* 403 -",
    ],
  );
  for (const event of requests) {
    assert.equal(typeof event.duration_ms, "number");
    assert.match(event.request_id, /^[0-9A-Z]{26}$/);
  }
  assert.equal(requests[0].request_id, created.headers["x-request-id"]);
});
