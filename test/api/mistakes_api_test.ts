import assert from "node:assert/strict";
import { test } from "node:test";
import { type ApiResponse, startTestApp } from "../help/app.ts";
import { rawClient } from "../help/raw_http.ts";

// Goal: what newcomers get wrong is answered with what to do instead.

function check({ status, json }: ApiResponse, wanted: number, message: RegExp): void {
  assert.equal(status, wanted);
  assert.match(json.error.message, message);
}

test("a slash too much at the end of a path is named", async (t) => {
  const { call, createUpload } = await startTestApp(t);
  const { id } = await createUpload();
  for (const path of ["/health/", "/api/v1/usage/summary/", `/api/v1/uploads/${id}/`, `/api/v1/uploads/${id}//`]) {
    check(await call("GET", path), 404, /leave out the slash at its end$/);
  }
  // A create or a list that ends in a slash is the path of an upload without its id.
  for (const [method, body] of [
    ["GET", undefined],
    ["POST", { filename: "a", category: "file" }],
    ["DELETE", undefined],
  ] as const) {
    const response = await call(method, "/api/v1/uploads/", { body });
    check(
      response,
      422,
      /^Invalid upload_id: must be a UUID, and is empty: a path without an id has no slash at its end/,
    );
  }
  check(await call("GET", "/nothing/"), 404, /^There is nothing at this path$/);
});

test("an area of the OnePin API that is not served says so; any other path does not", async (t) => {
  const { call } = await startTestApp(t);
  for (const path of [
    ...["/voices", "/voices/facets", "/dictionary", "/templates/x/clone", "/providers", "/nodes", "/api-keys"],
    ...["/workflows/x/runs", "/workflows/x/runs/y/status", "/workflows/x/duplicate", "/workspaces/x/invites"],
    ...["/workspaces/x/billing/checkout", "/users/me/templates"],
  ]) {
    check(await call("GET", `/api/v1${path}`), 404, /this part of the OnePin API is not served here/);
    check(await call("POST", `/api/v1${path}`, { body: {} }), 404, /not served here/);
  }
  for (const path of ["/voices", "/api/v1/voice", "/api/v1/voicesx", "/api/v2/voices", "/api/v1/constructor/x/y"]) {
    check(await call("GET", path), 404, /^There is nothing at this path$/);
  }
});

test("a signed URL that is used with another method says what it is for; a forged one says nothing of it", async (t) => {
  const { call, put, createUpload, confirmedUpload } = await startTestApp(t, { env: { STOWAGE_STORE: "disk" } });
  const { uploadUrl } = await createUpload();
  const { download_url } = await confirmedUpload("x");
  check(await call("GET", uploadUrl, { key: "" }), 403, /signed for PUT and not for GET: .*`curl -T FILE URL`/);
  check(await call("POST", uploadUrl, { key: "", body: "x" }), 403, /signed for PUT and not for POST: .*curl -T/);
  check(await call("DELETE", uploadUrl, { key: "" }), 403, /signed for PUT and not for DELETE/);
  check(await put(download_url, "x"), 403, /signed for GET and not for PUT/);
  const forged = uploadUrl.replace(/signature=./, (text) => (text.endsWith("A") ? "signature=B" : "signature=A"));
  for (const method of ["GET", "PUT", "POST"]) {
    check(await call(method, forged, { key: "" }), 403, /its signature does not fit/);
  }
});

test("HTTP/1.0 with Expect gets no interim response, for a PUT and for a create", async (t) => {
  const { app, owner, createUpload } = await startTestApp(t, { env: { STOWAGE_STORE: "disk" } });
  const { pathname, search } = new URL((await createUpload()).uploadUrl);
  const body = '{"filename":"a","category":"file"}';
  for (const [head, status] of [
    [`PUT ${pathname}${search} HTTP/1.0\r\n`, 200],
    [`POST /api/v1/uploads HTTP/1.0\r\nAuthorization: Bearer ${owner.key}\r\nContent-Type: application/json\r\n`, 201],
  ] as const) {
    const client = await rawClient(t, app.url);
    client.send(`${head}Expect: 100-continue\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    assert.equal((await client.response()).status, status);
  }
});
