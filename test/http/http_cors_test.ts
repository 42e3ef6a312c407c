import assert from "node:assert/strict";
import { test } from "node:test";
import type { ApiResponse } from "../help/app.ts";
import { startTestApp } from "../help/app.ts";
import { keptLog } from "../help/raw_http.ts";

const APP = "https://app.example.com";

function corsOf({ headers }: ApiResponse): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(headers).filter(([name]) => name.startsWith("access-control-") || name === "vary"),
  );
}

const READABLE = {
  vary: "Origin",
  "access-control-allow-origin": APP,
  "access-control-expose-headers":
    "X-Request-Id, Retry-After, ETag, Accept-Ranges, Content-Range, Content-Disposition, Location, Allow",
};
/** Of a signed URL: it is the credential, so every page may use it. */
const OPEN = {
  "access-control-allow-origin": "*",
  "access-control-expose-headers": READABLE["access-control-expose-headers"],
};

test("without the setting no page may read anything, and no header speaks of it", async (t) => {
  const { call } = await startTestApp(t);
  for (const method of ["GET", "OPTIONS"]) {
    const response = await call(method, "/api/v1/uploads", {
      headers: { Origin: APP, "Access-Control-Request-Method": "POST" },
    });
    assert.deepEqual(corsOf(response), {});
  }
});

test("a page of an allowed origin may read every response, good or bad", async (t) => {
  const { call, owner } = await startTestApp(t, { env: { STOWAGE_CORS_ORIGINS: `https://other.example.com, ${APP}` } });
  for (const [method, path, key, status] of [
    ["GET", "/api/v1/auth/whoami", owner.key, 200],
    ["HEAD", "/health", "", 200],
    ["GET", "/api/v1/uploads", "", 401],
    ["DELETE", "/api/v1/uploads/", owner.key, 422],
    ["GET", "/nothing", "", 404],
    ["PUT", "/api/v1/uploads", "", 405],
  ] as const) {
    const response = await call(method, path, { key, headers: { Origin: APP } });
    assert.equal(response.status, status, path);
    assert.deepEqual(corsOf(response), READABLE, path);
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
});

for (const origins of ["", APP]) {
  test(`signed URLs of the embedded store answer a page of any origin, also when they refuse: "${origins}"`, async (t) => {
    const env = { STOWAGE_CORS_ORIGINS: origins, STOWAGE_STORE: "disk" };
    const { app, call, put, createUpload, confirmedUpload } = await startTestApp(t, { env });
    const { download_url } = await confirmedUpload("x");
    const { uploadUrl } = await createUpload();
    for (const origin of ["https://anyone.example.com", "null", "capacitor://localhost"]) {
      for (const [method, path, status] of [
        ["GET", download_url, 200],
        ["HEAD", download_url, 200],
        ["GET", `${app.url}/objects/forged`, 403],
        ["POST", uploadUrl, 403],
        ["OPTIONS", uploadUrl, 204],
      ] as const) {
        const response = await call(method, path, { key: "", headers: { Origin: origin } });
        assert.equal(response.status, status, `${method} ${path}`);
        assert.deepEqual(corsOf(response), OPEN);
      }
      const response = await put(uploadUrl, "x", { Origin: origin });
      assert.equal(response.status, 200);
      assert.deepEqual(corsOf(response), OPEN);
      const asked = {
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "cache-control,content-md5,x-requested-with",
      };
      const preflight = await call("OPTIONS", uploadUrl, { key: "", headers: { Origin: origin, ...asked } });
      assert.equal(preflight.headers["access-control-allow-origin"], "*");
      assert.equal(preflight.headers["access-control-allow-headers"], asked["Access-Control-Request-Headers"]);
      assert.match(String(preflight.headers["access-control-allow-methods"]), /\bPUT\b/);
    }
  });
}

test("a preflight is answered without a credential, with the headers that it asks for", async (t) => {
  const { call, createUpload } = await startTestApp(t, { env: { STOWAGE_CORS_ORIGINS: APP } });
  const { id } = await createUpload();
  for (const [path, method, allow] of [
    ["/api/v1/uploads", "POST", "POST, GET, HEAD, OPTIONS"],
    [`/api/v1/uploads/${id}`, "DELETE", "POST, DELETE, GET, HEAD, OPTIONS"],
    ["/api/v1/uploads", "PUT", "POST, GET, HEAD, OPTIONS, PUT"],
    ["/health", "X-OWN", "GET, HEAD, OPTIONS, X-OWN"],
  ] as const) {
    const asked = {
      "Access-Control-Request-Method": method,
      "Access-Control-Request-Headers": "authorization,content-type,traceparent,x-requested-with,x-workspace-id",
    };
    const response = await call("OPTIONS", path, { key: "", headers: { Origin: APP, ...asked } });
    assert.equal(response.status, 204);
    assert.deepEqual(corsOf(response), {
      ...READABLE,
      "access-control-allow-methods": allow,
      "access-control-allow-headers": asked["Access-Control-Request-Headers"],
      "access-control-max-age": "600",
    });
    const refused = await call("OPTIONS", path, { key: "", headers: { Origin: "https://evil.example.com", ...asked } });
    assert.equal(refused.status, 204);
    assert.deepEqual(corsOf(refused), { vary: "Origin" });
  }
});

test("an allowed page reads the 404 or 405 of a path or method that does not exist; others get nothing", async (t) => {
  const { call, owner } = await startTestApp(t, { env: { STOWAGE_CORS_ORIGINS: APP } });
  for (const [method, path, status] of [
    ["POST", "/api/v1/upload", 404],
    ["PUT", "/nothing", 404],
    ["PUT", "/api/v1/uploads", 405],
  ] as const) {
    const asked = { "Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization" };
    const preflight = await call("OPTIONS", path, { key: "", headers: { Origin: APP, ...asked } });
    assert.equal(preflight.status, 204);
    assert.equal(preflight.headers["access-control-allow-origin"], APP);
    assert.ok(String(preflight.headers["access-control-allow-methods"]).split(", ").includes(method));
    const response = await call(method, path, { key: owner.key, headers: { Origin: APP } });
    assert.equal(response.status, status);
    assert.deepEqual(corsOf(response), READABLE);
    const refused = await call("OPTIONS", path, { key: "", headers: { Origin: "https://evil.example.com", ...asked } });
    assert.equal(refused.headers["access-control-allow-origin"], undefined);
  }
});

test("origins are compared as text: those of apps and extensions work", async (t) => {
  const origins = [
    "capacitor://localhost",
    "ionic://localhost",
    "chrome-extension://abcdefghijklmnop",
    "http://[::1]:5173",
  ];
  const { call } = await startTestApp(t, { env: { STOWAGE_CORS_ORIGINS: origins.join(",") } });
  for (const origin of origins) {
    const { headers } = await call("GET", "/health", { headers: { Origin: origin } });
    assert.equal(headers["access-control-allow-origin"], origin);
  }
  const { headers } = await call("GET", "/health", { headers: { Origin: "http://localhost" } });
  assert.equal(headers["access-control-allow-origin"], undefined);
});

test("a refused origin is logged once, with the setting's name; our own pages and allowed ones are not", async (t) => {
  const { log, lines, text } = keptLog();
  const { app, call, createUpload } = await startTestApp(t, {
    env: { STOWAGE_CORS_ORIGINS: APP, STOWAGE_STORE: "disk" },
    log,
  });
  const { uploadUrl } = await createUpload();
  const strangers = ["https://evil.example.com", "null"];
  for (let i = 0; i < 3; i++) {
    for (const origin of [APP, app.url, ...strangers]) await call("GET", "/health", { headers: { Origin: origin } });
    await call("PUT", uploadUrl, { key: "", body: "x", headers: { Origin: "https://anyone.example.com" } });
  }
  const told = lines().filter(({ msg }) => msg === "origin_refused");
  assert.deepEqual(
    told.map(({ origin }) => origin),
    strangers,
  );
  for (const { level, hint } of told) {
    assert.equal(level, "warn");
    assert.match(hint, /STOWAGE_CORS_ORIGINS/);
  }
  // However many there are, the log has a hundred at most.
  for (let i = 0; i < 150; i++) await call("GET", "/health", { headers: { Origin: `https://${i}.example.com` } });
  assert.equal(text().split("origin_refused").length - 1, 100);
});

test('"*" allows every origin', async (t) => {
  const { call } = await startTestApp(t, { env: { STOWAGE_CORS_ORIGINS: "*" } });
  const response = await call("GET", "/health", { headers: { Origin: "http://localhost:5173" } });
  assert.equal(response.headers["access-control-allow-origin"], "http://localhost:5173");
  assert.equal(response.headers.vary, "Origin");
  assert.equal(
    response.headers["access-control-allow-credentials"],
    undefined,
    "credentials are headers, never cookies",
  );
});
