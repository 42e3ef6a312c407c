import assert from "node:assert/strict";
import { test } from "node:test";
import type { Answer } from "./_app.ts";
import { startTestApp } from "./_app.ts";

const APP = "https://app.example.com";

function corsOf({ headers }: Answer): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(headers).filter(([name]) => name.startsWith("access-control-") || name === "vary"),
  );
}

const READABLE = {
  vary: "Origin",
  "access-control-allow-origin": APP,
  "access-control-expose-headers": "X-Request-Id, Retry-After, ETag, Content-Range, Content-Disposition, Location",
};

test("without the setting no page may read anything, and no header speaks of it", async (t) => {
  const { call } = await startTestApp(t);
  for (const method of ["GET", "OPTIONS"]) {
    const answer = await call(method, "/api/v1/uploads", {
      headers: { Origin: APP, "Access-Control-Request-Method": "POST" },
    });
    assert.deepEqual(corsOf(answer), {});
  }
});

test("a page of an allowed origin may read every answer, good or bad", async (t) => {
  const { app, call, put, createUpload, owner, confirmedUpload } = await startTestApp(t, {
    env: { STOWAGE_CORS_ORIGINS: `https://other.example.com, ${APP}` },
  });
  const { download_url } = await confirmedUpload("x");
  for (const [method, path, key, status] of [
    ["GET", "/api/v1/auth/whoami", owner.key, 200],
    ["HEAD", "/health", "", 200],
    ["GET", "/api/v1/uploads", "", 401],
    ["DELETE", "/api/v1/uploads/", owner.key, 422],
    ["GET", "/nothing", "", 404],
    ["PUT", "/api/v1/uploads", "", 405],
    ["GET", download_url.slice(app.url.length), "", 200],
    ["GET", "/objects/forged", "", 403],
  ] as const) {
    const answer = await call(method, path, { key, headers: { Origin: APP } });
    assert.equal(answer.status, status, path);
    assert.deepEqual(corsOf(answer), READABLE, path);
    // An origin is exact: not another scheme, port, host, letter case, or none.
    for (const origin of [
      "https://evil.example.com",
      "http://app.example.com",
      `${APP}:8443`,
      `${APP}.evil.com`,
      "null",
    ]) {
      const refused = await call(method, path, { key, headers: { Origin: origin } });
      assert.equal(refused.status, status);
      assert.deepEqual(corsOf(refused), { vary: "Origin" }, origin);
    }
    assert.deepEqual(corsOf(await call(method, path, { key })), { vary: "Origin" }, "for caches");
  }
  const { uploadUrl } = await createUpload();
  assert.equal((await put(uploadUrl, "x")).status, 200);
});

test("a preflight is answered without a credential, for the API and for signed URLs", async (t) => {
  const { app, call, createUpload } = await startTestApp(t, { env: { STOWAGE_CORS_ORIGINS: APP } });
  const { id, uploadUrl } = await createUpload();
  for (const [path, method, allow] of [
    ["/api/v1/uploads", "POST", "POST, GET, HEAD, OPTIONS"],
    [`/api/v1/uploads/${id}`, "DELETE", "POST, DELETE, GET, HEAD, OPTIONS"],
    [uploadUrl.slice(app.url.length), "PUT", "PUT, GET, HEAD, POST, PATCH, DELETE, OPTIONS"],
  ] as const) {
    const asked = {
      "Access-Control-Request-Method": method,
      "Access-Control-Request-Headers": "authorization,content-type,x-workspace-id",
    };
    const answer = await call("OPTIONS", path, { key: "", headers: { Origin: APP, ...asked } });
    assert.equal(answer.status, 204);
    assert.deepEqual(corsOf(answer), {
      ...READABLE,
      "access-control-allow-methods": allow,
      "access-control-allow-headers":
        "Authorization, Content-Type, X-Workspace-Id, Idempotency-Key, X-Amz-Checksum-Sha256, Range, If-Range, If-None-Match",
      "access-control-max-age": "600",
    });
    const refused = await call("OPTIONS", path, { key: "", headers: { Origin: "https://evil.example.com", ...asked } });
    assert.equal(refused.status, 204);
    assert.deepEqual(corsOf(refused), { vary: "Origin" });
  }
});

test('"*" allows every origin', async (t) => {
  const { call } = await startTestApp(t, { env: { STOWAGE_CORS_ORIGINS: "*" } });
  const answer = await call("GET", "/health", { headers: { Origin: "http://localhost:5173" } });
  assert.equal(answer.headers["access-control-allow-origin"], "http://localhost:5173");
  assert.equal(answer.headers.vary, "Origin");
  assert.equal(answer.headers["access-control-allow-credentials"], undefined, "credentials are headers, never cookies");
});
