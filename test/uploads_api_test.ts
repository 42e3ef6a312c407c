import assert from "node:assert/strict";
import { test } from "node:test";
import { type Answer, type Json, startTestApp, type TestApp } from "./_app.ts";
import { EMBEDDED_ONLY, IS_S3 } from "./_test_store.ts";

const UPLOADS = "/api/v1/uploads";
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[47][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const TIMESTAMP = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3,6}Z$/;
const STRANGER = "01890a5d-ac96-774b-bcce-b302099a8057";

/** Fails unless the error is in the published envelope, with this status and code and, for 422, this field. */
function assertError(answer: Answer, status: number, code: string, field?: string): void {
  assert.equal(answer.status, status, answer.text);
  assert.deepEqual(Object.keys(answer.json), ["error", "meta"]);
  const { error } = answer.json;
  assert.deepEqual(Object.keys(error), ["code", "message", "details"]);
  assert.equal(error.code, code);
  assert.doesNotMatch(error.message, /!|undefined|null|Invalid input/);
  if (field === undefined) return assert.equal(error.details, null);
  assert.ok(error.details.length > 0);
  for (const detail of error.details) assert.deepEqual(Object.keys(detail), ["field", "message"]);
  assert.equal(error.details[0].field, field);
  assert.ok(error.message.includes(field), `the message names the field: ${error.message}`);
}

/** Checks every field of an upload that is the same for all, and returns the others. */
function checkUpload(upload: Json, { owner }: TestApp): Json {
  assert.deepEqual(Object.keys(upload), [
    ...["id", "user_id", "workspace_id", "filename", "category", "content_type", "format", "status", "size_bytes"],
    "checksum_sha256",
    ...["char_count", "line_count", "detected_language", "download_url", "context_type", "context_id"],
    ...["created_at", "updated_at"],
  ]);
  const { id, user_id, workspace_id, created_at, updated_at, download_url, ...more } = upload;
  const { checksum_sha256, detected_language, ...rest } = more;
  assert.match(id, UUID);
  assert.equal(user_id, owner.userId);
  assert.equal(workspace_id, owner.workspaceId);
  assert.deepEqual([checksum_sha256, detected_language], [null, null]);
  assert.match(created_at, TIMESTAMP);
  assert.match(updated_at, TIMESTAMP);
  assert.ok(updated_at >= created_at);
  if (rest.status === "pending") assert.equal(download_url, null);
  else assert.equal(new URL(download_url).protocol, "http:");
  return rest;
}

test("create answers 201 with every field of a pending upload and an absolute URL", EMBEDDED_ONLY, async (t) => {
  const app = await startTestApp(t);
  const answer = await app.call("POST", UPLOADS, { body: { filename: " 한글 파일.TXT ", category: "script" } });
  assert.equal(answer.status, 201);
  assert.deepEqual(Object.keys(answer.json), ["data", "meta"]);
  assert.deepEqual(Object.keys(answer.json.meta), ["request_id", "timestamp"]);
  assert.deepEqual(Object.keys(answer.json.data), ["upload", "upload_url"]);
  assert.deepEqual(checkUpload(answer.json.data.upload, app), {
    ...{ filename: "한글 파일.TXT", category: "script", content_type: "text/plain", format: "txt" },
    ...{ status: "pending", size_bytes: null, char_count: null, line_count: null },
    ...{ context_type: null, context_id: null },
  });
  const url = new URL(answer.json.data.upload_url);
  assert.equal(url.origin, app.app.url);
  assert.match(url.pathname, new RegExp(`^/objects/staging/[^/]+/${answer.json.data.upload.id}/[0-9a-f]{32}$`));
  assert.deepEqual([...url.searchParams.keys()].sort(), ["expires", "max", "signature"]);
  // What a user may be curious about never becomes part of a path.
  assert.ok(!answer.json.data.upload_url.includes("TXT"));
});

test("every create makes an upload of its own", async (t) => {
  const { call } = await startTestApp(t);
  const create = () => call("POST", UPLOADS, { body: { filename: "a.txt", category: "script" } });
  const [one, two] = [await create(), await create()];
  assert.notEqual(one.json.data.upload.id, two.json.data.upload.id);
  assert.notEqual(one.json.data.upload_url, two.json.data.upload_url);
});

test("a confirmed upload has its size, counts, context and a URL that downloads it under its name", async (t) => {
  const app = await startTestApp(t);
  const { owner, call } = app;
  const bound = { context_type: "workspace", context_id: owner.workspaceId };
  for (const [filename, category, content_type, format, counts] of [
    ["a.txt", "script", "text/plain", "txt", { char_count: 10, line_count: 2 }],
    ["a.csv", "script", "text/csv", "csv", { char_count: null, line_count: null }],
    ["a.pdf", "script", "application/pdf", "pdf", { char_count: null, line_count: null }],
    ["a.mp3", "dictionary", "audio/mpeg", "mp3", { char_count: null, line_count: null }],
    ["a.txt", "file", "text/plain", "txt", { char_count: null, line_count: null }],
    ["README", "file", "application/octet-stream", null, { char_count: null, line_count: null }],
  ] as const) {
    const upload = await app.confirmedUpload("  hello \n\n wörld\r\n", { filename, category });
    assert.deepEqual(checkUpload(upload, app), {
      ...{ filename, category, content_type, format, status: "uploaded", size_bytes: 19 },
      ...counts,
      ...bound,
    });
    const shown = await call("GET", `${UPLOADS}/${upload.id}`);
    assert.equal(shown.status, 200);
    assert.deepEqual({ ...shown.json.data, download_url: "" }, { ...upload, download_url: "" });
    const file = await call("GET", shown.json.data.download_url, { key: "" });
    assert.equal(file.status, 200);
    assert.equal(file.headers["content-type"], content_type);
    assert.equal(file.headers["content-disposition"], `attachment; filename=${filename}`);
  }
  for (const [bytes, counts] of [
    ["", { char_count: 0, line_count: 0 }],
    ["\ufeffa\n", { char_count: 1, line_count: 1 }],
    [Buffer.from([0xff, 0xfe, 0x41, 0]), { char_count: null, line_count: null }],
  ] as const) {
    const { char_count, line_count, size_bytes } = await app.confirmedUpload(bytes, {
      ...{ filename: "b.txt", category: "script" },
    });
    assert.deepEqual({ char_count, line_count }, counts);
    assert.equal(size_bytes, Buffer.byteLength(bytes));
  }
});

test("what create cannot take is 422 and names the field, and nothing is made", async (t) => {
  const { call, sql } = await startTestApp(t, { env: { STOWAGE_MAX_UPLOAD_BYTES: "1000" } });
  const good = { filename: "a.txt", category: "script" };
  for (const [body, field] of [
    [{}, "filename"],
    [{ category: "script" }, "filename"],
    [{ filename: "a.txt" }, "category"],
    [{ ...good, filename: "" }, "filename"],
    [{ ...good, filename: null }, "filename"],
    [{ ...good, filename: 5 }, "filename"],
    [{ ...good, filename: ["a.txt"] }, "filename"],
    [{ ...good, filename: { toString: "a.txt" } }, "filename"],
    [{ ...good, filename: "noext" }, "filename"],
    [{ ...good, filename: ".txt" }, "filename"],
    [{ ...good, filename: "a.exe" }, "filename"],
    [{ ...good, filename: "\u202e" }, "filename"],
    [{ ...good, filename: `${"x".repeat(252)}.txt` }, "filename"],
    [{ ...good, category: null }, "category"],
    [{ ...good, category: "scripts" }, "category"],
    [{ ...good, category: "Script" }, "category"],
    [{ ...good, category: ["script"] }, "category"],
    [{ ...good, category: "__proto__" }, "category"],
    [{ ...good, size_bytes: -1 }, "size_bytes"],
    [{ ...good, size_bytes: 1.5 }, "size_bytes"],
    [{ ...good, size_bytes: "5" }, "size_bytes"],
    [{ ...good, size_bytes: true }, "size_bytes"],
    [{ ...good, size_bytes: [5] }, "size_bytes"],
    [{ ...good, size_bytes: 1001 }, "size_bytes"],
    [{ ...good, size_bytes: 1e300 }, "size_bytes"],
    ['{"filename":"a.txt","category":"script","size_bytes":1e999}', "size_bytes"],
  ] as const) {
    assertError(await call("POST", UPLOADS, { body }), 422, "VALIDATION_ERROR", field);
  }
  const both = await call("POST", UPLOADS, { body: { size_bytes: -1 } });
  const fields = both.json.error.details.map(({ field }: { field: string }) => field);
  assert.deepEqual(fields, ["filename", "category", "size_bytes"], "all problems at once");
  const category = await call("POST", UPLOADS, { body: { ...good, category: "x" } });
  assert.match(category.json.error.message, /script, dictionary, file/);
  assert.equal(sql.prepare("SELECT count(*) FROM uploads").pluck().get(), 0);
  for (const size_bytes of [0, 1000, null, -0]) {
    assert.equal((await call("POST", UPLOADS, { body: { ...good, size_bytes } })).status, 201);
  }
  assert.equal((await call("POST", UPLOADS, { body: { ...good, filename: `${"x".repeat(251)}.txt` } })).status, 201);
});

test("a stated size is the only length that the URL takes", EMBEDDED_ONLY, async (t) => {
  const app = await startTestApp(t);
  const { id, uploadUrl } = await app.createUpload({ size_bytes: 5 });
  const longer = await app.put(uploadUrl, "123456");
  assert.equal(longer.status, 413);
  assert.equal(longer.json.error.code, "PAYLOAD_TOO_LARGE");
  assertError(await app.put(uploadUrl, "1234"), 400, "BAD_REQUEST");
  assertError(await app.confirm(id), 422, "VALIDATION_ERROR", "upload_id");
  assert.equal((await app.put(uploadUrl, "12345")).status, 200);
  assert.equal((await app.confirm(id)).json.data.size_bytes, 5);

  const empty = await app.createUpload({ size_bytes: 0 });
  assert.equal((await app.put(empty.uploadUrl, "1")).status, 413);
  assert.equal((await app.put(empty.uploadUrl, "")).status, 200);
  assert.equal((await app.confirm(empty.id)).json.data.size_bytes, 0);
});

test("a stated size that can never fit is 402 at create; one that just fits is not", async (t) => {
  const app = await startTestApp(t, { quotaBytes: 100 });
  await app.confirmedUpload("x".repeat(40));
  const create = (size_bytes?: number) =>
    app.call("POST", UPLOADS, { body: { filename: "a.bin", category: "file", size_bytes } });
  const refused = await create(61);
  assertError(refused, 402, "STORAGE_LIMIT_EXCEEDED");
  assert.match(refused.json.error.message, /61 bytes.*60 bytes left.*100/);
  assert.equal((await create(60)).status, 201);
  assert.equal((await create()).status, 201, "without a size nothing is checked");
  assert.equal(app.sql.prepare("SELECT count(*) FROM uploads WHERE status = 'pending'").pluck().get(), 2);
});

/** An S3 server takes PUTs to an upload's URL until it has expired, so until then the upload keeps its place. */
async function urlsExpire(app: TestApp): Promise<void> {
  if (!IS_S3) return;
  app.clock.advance(app.config.uploadUrlTtlSeconds * 1_000);
  for (let pass = 0; pass < 2; pass++) await app.app.cleaner.runOnce();
}

test("at most so many uploads may be pending; confirmed and deleted ones make room", async (t) => {
  const app = await startTestApp(t, { env: { STOWAGE_PENDING_UPLOADS_MAX: "3" } });
  const ids: string[] = [];
  for (let i = 0; i < 3; i++) ids.push((await app.createUpload()).id);
  for (let i = 0; i < 3; i++) {
    const refused = await app.call("POST", UPLOADS, { body: { filename: "a", category: "file" } });
    assertError(refused, 429, "RATE_LIMITED");
    assert.equal(refused.headers["retry-after"], "60");
  }
  const other = await app.addOwner();
  assert.ok(await app.createUpload({ key: other.key }), "another workspace has its own");
  assert.equal((await app.call("DELETE", `${UPLOADS}/${ids[0]}`)).status, 200);
  await urlsExpire(app);
  const { id, uploadUrl } = await app.createUpload();
  await app.put(uploadUrl, "x");
  assert.equal((await app.confirm(id)).status, 200);
  await urlsExpire(app);
  await app.createUpload();
  assert.equal((await app.call("POST", UPLOADS, { body: { filename: "a", category: "file" } })).status, 429);
  const burst = await Promise.all(
    Array.from({ length: 10 }, async () => {
      await app.call("DELETE", `${UPLOADS}/${ids[1]}`);
      await urlsExpire(app);
      return (await app.call("POST", UPLOADS, { body: { filename: "a", category: "file" } })).status;
    }),
  );
  assert.equal(burst.filter((status) => status === 201).length, 1);
});

test("delete answers 200 with empty data, in either state, and gives back what was charged", async (t) => {
  const app = await startTestApp(t);
  const used = () => app.sql.prepare("SELECT storage_bytes_used FROM workspaces").pluck().get();
  const pending = await app.createUpload();
  const confirmed = await app.confirmedUpload("12345");
  assert.equal(used(), 5);
  for (const [id, usedAfter] of [
    [pending.id, 5],
    [confirmed.id, 0],
  ] as const) {
    const answer = await app.call("DELETE", `${UPLOADS}/${id}`);
    assert.equal(answer.status, 200);
    assert.deepEqual(Object.keys(answer.json), ["data", "meta"]);
    assert.deepEqual(answer.json.data, {});
    assert.equal(used(), usedAfter);
    assertError(await app.call("DELETE", `${UPLOADS}/${id}`), 404, "NOT_FOUND");
  }
});

test("an unknown, a foreign and a deleted upload are not to be told apart", async (t) => {
  const app = await startTestApp(t);
  const other = await app.addOwner();
  const foreign = await app.confirmedUpload("x", { owner: other });
  const foreignPending = await app.createUpload({ key: other.key });
  const deleted = await app.confirmedUpload("x");
  await app.call("DELETE", `${UPLOADS}/${deleted.id}`);
  const body = { context_type: "workspace", context_id: app.owner.workspaceId };
  for (const call of [{ method: "GET" }, { method: "DELETE" }, { method: "POST", body }]) {
    const seen = new Set<string>();
    for (const id of [STRANGER, foreign.id, foreignPending.id, deleted.id, foreign.id.toUpperCase()]) {
      const answer = await app.call(call.method, `${UPLOADS}/${id}`, call);
      assertError(answer, 404, "NOT_FOUND");
      assert.ok(!answer.text.includes(id));
      const { request_id, timestamp } = answer.json.meta;
      const { date: _date, "x-request-id": _id, ...headers } = answer.headers;
      seen.add(JSON.stringify(headers) + answer.text.replace(request_id, "").replace(timestamp, ""));
    }
    assert.equal(seen.size, 1, [...seen].join("\n"));
  }
  assert.equal((await app.call("GET", `${UPLOADS}/${foreign.id}`, { key: other.key })).status, 200, "nothing happened");
  assert.equal((await app.call("GET", `${UPLOADS}/${foreignPending.id}`, { key: other.key })).status, 200);
});

test("a malformed or empty id is 422 and names the field, never 404", async (t) => {
  const { call, owner } = await startTestApp(t);
  const body = { context_type: "workspace", context_id: owner.workspaceId };
  for (const id of [
    "",
    "x",
    "123",
    `${STRANGER}0`,
    STRANGER.slice(1),
    `{${STRANGER}}`,
    STRANGER.replaceAll("-", ""),
    "%20",
  ]) {
    for (const method of ["GET", "DELETE", "POST"]) {
      const answer = await call(method, `${UPLOADS}/${id}`, method === "POST" ? { body } : {});
      assertError(answer, 422, "VALIDATION_ERROR", "upload_id");
    }
  }
});
