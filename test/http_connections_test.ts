import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import * as z from "zod";
import { publicRoute, type Route, route } from "../lib/http/routes.ts";
import { startTestApp } from "./_app.ts";
import { keptLog, rawClient, rawRequest, startHttpServer } from "./_raw_http.ts";

/** A route whose answers wait until they are released, by name. */
function gate(): { routes: Route[]; started: (name: string) => Promise<void>; release: (name: string) => void } {
  const open = new Map<string, { wait: Promise<void>; release: () => void }>();
  const startedNames = new Set<string>();
  const of = (name: string) => {
    let one = open.get(name);
    if (one === undefined) {
      const { promise, resolve } = Promise.withResolvers<void>();
      one = { wait: promise, release: resolve };
      open.set(name, one);
    }
    return one;
  };
  return {
    routes: [
      route({
        method: "GET",
        path: "/gate/:name",
        summary: "",
        access: "any",
        params: z.object({ name: z.string() }),
        async handle({ params }) {
          startedNames.add(params.name);
          await of(params.name).wait;
          return { data: { name: params.name } };
        },
      }),
      route({
        method: "POST",
        path: "/echo",
        summary: "",
        access: "any",
        body: z.unknown(),
        handle: ({ body }) => ({ data: body }),
      }),
      publicRoute({ method: "GET", path: "/fast", summary: "", handle: () => ({ bare: { fast: true } }) }),
    ],
    async started(name) {
      while (!startedNames.has(name)) await delay(1);
    },
    release: (name) => of(name).release(),
  };
}

test("pipelined requests are answered in order, whichever is done first", async (t) => {
  const { routes, started, release } = gate();
  const { url } = await startHttpServer(t, { routes });
  const client = await rawClient(t, url);
  client.send(
    rawRequest("GET", "/gate/a") +
      rawRequest("GET", "/fast") +
      rawRequest("POST", "/echo", { "Content-Type": "application/json" }, '{"x":1}') +
      rawRequest("GET", "/gate/b") +
      rawRequest("HEAD", "/fast") +
      rawRequest("GET", "/nothing"),
  );
  await started("b");
  release("b");
  release("a");
  assert.equal((await client.answer()).json.data.name, "a");
  assert.deepEqual((await client.answer()).json, { fast: true });
  assert.deepEqual((await client.answer()).json.data, { x: 1 });
  assert.equal((await client.answer()).json.data.name, "b");
  assert.equal((await client.answer({ bodiless: true })).status, 200);
  assert.equal((await client.answer()).status, 404);
});

test("a malformed request behind pending ones is answered after them, once, and ends the connection", async (t) => {
  const { routes, started, release } = gate();
  const { url } = await startHttpServer(t, { routes });
  const client = await rawClient(t, url);
  client.send(`${rawRequest("GET", "/gate/a") + rawRequest("GET", "/gate/b")}NONSENSE\r\n\r\n`);
  await started("b");
  // More of it while the answers are owed: reported again by the parser, not answered again.
  client.send("MORE NONSENSE\r\n\r\n");
  release("b");
  await delay(20);
  client.send("AND MORE\r\n\r\n");
  release("a");
  assert.equal((await client.answer()).json.data.name, "a");
  assert.equal((await client.answer()).json.data.name, "b");
  const refused = await client.answer();
  assert.equal(refused.status, 400);
  assert.equal(refused.headers.get("connection"), "close");
  assert.equal(await client.ended(), "");
});

test("what is not HTTP/1.1 gets 400 in the envelope, with a request id that the log knows, and the end", async (t) => {
  const kept = keptLog();
  const { url } = await startHttpServer(t, { routes: gate().routes, log: kept.log });
  for (const bytes of [
    "NONSENSE\r\n\r\n",
    "GET /fast HTTP/9.9\r\nHost: x\r\n\r\n",
    "FROBNICATE /fast HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /fa st HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /fast HTTP/1.1\r\nHost : x\r\n\r\n",
    "GET /fast HTTP/1.1\r\nHost: x\r\nNo colon\r\n\r\n",
    "GET /fast HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
    "GET /fast HTTP/1.1\r\nX-Only: no host\r\n\r\n",
    "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
    "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
  ]) {
    const client = await rawClient(t, url);
    client.send(Buffer.from(bytes, "latin1"));
    const { status, headers, json } = await client.answer();
    assert.equal(status, 400, bytes);
    assert.equal(json.error.code, "BAD_REQUEST");
    assert.equal(json.error.details, null);
    assert.equal(headers.get("content-type"), "application/json; charset=utf-8");
    assert.match(json.meta.timestamp, /Z$/);
    assert.equal(headers.get("x-request-id"), json.meta.request_id);
    assert.equal(kept.lines().filter((line) => line.request_id === json.meta.request_id).length, 1);
    if (bytes.includes("no host")) continue;
    assert.equal(headers.get("connection"), "close");
    assert.equal(await client.ended(), "");
  }
});

test("HTTP/1.0 needs no Host, and gets one answer without an interim one", async (t) => {
  const { url } = await startHttpServer(t, { routes: gate().routes });
  const post =
    "POST /echo HTTP/1.0\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}";
  for (const bytes of ["GET /fast HTTP/1.0\r\n\r\n", post]) {
    const client = await rawClient(t, url);
    client.send(bytes);
    assert.equal((await client.answer()).status, 200);
    assert.equal(await client.ended(), "");
  }
});

test("an offer to speak another protocol is not taken up, and the request is answered", async (t) => {
  const { url } = await startHttpServer(t, { routes: gate().routes });
  const client = await rawClient(t, url);
  for (const Upgrade of ["h2c", "websocket"]) {
    const headers = { Connection: "Upgrade", Upgrade, "Content-Type": "application/json" };
    client.send(rawRequest("POST", "/echo", headers, '{"x":1}'));
    assert.deepEqual((await client.answer()).json.data, { x: 1 });
  }
});

test("two ways of telling where a body ends are refused, and nothing behind them is taken for a request", async (t) => {
  const { url } = await startHttpServer(t, { routes: gate().routes, timeouts: { lingerMs: 30 } });
  const smuggled = rawRequest("GET", "/fast");
  for (const framing of [
    `Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${smuggled}`,
    `Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n${smuggled}`,
    `Content-Length: 0\r\nContent-Length: 5\r\n\r\n${smuggled}`,
    `Content-Length: 0, 5\r\n\r\n${smuggled}`,
    `Content-Length: -5\r\n\r\n${smuggled}`,
    `Content-Length: +5\r\n\r\n${smuggled}`,
    `Content-Length: 0x5\r\n\r\n${smuggled}`,
    `Content-Length: 99999999999999999999999\r\n\r\n${smuggled}`,
    `Transfer-Encoding: gzip\r\n\r\n${smuggled}`,
    `Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n${smuggled}`,
    `Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n${smuggled}`,
  ]) {
    const client = await rawClient(t, url);
    client.send(`POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n${framing}`);
    const answer = await client.answer();
    assert.equal(answer.status, 400, framing);
    assert.equal(answer.json.error.code, "BAD_REQUEST");
    assert.equal(answer.headers.get("connection"), "close");
    assert.equal(await client.ended(), "", framing);
  }
});

test("a body whose chunks are not chunks is refused at once, not when its time is over", async (t) => {
  const { url } = await startHttpServer(t, { routes: gate().routes, timeouts: { lingerMs: 30 } });
  const client = await rawClient(t, url);
  const headers = { "Content-Type": "application/json", "Transfer-Encoding": "chunked" };
  client.send(`${rawRequest("POST", "/echo", headers)}2\r\n{}\r\nzz\r\n`);
  const answer = await client.answer();
  assert.equal(answer.status, 400);
  assert.equal(answer.json.error.message, "The body broke off, or is not valid HTTP/1.1");
  assert.equal(answer.headers.get("connection"), "close");
});

test("too many headers get 431 in the envelope, also for a client that sends on", async (t) => {
  const { url } = await startHttpServer(t, { routes: gate().routes });
  for (const bytes of [
    rawRequest("GET", "/fast", { "X-Long": "x".repeat(17_000) }),
    rawRequest("GET", `/fast?${"x".repeat(17_000)}`),
    rawRequest("GET", "/fast", Object.fromEntries(Array.from({ length: 2_000 }, (_, i) => [`X-${i}`, "0123456789"]))),
    rawRequest("GET", "/fast", { "X-Long": "x".repeat(4_000_000) }),
  ]) {
    const client = await rawClient(t, url);
    client.send(bytes);
    const answer = await client.answer();
    assert.equal(answer.status, 431);
    assert.equal(answer.json.error.code, "HEADERS_TOO_LARGE");
    assert.equal(answer.headers.get("connection"), "close");
    assert.equal(await client.ended(), "");
    assert.equal(client.socket.errored, null, "no reset, which could overtake the answer");
  }
  const client = await rawClient(t, url);
  client.send(rawRequest("GET", "/fast", { "X-Long": "x".repeat(15_000) }));
  assert.equal((await client.answer()).status, 200, "15 KB are fine");
});

test("headers that take too long get 408 and the end, on a new connection and on a kept one", async (t) => {
  const { url } = await startHttpServer(t, { routes: gate().routes, timeouts: { headersMs: 60 } });
  for (const before of ["", rawRequest("GET", "/fast")]) {
    const client = await rawClient(t, url);
    client.send(`${before}GET /fast HTTP/1.1\r\nHo`);
    if (before !== "") assert.equal((await client.answer()).status, 200);
    const answer = await client.answer();
    assert.equal(answer.status, 408);
    assert.equal(answer.json.error.code, "REQUEST_TIMEOUT");
    assert.equal(await client.ended(), "");
  }
});

test("a JSON body that takes too long gets 408 and the end", async (t) => {
  const { url } = await startHttpServer(t, { routes: gate().routes, timeouts: { bodyMs: 40, lingerMs: 40 } });
  const client = await rawClient(t, url);
  client.send(rawRequest("POST", "/echo", { "Content-Type": "application/json", "Content-Length": "10" }, '{"x"'));
  const answer = await client.answer();
  assert.equal(answer.status, 408);
  assert.equal(answer.json.error.code, "REQUEST_TIMEOUT");
  assert.equal(answer.headers.get("connection"), "close");
  assert.equal(await client.ended(), "");
});

test("a connection is kept for many requests, and given up when it is idle for long", async (t) => {
  const { url } = await startHttpServer(t, { routes: gate().routes, timeouts: { keepAliveMs: 50 } });
  const client = await rawClient(t, url);
  for (let i = 0; i < 20; i++) {
    client.send(rawRequest("GET", "/fast"));
    const answer = await client.answer();
    assert.equal(answer.headers.get("connection"), "keep-alive");
  }
  assert.equal(await client.ended(), "");
});

test("also after transfers of objects an idle connection is given up, and nothing piles up on it", async (t) => {
  const warnings: Error[] = [];
  const onWarning = (warning: Error): number => warnings.push(warning);
  process.on("warning", onWarning);
  t.after(() => process.off("warning", onWarning));
  const raw: Route = {
    kind: "raw",
    method: "GET",
    path: "/raw/*",
    summary: "",
    access: "public",
    async handle(_req, res) {
      res.end("raw");
      await new Promise((resolve) => res.once("close", resolve));
    },
  };
  const { url } = await startHttpServer(t, { routes: [raw], timeouts: { keepAliveMs: 50 } });
  const client = await rawClient(t, url);
  for (let i = 0; i < 15; i++) {
    client.send(rawRequest("HEAD", "/raw/x"));
    assert.equal((await client.answer({ bodiless: true })).status, 200);
  }
  assert.equal(await client.ended(), "");
  assert.deepEqual(warnings, []);
});

test("a transfer in which nothing moves is cut", async (t) => {
  const raw: Route = {
    ...{ kind: "raw", method: "PUT", path: "/raw/*", summary: "", access: "public" },
    async handle(req, res) {
      for await (const _ of req);
      res.end();
    },
  };
  const { url } = await startHttpServer(t, { routes: [raw], timeouts: { silenceMs: 50 } });
  const client = await rawClient(t, url);
  client.send(rawRequest("PUT", "/raw/x", { "Content-Length": "10" }, "123"));
  assert.equal(await client.ended(), "");
});

test("whoever closes their side after the request still gets the answer", async (t) => {
  const { routes, started, release } = gate();
  const { url } = await startHttpServer(t, { routes });
  const client = await rawClient(t, url);
  client.socket.end(rawRequest("GET", "/fast") + rawRequest("GET", "/gate/a"));
  assert.equal((await client.answer()).status, 200);
  await started("a");
  // The server has seen the end by now.
  await delay(20);
  release("a");
  assert.equal((await client.answer()).json.data.name, "a");
  assert.equal(await client.ended(), "");
});

test("a client that goes away in mid-request harms nobody", async (t) => {
  const { routes, started, release } = gate();
  const { url } = await startHttpServer(t, { routes, timeouts: { lingerMs: 30 } });
  for (const bytes of [
    "",
    "CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n",
    "GET /fa",
    rawRequest("GET", "/gate/gone"),
    rawRequest("POST", "/echo", { "Content-Type": "application/json", "Content-Length": "10" }, "{"),
    rawRequest("POST", "/nothing", { "Content-Length": "100000" }, "{"),
  ]) {
    const [reset, half] = [await rawClient(t, url), await rawClient(t, url)];
    reset.send(bytes);
    half.send(bytes);
    await delay(5);
    reset.socket.resetAndDestroy();
    half.socket.end();
  }
  await started("gone");
  release("gone");
  const client = await rawClient(t, url);
  client.send(rawRequest("GET", "/fast"));
  assert.equal((await client.answer()).status, 200);
});

test("close() finishes what is in flight, takes nothing new, and waits for no idle connection", async (t) => {
  const { routes, started, release } = gate();
  const { url, close } = await startHttpServer(t, { routes });
  const [busy, silent, kept, half] = await Promise.all(Array.from({ length: 4 }, () => rawClient(t, url)));
  assert.ok(busy && silent && kept && half);
  kept.send(rawRequest("GET", "/fast"));
  assert.equal((await kept.answer()).status, 200);
  half.send("GET /fa");
  busy.send(rawRequest("GET", "/gate/a"));
  await started("a");
  let isClosed = false;
  const closed = close().then(() => {
    isClosed = true;
  });
  for (const client of [silent, kept, half]) assert.equal(await client.ended(), "");
  await assert.rejects(fetch(`${url}/fast`));
  assert.equal(isClosed, false);
  release("a");
  const answer = await busy.answer();
  assert.equal(answer.json.data.name, "a");
  assert.equal(answer.headers.get("connection"), "close");
  await closed;
});

test("close() waits for a download that began before, and then for no one", async (t) => {
  const { app, confirmedUpload, close } = await startTestApp(t);
  const bytes = Buffer.alloc(6_000_000, "x");
  const { download_url } = await confirmedUpload(bytes);
  const client = await rawClient(t, app.url);
  const { pathname, search } = new URL(download_url);
  client.send(rawRequest("GET", pathname + search));
  client.socket.pause();
  await delay(50);
  const closed = close();
  await delay(50);
  client.socket.resume();
  assert.equal((await client.answer()).text.length, bytes.length);
  await closed;
  await assert.rejects(fetch(`${app.url}/health`));
});

test("close() gives up on what does not finish", async (t) => {
  const kept = keptLog();
  const { routes, started } = gate();
  const { url, close } = await startHttpServer(t, { routes, log: kept.log, timeouts: { closeGraceMs: 50 } });
  const client = await rawClient(t, url);
  client.send(rawRequest("GET", "/gate/never"));
  await started("never");
  await close();
  assert.equal(await client.ended(), "");
  assert.equal(kept.lines().filter((line) => line.msg === "connections_cut").length, 1);
});
