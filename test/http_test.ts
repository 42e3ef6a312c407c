import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../lib/errors.ts";
import { publicRoute, route } from "../lib/http/routes.ts";
import { type Answer, startTestApp } from "./_app.ts";
import { keptLog, rawClient, rawRequest, startHttpServer } from "./_raw_http.ts";

const ULID = /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/;
const TIMESTAMP = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3,6}Z$/;

/** What every error looks like, whatever its cause. */
function assertEnvelope(answer: Pick<Answer, "status" | "json">, status: number, code: string): void {
  assert.equal(answer.status, status, JSON.stringify(answer.json));
  assert.deepEqual(Object.keys(answer.json), ["error", "meta"]);
  assert.deepEqual(Object.keys(answer.json.error), ["code", "message", "details"]);
  assert.equal(answer.json.error.code, code);
  assert.match(answer.json.error.message, /\w/);
  assert.match(answer.json.meta.request_id, ULID);
  assert.match(answer.json.meta.timestamp, TIMESTAMP);
}

test("every answer has a ULID in meta, header and log line, and is for no cache", async (t) => {
  const kept = keptLog();
  const { call, owner } = await startTestApp(t, { log: kept.log });
  const ids = new Set<string>();
  for (const [method, path, status, route] of [
    ["GET", "/api/v1/auth/whoami", 200, "/api/v1/auth/whoami"],
    ["GET", "/api/v1/uploads/nonsense", 422, "/api/v1/uploads/:upload_id"],
    ["PUT", "/api/v1/uploads", 405, "/api/v1/uploads"],
    ["GET", "/nothing/here", 404, "(unmatched)"],
  ] as const) {
    const { status: answered, headers, json } = await call(method, path);
    assert.equal(answered, status);
    assert.match(json.meta.request_id, ULID);
    assert.match(json.meta.timestamp, TIMESTAMP);
    assert.equal(headers["x-request-id"], json.meta.request_id);
    assert.equal(headers["content-type"], "application/json; charset=utf-8");
    assert.equal(headers["cache-control"], "no-store");
    const lines = kept.lines().filter((line) => line.request_id === json.meta.request_id);
    assert.equal(lines.length, 1);
    assert.deepEqual(
      { ...lines[0], time: "", duration_ms: 0 },
      {
        ...{ time: "", level: "info", msg: "request", method, route, status, duration_ms: 0 },
        request_id: json.meta.request_id,
        ...(status === 404 || status === 405 ? {} : { api_key_id: owner.apiKeyId }),
      },
    );
    ids.add(json.meta.request_id);
  }
  assert.equal(ids.size, 4);
  const health = await call("GET", "/health");
  assert.match(String(health.headers["x-request-id"]), ULID);
});

test("an unknown path is 404, a known path with another method 405 that names the allowed ones", async (t) => {
  const { call } = await startTestApp(t);
  for (const path of [
    "/",
    "//",
    "/api/v1",
    "/api/v1/uploads/x/y",
    "/api/v1/runs",
    "//api/v1/uploads",
    "/API/v1/uploads",
  ]) {
    assertEnvelope(await call("GET", path), 404, "NOT_FOUND");
  }
  for (const [method, path, allow] of [
    ["PUT", "/api/v1/uploads", "POST, GET, HEAD, OPTIONS"],
    ["DELETE", "/api/v1/uploads", "POST, GET, HEAD, OPTIONS"],
    ["PATCH", "/api/v1/uploads/x", "POST, DELETE, GET, HEAD, OPTIONS"],
    ["POST", "/health", "GET, HEAD, OPTIONS"],
    ["PROPFIND", "/health", "GET, HEAD, OPTIONS"],
  ] as const) {
    const answer = await call(method, path);
    assertEnvelope(answer, 405, "METHOD_NOT_ALLOWED");
    assert.equal(answer.headers.allow, allow);
  }
});

test("HEAD is GET without the body, with the same status and length", async (t) => {
  const { call, app, owner } = await startTestApp(t);
  const headers = { Authorization: `Bearer ${owner.key}` };
  const client = await rawClient(t, app.url);
  for (const path of ["/health", "/ready", "/api/v1/auth/whoami", "/api/v1/uploads", "/api/v1/uploads/x", "/nothing"]) {
    const get = await call("GET", path);
    client.send(rawRequest("HEAD", path, headers));
    const head = await client.answer({ bodiless: true });
    assert.equal(head.status, get.status, path);
    assert.equal(head.headers.get("content-length"), get.headers["content-length"], path);
    assert.equal(head.headers.get("content-type"), get.headers["content-type"], path);
  }
  client.send(rawRequest("HEAD", "/api/v1/workflows/", headers));
  assert.equal((await client.answer({ bodiless: true })).status, 422);
  // Nothing of a body was left on the connection.
  client.send(rawRequest("GET", "/health"));
  assert.equal((await client.answer()).status, 200);
});

test("OPTIONS tells the methods of a path and of the server, to anyone", async (t) => {
  const { call, app } = await startTestApp(t);
  const answer = await call("OPTIONS", "/api/v1/uploads", { key: "" });
  assert.equal(answer.status, 204);
  assert.equal(answer.text, "");
  assert.equal(answer.headers.allow, "POST, GET, HEAD, OPTIONS");
  assert.match(String(answer.headers["x-request-id"]), ULID);
  assertEnvelope(await call("OPTIONS", "/nothing", { key: "" }), 404, "NOT_FOUND");
  const client = await rawClient(t, app.url);
  client.send(rawRequest("OPTIONS", "*"));
  const server = await client.answer();
  assert.equal(server.status, 204);
  assert.equal(server.headers.get("allow"), "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
});

test("a target in absolute form is answered as its path", async (t) => {
  const { app, owner } = await startTestApp(t);
  const client = await rawClient(t, app.url);
  const headers = { Authorization: `Bearer ${owner.key}` };
  client.send(rawRequest("GET", "http://proxy.example:81/api/v1/uploads?limit=7", headers));
  const listed = await client.answer();
  assert.equal(listed.status, 200);
  assert.equal(listed.json.pagination.limit, 7);
  for (const target of ["http://proxy.example", "http://proxy.example?limit=7", "ftp://x/health"]) {
    client.send(rawRequest("GET", target));
    assertEnvelope(await client.answer(), 404, "NOT_FOUND");
  }
});

test("a path's parameter is decoded once; what cannot be decoded is a malformed id", async (t) => {
  const { app, call, createUpload, owner } = await startTestApp(t);
  const { id } = await createUpload();
  const encoded = [...id].map((char) => `%${char.charCodeAt(0).toString(16)}`).join("");
  assert.equal((await call("GET", `/api/v1/uploads/${encoded}`)).json.data.id, id);
  assert.equal((await call("GET", `/api/v1/uploads/${id.toUpperCase()}`)).json.data.id, id);

  const client = await rawClient(t, app.url);
  for (const segment of [
    "%zz",
    "%",
    "%ff",
    "%00",
    "..",
    "%2e%2e",
    "a%2fb",
    encoded.replaceAll("%", "%25"),
    `${id}%0a`,
  ]) {
    for (const method of ["GET", "DELETE"]) {
      client.send(rawRequest(method, `/api/v1/uploads/${segment}`, { Authorization: `Bearer ${owner.key}` }));
      const answer = await client.answer();
      assertEnvelope(answer, 422, "VALIDATION_ERROR");
      assert.equal(answer.json.error.details[0].field, "upload_id", segment);
    }
    // Who has no credential learns nothing of the path.
    client.send(rawRequest("GET", `/api/v1/uploads/${segment}`));
    assertEnvelope(await client.answer(), 401, "INVALID_API_KEY");
  }
});

test("what a handler throws is 500 with the request id and nothing else; the log has the rest", async (t) => {
  const kept = keptLog();
  const secret = "SELECT * FROM inner_life";
  const { url } = await startHttpServer(t, {
    log: kept.log,
    routes: [
      publicRoute({
        method: "GET",
        path: "/rejects",
        summary: "",
        handle: async () => Promise.reject(new Error(secret)),
      }),
      publicRoute({
        method: "GET",
        path: "/throws",
        summary: "",
        handle: () => {
          throw new TypeError(secret);
        },
      }),
      // A thing that is no error at all.
      publicRoute({ method: "GET", path: "/odd", summary: "", handle: async () => Promise.reject(undefined) }),
      publicRoute({ method: "GET", path: "/cyclic", summary: "", handle: () => ({ bare: cyclic() }) }),
    ],
  });
  const client = await rawClient(t, url);
  for (const path of ["/rejects", "/throws", "/odd", "/cyclic"]) {
    client.send(rawRequest("GET", path));
    const answer = await client.answer();
    assertEnvelope(answer, 500, "INTERNAL_ERROR");
    const { request_id } = answer.json.meta;
    assert.equal(
      answer.json.error.message,
      `Something failed on our side; the log has it under request id ${request_id}`,
    );
    assert.equal(answer.json.error.details, null);
    const failure = kept.lines().find((line) => line.msg === "request_failed" && line.request_id === request_id);
    assert.equal(failure?.level, "error");
    if (path === "/rejects" || path === "/throws") assert.match(failure?.error, /inner_life/);
    const line = kept.lines().find((line) => line.msg === "request" && line.request_id === request_id);
    assert.equal(line?.status, 500);
  }
  client.send(rawRequest("GET", "/nothing"));
  assert.equal((await client.answer()).status, 404, "the connection and the process go on");
});

function cyclic(): object {
  const value: Record<string, unknown> = {};
  value.self = value;
  return value;
}

test("503 always says when to ask again; 429 and 503 say what the error says", async (t) => {
  const failing = (path: string, error: AppError) =>
    route({ method: "GET", path, summary: "", access: "any", handle: () => Promise.reject(error) });
  const { url } = await startHttpServer(t, {
    routes: [
      failing("/bare", new AppError("storage_unavailable", "Not now")),
      failing("/busy", new AppError("storage_unavailable", "Not now", { retryAfterSeconds: 7 })),
      failing("/limited", new AppError("rate_limited", "Too many", { retryAfterSeconds: 60 })),
      failing("/conflict", new AppError("conflict", "No")),
    ],
  });
  const client = await rawClient(t, url);
  for (const [path, status, retryAfter] of [
    ["/bare", 503, "1"],
    ["/busy", 503, "7"],
    ["/limited", 429, "60"],
    ["/conflict", 409, undefined],
  ] as const) {
    client.send(rawRequest("GET", path));
    const answer = await client.answer();
    assert.equal(answer.status, status);
    assert.equal(answer.headers.get("retry-after"), retryAfter);
  }
});

test("no key, signature or file content enters the log", async (t) => {
  const kept = keptLog();
  const { app, call, put, createUpload, confirm, owner } = await startTestApp(t, { log: kept.log });
  const content = "the content of a file";
  const { id, uploadUrl } = await createUpload({ filename: "a name.txt" });
  await put(uploadUrl, content);
  const confirmed = await confirm(id);
  const { download_url } = confirmed.json.data;
  assert.equal((await call("GET", download_url.slice(app.url.length), { key: "" })).text, content);
  await put(`${uploadUrl}x`, content);
  await put(uploadUrl, content);
  await call("GET", "/api/v1/uploads?api_key=op_live_secret", { key: "op_live_wrong" });
  await call("GET", `/nothing/${owner.key}`);
  await call("DELETE", `/api/v1/uploads/${id}`, { body: content });
  await call("POST", "/api/v1/uploads", { body: content });
  const client = await rawClient(t, app.url);
  client.send(`${owner.key} ${content}\r\n\r\n`);
  assert.equal((await client.answer()).status, 400);

  const text = kept.text();
  assert.match(text, /"route":"\/objects\/\*"/);
  const signatures = [uploadUrl, download_url].map((url) => new URL(url).searchParams.get("signature"));
  for (const secret of [
    owner.key,
    owner.key.slice(-10),
    "op_live",
    content,
    "a name",
    "/objects/staging",
    ...signatures,
  ]) {
    assert.ok(secret !== null && !text.includes(secret), `the log has ${secret}`);
  }
});
