import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { test } from "node:test";
import { Client, request } from "undici";
import { type Json, startTestApp, type TestApp } from "./_app.ts";
import { type RawClient, rawClient, rawRequest } from "./_raw_http.ts";

const JSON_TYPE = { "Content-Type": "application/json" };
const GOOD = '{"filename":"a.txt","category":"script"}';

/** Sends a create with exactly these bytes and headers. */
async function create(
  { app, owner }: TestApp,
  body: Buffer | string,
  headers: Record<string, string> = JSON_TYPE,
): Promise<{ status: number; json: Json }> {
  const answer = await request(`${app.url}/api/v1/uploads`, {
    method: "POST",
    body,
    headers: { Authorization: `Bearer ${owner.key}`, ...headers },
  });
  return { status: answer.statusCode, json: await answer.body.json() };
}

/** The start of a create's request: the body is left to the test. */
function createHead(app: TestApp, headers: Record<string, string>): string {
  return rawRequest("POST", "/api/v1/uploads", {
    ...JSON_TYPE,
    Authorization: `Bearer ${app.owner.key}`,
    ...headers,
  });
}

function assertError(answer: { status: number; json: Json }, status: number, code: string, note = ""): void {
  assert.equal(answer.status, status, `${note} ${JSON.stringify(answer.json)}`);
  assert.equal(answer.json.error.code, code, note);
}

test("JSON of every sound form is understood", async (t) => {
  const app = await startTestApp(t);
  for (const type of [
    "application/json",
    "APPLICATION/JSON",
    "application/json; charset=utf-8",
    'application/json;charset="UTF-8"',
    "application/json; charset=us-ascii",
    "application/json; profile=x",
    "application/vnd.api+json",
  ]) {
    assert.equal((await create(app, GOOD, { "Content-Type": type })).status, 201, type);
  }
  assert.equal((await create(app, `\ufeff ${GOOD}\r\n`)).status, 201, "a byte order mark");
  assert.equal((await create(app, '{"filename":"\\u0061.txt","category":"script","size_bytes":5.0}')).status, 201);
  assert.equal((await create(app, `{"__proto__":{"status":418},"constructor":1,${GOOD.slice(1)}`)).status, 201);
  assert.equal((await create(app, `{"filename":"b.txt",${GOOD.slice(1)}`)).status, 201, "a repeated name");
  const padded = `${GOOD.slice(0, -1)},"extra":"${"x".repeat(64 * 1024 - GOOD.length - 11)}"}`;
  assert.equal(padded.length, 64 * 1024);
  assert.equal((await create(app, padded)).status, 201, "exactly 64 KiB");
});

test("what is not JSON in UTF-8 gets 400, 413, 415 or 422, never 500, and makes nothing", async (t) => {
  const app = await startTestApp(t);
  const badJson: [string, Buffer | string][] = [
    ["empty", ""],
    ["a byte order mark alone", "\ufeff"],
    ["cut off", '{"filename":"a.txt"'],
    ["two values", `${GOOD}${GOOD}`],
    ["a form", "filename=a.txt&category=script"],
    ["single quotes", "{'filename':'a.txt'}"],
    ["a comment", `${GOOD}//`],
    ["NaN", '{"filename":"a.txt","category":"script","size_bytes":NaN}'],
    ["a raw NUL byte", '{"filename":"a\0.txt","category":"script"}'],
    ["a NUL byte behind", `${GOOD}\0`],
    ["NUL bytes", Buffer.alloc(100)],
    ["a raw line break in a string", '{"filename":"a\n.txt","category":"script"}'],
    ["Latin-1", Buffer.from('{"filename":"\xe4.txt","category":"script"}', "latin1")],
    ["a surrogate in UTF-8", Buffer.from([...Buffer.from('{"filename":"'), 0xed, 0xa0, 0x80, 0x22, 0x7d])],
    ["overlong UTF-8", Buffer.from([...Buffer.from('{"filename":"'), 0xc0, 0xae, 0x22, 0x7d])],
    ["UTF-16", Buffer.from(GOOD, "utf16le")],
    ["UTF-16 with a byte order mark", Buffer.from(`\ufeff${GOOD}`, "utf16le")],
    ["a thousand nested arrays", "[".repeat(1_000) + "]".repeat(1_000)],
    ["a thousand nested arrays inside", `${GOOD.slice(0, -1)},"x":${"[".repeat(1_000)}${"]".repeat(1_000)}}`],
    ["thirty thousand open brackets", "[".repeat(30_000)],
    ["thirty thousand nested objects", '{"a":'.repeat(12_000)],
  ];
  for (const [what, body] of badJson) assertError(await create(app, body), 400, "BAD_REQUEST", what);
  for (const charset of ["utf-16", "iso-8859-1", "latin1", '"shift_jis"', "", "utf-8x"]) {
    const type = { "Content-Type": `application/json; charset=${charset}` };
    assertError(await create(app, GOOD, type), 400, "BAD_REQUEST", charset);
  }
  for (const value of ["null", "true", "5", '"text"', "[]", `[${GOOD}]`]) {
    const answer = await create(app, value);
    assertError(answer, 422, "VALIDATION_ERROR", value);
    assert.deepEqual(answer.json.error.details, [{ field: "body", message: "must be a JSON object" }]);
  }
  for (const type of ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "json", "", "*/*"]) {
    const answer = await create(app, GOOD, { "Content-Type": type });
    assertError(answer, 415, "UNSUPPORTED_MEDIA_TYPE", type);
    assert.match(answer.json.error.message, /Content-Type: application\/json/);
  }
  assertError(await create(app, GOOD, {}), 415, "UNSUPPORTED_MEDIA_TYPE", "no type");
  assertError(await create(app, `${GOOD}${" ".repeat(64 * 1024 + 1 - GOOD.length)}`), 413, "PAYLOAD_TOO_LARGE");
  assert.equal(app.sql.prepare("SELECT count(*) FROM uploads").pluck().get(), 0);
});

test("half a surrogate pair and a NUL in escapes are refused or cleaned, wherever they stand", async (t) => {
  const app = await startTestApp(t);
  const lone = "\\ud800";
  assertError(await create(app, `{"filename":"a${lone}.txt","category":"script"}`), 422, "VALIDATION_ERROR");
  assertError(await create(app, `{"filename":"a.txt","category":"${lone}"}`), 422, "VALIDATION_ERROR");
  const cleaned = await create(app, '{"filename":"a\\u0000.txt","category":"script"}');
  assert.equal(cleaned.json.data.upload.filename, "a.txt");

  for (const body of [`{"name":"x${lone}"}`, '{"name":"x\\u0000"}', `{"description":"${lone}"}`]) {
    assertError(await app.call("POST", "/api/v1/workflows", { body }), 422, "VALIDATION_ERROR", body);
  }
  // A definition is kept as it is, whatever text it holds.
  const definition = { graph: { nodes: [{ text: "\ud800 \u0000 \ufeff", __proto__: null }] }, "\u0000": "\udfff" };
  const made = await app.call("POST", "/api/v1/workflows", { body: { definition } });
  assert.equal(made.status, 201);
  assert.deepEqual(made.json.data.definition, JSON.parse(JSON.stringify(definition)));
  const { id } = made.json.data;
  assert.deepEqual((await app.call("GET", `/api/v1/workflows/${id}`)).json.data, made.json.data);
  assert.equal((await app.call("GET", `/api/v1/workflows/${id}/uploads`)).status, 200);
  for (const search of ["%00", "%ed%a0%80", "%ff", "%", "a%00b"]) {
    assert.equal((await app.call("GET", `/api/v1/workflows?search=${search}`)).status, 200, search);
  }
});

test("a body may come in chunks, of any size, up to 64 KiB", async (t) => {
  const app = await startTestApp(t);
  const client = await rawClient(t, app.app.url);
  client.send(createHead(app, { "Transfer-Encoding": "chunked" }));
  for (const char of GOOD) client.send(`1\r\n${char}\r\n`);
  client.send("0\r\n\r\n");
  assert.equal((await client.answer()).status, 201);
  client.send(`${createHead(app, { "Transfer-Encoding": "chunked" })}0\r\n\r\n`);
  assertError(await client.answer(), 400, "BAD_REQUEST");
  client.send(createHead(app, { "Transfer-Encoding": "chunked" }));
  client.send(`10001\r\n${" ".repeat(0x10001)}\r\n`);
  const refused = await client.answer();
  assertError(refused, 413, "PAYLOAD_TOO_LARGE");
  assert.equal(refused.headers.get("connection"), "close");
  client.socket.destroy();
});

test("a client that still sends gets to read the early 413", async (t) => {
  const app = await startTestApp(t);
  const megabyte = Buffer.alloc(1_000_000, " ");
  const client = await rawClient(t, app.app.url);
  client.send(createHead(app, { "Content-Length": "20000000" }));
  client.send(megabyte);
  const answer = await client.answer();
  assertError(answer, 413, "PAYLOAD_TOO_LARGE");
  assert.equal(answer.headers.get("connection"), "close");
  for (let i = 1; i < 20; i++) client.send(megabyte);
  assert.equal(await client.ended(), "");
  assert.equal(client.socket.errored, null, "no reset");

  for (const body of [Buffer.alloc(20_000_000, " "), Readable.from(manyChunks())]) {
    const sender = new Client(app.app.url);
    const { statusCode, body: answered } = await sender.request({
      method: "POST",
      path: "/api/v1/uploads",
      headers: { ...JSON_TYPE, Authorization: `Bearer ${app.owner.key}` },
      body,
    });
    assertError({ status: statusCode, json: await answered.json() }, 413, "PAYLOAD_TOO_LARGE");
    await sender.destroy();
  }
  async function* manyChunks(): AsyncGenerator<Buffer> {
    for (let i = 0; i < 10; i++) yield megabyte;
  }
});

test("DELETE ignores its body, whatever it is, and keeps the connection where that is little", async (t) => {
  const app = await startTestApp(t);
  const auth = { Authorization: `Bearer ${app.owner.key}` };
  let client: RawClient = await rawClient(t, app.app.url);
  const deleteWith = async (headers: Record<string, string>, body: string): Promise<string | undefined> => {
    const { id } = await app.createUpload();
    // Head and body in two pieces, as many clients send them.
    client.send(rawRequest("DELETE", `/api/v1/uploads/${id}`, { ...auth, ...headers }));
    client.send(body);
    const answer = await client.answer();
    assert.equal(answer.status, 200);
    assert.deepEqual(answer.json.data, {});
    assert.equal((await app.call("GET", `/api/v1/uploads/${id}`)).status, 404);
    return answer.headers.get("connection");
  };
  for (const [headers, body] of [
    [{}, ""],
    [{ "Content-Length": "0" }, ""],
    [{ ...JSON_TYPE, "Content-Length": "2" }, "{}"],
    [{ "Content-Length": "5" }, "\0\xff{{"],
    [{ "Content-Type": "text/plain", "Content-Length": "3" }, "abc"],
    [{ "Content-Length": "65536" }, " ".repeat(65_536)],
  ] as const) {
    assert.equal(await deleteWith(headers, body), "keep-alive", JSON.stringify(headers));
  }
  for (const [headers, body] of [
    [{ "Content-Length": "3000000" }, " ".repeat(3_000_000)],
    [{ "Content-Length": "3000000000" }, " ".repeat(100)],
    [{ "Content-Length": "2", Expect: "100-continue" }, ""],
  ] as const) {
    assert.equal(await deleteWith(headers, body), "close");
    client.socket.destroy();
    client = await rawClient(t, app.app.url);
  }
  // The body of a delete that was answered before it came is not taken for the next request.
  const { id } = await app.createUpload();
  client.send(rawRequest("DELETE", `/api/v1/uploads/${id}`, { ...auth, "Content-Length": "20" }));
  assert.equal((await client.answer()).status, 200);
  client.send(`DELETE /x HTTP/1.1\r\n${rawRequest("GET", "/health")}`);
  assert.equal((await client.answer()).json.status, "ok");
});

test("Expect: 100-continue is granted to who may send, and refused with the reason to others", async (t) => {
  const app = await startTestApp(t);
  const expecting = { Expect: "100-continue", "Content-Length": String(GOOD.length) };
  let client = await rawClient(t, app.app.url);
  client.send(createHead(app, expecting));
  assert.equal((await client.answer()).status, 100);
  client.send(GOOD);
  assert.equal((await client.answer()).status, 201);

  for (const [headers, status, code] of [
    [{ ...expecting, Authorization: "Bearer op_live_wrong" }, 401, "INVALID_API_KEY"],
    [{ ...expecting, "Content-Length": "70000" }, 413, "PAYLOAD_TOO_LARGE"],
    [{ ...expecting, "Content-Type": "text/plain" }, 415, "UNSUPPORTED_MEDIA_TYPE"],
    [{ ...expecting, Expect: "a-miracle" }, 400, "BAD_REQUEST"],
  ] as const) {
    client = await rawClient(t, app.app.url);
    client.send(createHead(app, headers));
    const answer = await client.answer();
    assertError(answer, status, code);
    assert.equal(answer.headers.get("connection"), "close", "what is sent next is not known");
    client.socket.destroy();
  }
});

test("a body is not asked for where there is none to be", async (t) => {
  const app = await startTestApp(t);
  const client = await rawClient(t, app.app.url);
  const auth = { Authorization: `Bearer ${app.owner.key}` };
  for (const path of ["/health", "/api/v1/uploads", "/api/v1/auth/whoami"]) {
    client.send(rawRequest("GET", path, { ...auth, ...JSON_TYPE }, "{{{{"));
    assert.equal((await client.answer()).status, 200, path);
  }
  // A 401 to a small POST keeps the connection, and the body is not taken for a request.
  client.send(rawRequest("POST", "/api/v1/uploads", JSON_TYPE, "GET / HTTP/1.1\r\n\r\n"));
  const refused = await client.answer();
  assertError(refused, 401, "INVALID_API_KEY");
  assert.equal(refused.headers.get("connection"), "keep-alive");
  client.send(rawRequest("GET", "/health"));
  assert.equal((await client.answer()).json.status, "ok");
});
