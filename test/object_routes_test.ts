import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { readdirSync, readlinkSync } from "node:fs";
import { connect } from "node:net";
import { Readable } from "node:stream";
import { type TestContext, test } from "node:test";
import { request } from "undici";
import { AppError } from "../lib/errors.ts";
import { objectRoutes } from "../lib/routes/objects.ts";
import { createObjectRoutes, type ObjectHandler } from "../lib/store/disk/object_routes.ts";
import type { DiskStoreOptions } from "../lib/store/disk/objects_disk.ts";
import { openTestStore, type TestStore } from "./_disk_store.ts";
import { skipLoudly } from "./_loud_skip.ts";
import { startHttpServer } from "./_raw_http.ts";

const HOUR_MS = 3_600_000;

interface Served extends TestStore {
  port: number;
  clock: { nowMs: number };
  putUrl: (objectKey: string, sizeBytes?: number, checksumSha256?: string) => string;
  getUrl: (objectKey: string, filename?: string, contentType?: string) => string;
  /** What each request's handler ended with, in order: null, or what it threw. */
  outcomes: Promise<unknown>[];
}

/** The two handlers behind the real HTTP server. */
async function serve(t: TestContext, changes: Partial<DiskStoreOptions> = {}): Promise<Served> {
  const clock = { nowMs: Date.now() };
  const s = await openTestStore(t, { now: () => clock.nowMs, ...changes });
  const outcomes: Promise<unknown>[] = [];
  const noted =
    (handle: ObjectHandler): ObjectHandler =>
    (...args) => {
      const outcome = handle(...args);
      outcomes.push(
        outcome.then(
          () => null,
          (error: unknown) => error,
        ),
      );
      return outcome;
    };
  const { putObject, getObject } = createObjectRoutes({ store: s.store, now: () => clock.nowMs });
  const guard = { checkTakesUploads() {}, checkServesDownloads() {} };
  const routes = objectRoutes({ putObject: noted(putObject), getObject: noted(getObject) }, guard);
  const { url } = await startHttpServer(t, { routes, now: () => clock.nowMs });
  const port = Number(new URL(url).port);
  const local = (url: string) => url.replace("127.0.0.1:8000", `127.0.0.1:${port}`);
  const contentType = "text/plain";
  return {
    ...s,
    port,
    clock,
    outcomes,
    putUrl: (objectKey, sizeBytes, checksumSha256) =>
      local(
        s.store.presignPut(objectKey, {
          contentType,
          sizeBytes: sizeBytes ?? null,
          checksumSha256: checksumSha256 ?? null,
          expiresAtMs: clock.nowMs + HOUR_MS,
        }),
      ),
    getUrl: (objectKey, filename = "a.txt", type = contentType) =>
      local(s.store.presignGet(objectKey, { contentType: type, filename, expiresAtMs: clock.nowMs + HOUR_MS })),
  };
}

/** Sends raw text and resolves with everything that comes back until the server closes. */
async function raw(port: number, text: string): Promise<string> {
  const socket = connect(port, "127.0.0.1");
  socket.write(text);
  let received = "";
  for await (const chunk of socket) received += chunk;
  return received;
}

async function code(response: { body: { json: () => Promise<unknown> } }): Promise<string> {
  const { error } = (await response.body.json()) as { error: { code: string } };
  return error.code;
}

test("a PUT answers 200 with the ETag and an empty body, and the GET URL returns what was sent", async (t) => {
  const s = await serve(t);
  const key = s.newPendingKey();
  const put = await request(s.putUrl(key), { method: "PUT", body: "hello", headers: { "content-type": "text/plain" } });
  assert.equal(put.statusCode, 200);
  assert.equal(await put.body.text(), "");
  assert.equal(put.headers["content-length"], "0");
  assert.equal(put.headers.etag, (await s.store.stat(key))?.etag);

  const get = await request(s.getUrl(key));
  assert.equal(get.statusCode, 200);
  assert.equal(await get.body.text(), "hello");
  const expected = {
    "content-length": "5",
    "content-type": "text/plain",
    etag: put.headers.etag,
    "accept-ranges": "bytes",
    "cache-control": "private, no-store",
    "content-disposition": "attachment; filename=a.txt",
    "content-security-policy": "sandbox; default-src 'none'",
    "x-content-type-options": "nosniff",
  };
  for (const [name, value] of Object.entries(expected)) assert.equal(get.headers[name], value, name);

  const head = await request(s.getUrl(key), { method: "HEAD" });
  assert.equal(head.statusCode, 200);
  assert.equal(await head.body.text(), "");
  for (const [name, value] of Object.entries(expected)) assert.equal(head.headers[name], value, name);
});

test("an empty file can be PUT and downloaded, with a range too", async (t) => {
  const s = await serve(t);
  const key = s.newPendingKey();
  assert.equal((await request(s.putUrl(key, 0), { method: "PUT", body: "" })).statusCode, 200);
  for (const headers of [{}, { range: "bytes=0-9" }, { range: "bytes=-5" }]) {
    const get = await request(s.getUrl(key), { headers });
    assert.equal(get.statusCode, 200);
    assert.equal(get.headers["content-length"], "0");
    assert.equal(await get.body.text(), "");
  }
});

test("a download is saved under its name, whatever the name", async (t) => {
  const s = await serve(t);
  const key = s.newPendingKey();
  await s.put(key, "x");
  const cases: [filename: string, disposition: string][] = [
    ['we "quote".txt', 'attachment; filename="we \\"quote\\".txt"'],
    [
      "한글 파일.TXT",
      "attachment; filename=\"?? ??.TXT\"; filename*=UTF-8''%ED%95%9C%EA%B8%80%20%ED%8C%8C%EC%9D%BC.TXT",
    ],
    ["50%20off.txt", "attachment; filename=50%20off.txt; filename*=UTF-8''50%2520off.txt"],
  ];
  for (const [filename, disposition] of cases) {
    const get = await request(s.getUrl(key, filename));
    await get.body.dump();
    assert.equal(get.headers["content-disposition"], disposition);
  }
  const split = await request(s.getUrl(key, "a\r\nSet-Cookie: x=1.txt"));
  await split.body.dump();
  assert.equal(split.headers["set-cookie"], undefined);
});

test("ranges are served as HTTP defines them", async (t) => {
  const s = await serve(t);
  const key = s.newPendingKey();
  await s.put(key, "0123456789");
  const cases: [range: string, status: number, body: string, contentRange?: string][] = [
    ["bytes=0-3", 206, "0123", "bytes 0-3/10"],
    ["bytes=4-", 206, "456789", "bytes 4-9/10"],
    ["bytes=9-9", 206, "9", "bytes 9-9/10"],
    ["bytes=5-500", 206, "56789", "bytes 5-9/10"],
    ["bytes=-3", 206, "789", "bytes 7-9/10"],
    ["bytes=-500", 206, "0123456789", "bytes 0-9/10"],
    ["bytes=0-1,4-5", 200, "0123456789"],
    ["bytes=5-4", 200, "0123456789"],
    ["bytes=-", 200, "0123456789"],
    ["bytes=a-b", 200, "0123456789"],
    ["lines=0-1", 200, "0123456789"],
    ["nonsense", 200, "0123456789"],
  ];
  for (const [range, status, body, contentRange] of cases) {
    const get = await request(s.getUrl(key), { headers: { range } });
    assert.equal(get.statusCode, status, range);
    assert.equal(get.headers["content-range"], contentRange, range);
    assert.equal(get.headers["content-length"], String(body.length), range);
    assert.equal(await get.body.text(), body, range);
  }
  for (const range of ["bytes=10-", "bytes=10-20", "bytes=-0", `bytes=${"9".repeat(400)}-`]) {
    const get = await request(s.getUrl(key), { headers: { range } });
    assert.equal(get.statusCode, 416, range);
    assert.equal(get.headers["content-range"], "bytes */10", range);
    assert.equal(await code(get), "RANGE_NOT_SATISFIABLE");
  }
});

test("a client that has the file, or part of another, is told so", async (t) => {
  const s = await serve(t);
  const key = s.newPendingKey();
  const { etag } = await s.put(key, "0123456789");
  for (const known of [etag, `W/${etag}`, `"other", ${etag}`, "*"]) {
    const get = await request(s.getUrl(key), { headers: { "if-none-match": known } });
    assert.equal(get.statusCode, 304, known);
    assert.equal(get.headers.etag, etag);
    assert.equal(await get.body.text(), "");
  }
  const range = "bytes=0-3";
  const cases: [ifRange: string, body: string][] = [
    [etag, "0123"],
    ['"10-0"', "0123456789"],
    [`W/${etag}`, "0123456789"],
    ["Tue, 24 Nov 2026 05:00:00 GMT", "0123456789"],
  ];
  for (const [ifRange, body] of cases) {
    const get = await request(s.getUrl(key), { headers: { range, "if-range": ifRange, "if-none-match": '"other"' } });
    assert.equal(await get.body.text(), body, ifRange);
  }
});

test("errors have their statuses, and a refused PUT leaves nothing", async (t) => {
  const s = await serve(t);
  const key = s.newPendingKey();
  // An upload names the key, and there is no file: it is lost or away, but not deleted.
  const lost = await request(s.getUrl(key));
  assert.equal(lost.statusCode, 503);
  assert.equal(await code(lost), "STORAGE_UNAVAILABLE");

  const put = (url: string, body: string, headers = {}) => request(url, { method: "PUT", body, headers });
  const gone = s.putUrl(key);
  s.pending.delete(key);
  assert.equal((await put(gone, "x")).statusCode, 404);
  s.pending.add(key);
  assert.equal((await put(s.putUrl(key, 3), "four")).statusCode, 413);
  assert.equal((await put(s.putUrl(key, 5), "four")).statusCode, 400);
  assert.equal((await put(s.putUrl(key), "x".repeat(s.options.maxUploadBytes + 1))).statusCode, 413);
  assert.equal((await put(s.putUrl(key), "x", { "content-range": "bytes 0-0/2" })).statusCode, 400);
  assert.equal((await put(`${s.putUrl(key)}&x=1`, "x")).statusCode, 403);
  assert.equal((await put(s.getUrl(key), "x")).statusCode, 403);
  assert.equal((await request(s.putUrl(key))).statusCode, 403);
  assert.equal((await request(s.putUrl(key), { method: "HEAD" })).statusCode, 403);
  assert.equal((await request(s.putUrl(key), { method: "POST", body: "x" })).statusCode, 403);
  const [putUrl, getUrl] = [s.putUrl(key), s.getUrl(key)];
  s.clock.nowMs += HOUR_MS;
  assert.equal((await put(putUrl, "x")).statusCode, 403);
  assert.equal((await request(getUrl)).statusCode, 403);
  assert.deepEqual(s.files(), []);
});

test("a PUT that says the checksum of its bytes is refused if they have another", async (t) => {
  const s = await serve(t);
  const sumOf = (text: string) => createHash("sha256").update(text).digest();
  const [right, other] = [sumOf("hello"), sumOf("hellO")];
  const put = (url: string, header?: string, body = "hello") =>
    request(url, { method: "PUT", body, headers: header === undefined ? {} : { "x-amz-checksum-sha256": header } });
  const key = s.newPendingKey();
  const stated = s.putUrl(key, 5, right.toString("hex"));
  for (const [url, header, body] of [
    [s.putUrl(key), other.toString("base64")],
    [s.putUrl(key), right.toString("hex")],
    [s.putUrl(key), right.toString("base64url")],
    [s.putUrl(key), ""],
    [stated, other.toString("base64")],
    [stated, other.toString("base64"), "hellO"],
    [stated, right.toString("base64"), "hellO"],
    [stated, undefined, "hellO"],
  ] as const) {
    const answer = await put(url, header, body);
    assert.equal(answer.statusCode, 400, `${header} ${body}`);
    assert.equal(await code(answer), "BAD_REQUEST");
    assert.deepEqual(s.files(), []);
  }
  for (const [url, header] of [
    [s.putUrl(key), right.toString("base64")],
    [stated, right.toString("base64")],
    [stated, undefined],
  ] as const) {
    assert.equal((await put(url, header)).statusCode, 200);
    assert.equal(await s.text(key), "hello");
  }
});

test("a chunked body of unknown length is cut at the limit", async (t) => {
  const s = await serve(t);
  const url = s.putUrl(s.newPendingKey());
  async function* body() {
    for (let i = 0; i < 2 * s.options.maxUploadBytes; i += 65_536) yield Buffer.alloc(65_536);
  }
  const put = await request(url, { method: "PUT", body: Readable.from(body()) }).catch((error: unknown) => error);
  // The server answers and closes while the client still sends; which of the two the client sees first is up to it.
  if (put !== null && typeof put === "object" && "statusCode" in put) assert.equal(put.statusCode, 413);
  const outcome = await s.outcomes[0];
  assert.ok(outcome instanceof Error && "code" in outcome);
  assert.equal(outcome.code, "payload_too_large");
  assert.deepEqual(s.files(), []);
});

test("a client that asks before it sends is let through, or refused without sending a byte", async (t) => {
  const s = await serve(t);
  const key = s.newPendingKey();
  const head = (url: string, length: number) => {
    const { pathname, search } = new URL(url);
    return `PUT ${pathname}${search} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: ${length}\r\n\r\n`;
  };
  const accepted = await raw(s.port, `${head(s.putUrl(key, 5), 5)}hello`);
  assert.match(accepted, /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 OK\r\n/);

  assert.match(await raw(s.port, head(s.putUrl(key, 5), 6)), /^HTTP\/1\.1 413 /);
  s.pending.delete(key);
  assert.match(await raw(s.port, head(s.putUrl(key, 5), 5)), /^HTTP\/1\.1 404 /);
});

test("a client that goes away in the middle of its PUT leaves nothing", async (t) => {
  const s = await serve(t);
  const { pathname, search } = new URL(s.putUrl(s.newPendingKey()));
  for (const framing of ["Content-Length: 100000\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"]) {
    const socket = connect(s.port, "127.0.0.1");
    socket.write(`PUT ${pathname}${search} HTTP/1.1\r\nHost: x\r\n${framing}`);
    while (s.files().length === 0) await new Promise((resolve) => setImmediate(resolve));
    socket.destroy();
    const outcome = await s.outcomes.at(-1);
    assert.ok(outcome instanceof Error && "code" in outcome);
    assert.equal(outcome.code, "client_closed_request");
    assert.deepEqual(s.files(), []);
  }
});

test("a client that goes away in the middle of a download leaves no file open, and the going is its own", async (t) => {
  if (process.platform !== "linux") return skipLoudly(t, "it counts open files in /proc", "run the tests on Linux");
  const s = await serve(t, { maxUploadBytes: 64 * 1024 * 1024 });
  const key = s.newPendingKey();
  await s.put(key, Buffer.alloc(32 * 1024 * 1024));
  const { pathname, search } = new URL(s.getUrl(key));
  const socket = connect(s.port, "127.0.0.1");
  socket.write(`GET ${pathname}${search} HTTP/1.1\r\nHost: x\r\n\r\n`);
  await once(socket, "data");
  assert.equal(openCount(s.pathOf(key)), 1);
  socket.destroy();
  const outcome = await s.outcomes[0];
  assert.ok(outcome instanceof AppError);
  assert.equal(outcome.code, "client_closed_request");
  assert.equal(openCount(s.pathOf(key)), 0);
});

test("no answer leaves a file open", async (t) => {
  if (process.platform !== "linux") return skipLoudly(t, "it counts open files in /proc", "run the tests on Linux");
  const s = await serve(t);
  const key = s.newPendingKey();
  const { etag } = await s.put(key, "hello");
  for (const headers of [{}, { range: "bytes=1-2" }, { range: "bytes=9-" }, { "if-none-match": etag }]) {
    await (await request(s.getUrl(key), { headers })).body.dump();
    await (await request(s.getUrl(key), { headers, method: "HEAD" })).body.dump();
  }
  await Promise.all(s.outcomes);
  assert.equal(openCount(s.pathOf(key)), 0);
});

/** How often this process has the file open. */
function openCount(path: string): number {
  return readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === path;
    } catch {
      return false;
    }
  }).length;
}

test("a large PUT does not grow the process by its size", async (t) => {
  const sizeBytes = 192 * 1024 * 1024;
  const s = await serve(t, { maxUploadBytes: sizeBytes });
  let rssBytesMax = 0;
  const sampling = setInterval(() => {
    rssBytesMax = Math.max(rssBytesMax, process.memoryUsage.rss());
  }, 2);
  t.after(() => clearInterval(sampling));
  const upload = async (bytes: number): Promise<number> => {
    rssBytesMax = 0;
    const client = spawn(process.execPath, ["-e", CLIENT, s.putUrl(s.newPendingKey()), String(bytes)]);
    assert.deepEqual(await once(client, "exit"), [0, null]);
    assert.equal(await s.outcomes.at(-1), null);
    return rssBytesMax;
  };
  const warmBytes = await upload(16 * 1024 * 1024);
  const grownBytes = (await upload(sizeBytes)) - warmBytes;
  t.diagnostic(`grew by ${Math.round(grownBytes / 1024 / 1024)} MiB while it took ${sizeBytes / 1024 / 1024} MiB`);
  assert.ok(grownBytes < 25 * 1024 * 1024);
});

/** A client in a process of its own, so that its memory is not counted: `node -e CLIENT <url> <bytes>`. */
const CLIENT = `
  const [url, bytes] = process.argv.slice(1);
  const chunk = Buffer.alloc(65536, "x");
  const req = require("node:http").request(url, { method: "PUT", headers: { "content-length": bytes } });
  req.on("response", (res) => process.exit(res.statusCode === 200 ? 0 : 1));
  require("node:stream").Readable.from((function* () {
    for (let sent = 0; sent < Number(bytes); sent += chunk.length) yield chunk;
  })()).pipe(req);
`;
