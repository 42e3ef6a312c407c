import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { startTestApp } from "../help/app.ts";

// Goal: on the JSON routes too, a header that carries a promise, a condition or a coding is honoured or refused.

const UPLOADS = "/api/v1/uploads";
const BODY = JSON.stringify({ filename: "a.txt", category: "file" });
const MD5 = createHash("md5").update(BODY).digest("base64");
const SHA256 = createHash("sha256").update(BODY).digest("base64");
const WRONG_MD5 = createHash("md5").update("other").digest("base64");

test("checksums and codings of a JSON body are honoured or refused", async (t) => {
  const { call, sql } = await startTestApp(t);
  for (const [headers, status, code] of [
    [{ "Content-MD5": WRONG_MD5 }, 400, "BAD_REQUEST"],
    [{ "Content-MD5": "x" }, 400, "BAD_REQUEST"],
    [{ "Content-Digest": `md5=:${WRONG_MD5}:` }, 400, "BAD_REQUEST"],
    [{ "x-amz-checksum-sha512": "x" }, 400, "BAD_REQUEST"],
    [{ Trailer: "Content-MD5" }, 400, "BAD_REQUEST"],
    [{ "Content-Encoding": "gzip" }, 415, "UNSUPPORTED_MEDIA_TYPE"],
  ] as const) {
    const response = await call("POST", UPLOADS, { body: BODY, headers });
    assert.deepEqual([response.status, response.json.error.code], [status, code], JSON.stringify(headers));
  }
  assert.equal(sql.prepare("SELECT count(*) FROM uploads").pluck().get(), 0);
  const headers = { "Content-MD5": MD5, Digest: `SHA-256=${SHA256}`, "Content-Encoding": "identity" };
  const created = await call("POST", UPLOADS, { body: BODY, headers });
  assert.equal(created.status, 201, created.text);
});

test("a condition on a change is 412 and nothing is changed; one that only saves a transfer may be sent", async (t) => {
  const { call, confirmedUpload } = await startTestApp(t);
  const upload = await confirmedUpload("x");
  const path = `${UPLOADS}/${upload.id}`;
  const time = new Date(0).toUTCString();
  for (const headers of [
    { "If-Match": '"a"' },
    { "If-Match": "*" },
    { "If-None-Match": "*" },
    { "If-Unmodified-Since": time },
    { "If-Modified-Since": time },
  ] satisfies Record<string, string>[]) {
    for (const [method, body] of [
      ["DELETE", undefined],
      ["POST", { context_type: "workspace", context_id: upload.workspace_id }],
    ] as const) {
      const { status, json } = await call(method, path, { headers, body });
      assert.deepEqual([status, json.error.code], [412, "PRECONDITION_FAILED"], JSON.stringify(headers));
    }
  }
  assert.equal((await call("GET", path, { headers: { "If-Match": '"a"' } })).status, 412);
  const headers = { "If-None-Match": '"a"', "If-Modified-Since": time, Range: "bytes=0-1" };
  const shown = await call("GET", path, { headers });
  assert.equal(shown.status, 200);
  assert.equal(shown.json.data.id, upload.id);
  assert.equal((await call("GET", "/health", { key: "", headers: { "If-Match": '"a"' } })).status, 200);
});

test("the size of a JSON body, and of a definition, is a setting", async (t) => {
  const definitionOf = (bytes: number) => ({ graph: { nodes: [{ text: "x".repeat(bytes - 40) }] } });
  const standard = await startTestApp(t);
  const body = { definition: definitionOf(70_000) };
  assert.equal((await standard.call("POST", "/api/v1/workflows", { body })).status, 413);

  const { call } = await startTestApp(t, { env: { STOWAGE_JSON_BYTES_MAX: "131072" } });
  const made = await call("POST", "/api/v1/workflows", { body });
  assert.equal(made.status, 201, made.text);
  const path = `/api/v1/workflows/${made.json.data.id}`;
  assert.deepEqual((await call("GET", path)).json.data.definition, body.definition);
  const larger = await call("PATCH", path, { body: { definition: definitionOf(120_000) } });
  assert.equal(larger.status, 200, larger.text);
  const refused = await call("PATCH", path, { body: { definition: definitionOf(131_073) } });
  assert.equal(refused.status, 413);
  assert.match(refused.json.error.message, /131072 bytes/);
});
