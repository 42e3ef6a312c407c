// Goal: one client cannot take what belongs to all, and what it breaks is its own connection.
import assert from "node:assert/strict";
import type { Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import * as z from "zod";
import { addressGroup } from "../lib/http/address_room.ts";
import type { AnsweredRequest } from "../lib/http/refusals.ts";
import { publicRoute, type Route, route } from "../lib/http/routes.ts";
import { trustedAddresses } from "../lib/http/trusted_addresses.ts";
import { keptLog, type RawClient, rawClient, rawRequest, startHttpServer } from "./_raw_http.ts";
import { until } from "./_until.ts";

const JSON_TYPE = { "Content-Type": "application/json" };
const SHORT = { lingerMs: 50, bodyStallMs: 100 };

const fast = publicRoute({ method: "GET", path: "/fast", summary: "", handle: () => ({ bare: { fast: true } }) });
const echo = route({
  ...{ method: "POST", path: "/echo", summary: "", access: "any" },
  body: z.unknown(),
  handle: ({ body }) => ({ data: body }),
});

/**
 * A client whose connection has served a request of `fast`: so the server has taken it in, where "connected" is only what the
 * kernel says.
 */
async function servedClient(t: TestContext, url: string, options: { localAddress?: string } = {}): Promise<RawClient> {
  const client = await rawClient(t, url, options);
  client.send(rawRequest("GET", "/fast"));
  assert.equal((await client.answer()).status, 200);
  return client;
}

/** Answers once it is let to. */
const slowRoute = (gate: Promise<void>): Route =>
  publicRoute({
    ...{ method: "GET", path: "/slow", summary: "" },
    async handle() {
      await gate;
      return { bare: {} };
    },
  });

/** Reads its body to the end and says how long it was. `before` is awaited first. */
function putRoute(before: () => Promise<void> = async () => {}): Route {
  return {
    ...{ kind: "raw", method: "PUT", path: "/raw/*", summary: "", access: "public" },
    async handle(_req, res, { body }) {
      await before();
      let sizeBytes = 0;
      for await (const chunk of body) sizeBytes += chunk.length;
      res.end(String(sizeBytes));
    },
  };
}

interface Watched {
  answered: AnsweredRequest[];
  requests: () => { route: string; status: number }[];
  errors: () => unknown[];
  /** How often this event was logged. */
  logged: (msg: string) => number;
}

async function serve(
  t: TestContext,
  options: Parameters<typeof startHttpServer>[1],
): Promise<Watched & { url: string; close: () => Promise<void> }> {
  const kept = keptLog();
  const answered: AnsweredRequest[] = [];
  const server = await startHttpServer(t, {
    timeouts: SHORT,
    log: kept.log,
    onAnswered: (request) => answered.push(request),
    ...options,
  });
  return {
    ...server,
    answered,
    requests: () =>
      kept
        .lines()
        .filter(({ msg }) => msg === "request")
        .map(({ route, status }) => ({ route, status })),
    logged: (wanted) => kept.lines().filter(({ msg }) => msg === wanted).length,
    errors: () => kept.lines().filter(({ level }) => level === "error"),
  };
}

for (const [how, leave] of [
  ["resets", (socket: Socket) => void socket.resetAndDestroy()],
  ["closes", (socket: Socket) => void socket.destroy()],
  ["closes its side", (socket: Socket) => void socket.end()],
] as const) {
  for (const moment of ["before its body is read", "while its body is read"] as const) {
    test(`a client that ${how} ${moment} ends its request at once, and the request is the client's fault`, async (t) => {
      const gate = Promise.withResolvers<void>();
      let began = false;
      const routes = [
        fast,
        putRoute(async () => {
          began = true;
          if (moment === "before its body is read") await gate.promise;
        }),
      ];
      const server = await serve(t, { routes });
      const client = await rawClient(t, server.url);
      client.send(rawRequest("PUT", "/raw/x", { "Content-Length": "500000" }, "twenty bytes of them"));
      await until(() => began, "the handler begins");
      leave(client.socket);
      await delay(20);
      gate.resolve();
      await until(() => server.requests().length === 1, "the request has ended");
      assert.equal(server.requests()[0]?.status, 499);
      assert.deepEqual(server.errors(), []);
      assert.equal(server.answered.length, 1);
      assert.equal(server.answered[0]?.status, 499);
      assert.equal((await fetch(`${server.url}/fast`)).status, 200);
    });
  }
}

test("a malformed chunk before the body is read is answered as soon as it is", async (t) => {
  const gate = Promise.withResolvers<void>();
  const server = await serve(t, { routes: [putRoute(() => gate.promise)] });
  const client = await rawClient(t, server.url);
  client.send(`${rawRequest("PUT", "/raw/x", { "Transfer-Encoding": "chunked" })}5\r\nhello\r\nzz\r\n`);
  await delay(20);
  gate.resolve();
  const answer = await client.answer();
  assert.equal(answer.status, 400);
  assert.equal(answer.json.error.code, "BAD_REQUEST");
  assert.equal(await client.ended(), "");
});

test("a client that is gone before its response is 499 in log and metrics, whatever the handler says", async (t) => {
  const gate = Promise.withResolvers<void>();
  const slow = slowRoute(gate.promise);
  const server = await serve(t, { routes: [slow] });
  const client = await rawClient(t, server.url);
  client.send(rawRequest("GET", "/slow"));
  await delay(20);
  client.socket.resetAndDestroy();
  await delay(20);
  gate.resolve();
  await until(() => server.requests().length === 1, "the request has ended");
  assert.deepEqual(server.requests(), [{ route: "/slow", status: 499 }]);
  assert.equal(server.answered[0]?.status, 499);
});

test("nothing that is thrown while a request is answered reaches the process", async (t) => {
  const raw = (path: string, handle: (res: import("node:http").ServerResponse) => void): Route => ({
    ...{ kind: "raw", method: "GET", path, summary: "", access: "public" },
    async handle(_req, res) {
      handle(res);
    },
  });
  const json = (path: string, handle: () => unknown, after?: () => void): Route =>
    publicRoute({
      ...{ method: "GET", path, summary: "" },
      handle: () => ({ bare: handle(), ...(after === undefined ? {} : { after }) }),
    });
  const fail = (): never => {
    throw new Error("of the kind that nobody thought of");
  };
  const routes = [
    fast,
    json("/throws", fail),
    json("/throws/undefined", () => {
      throw undefined;
    }),
    json("/bigint", () => ({ size: 1n })),
    json("/after", () => ({}), fail),
    raw("/raw/after-headers", (res) => {
      res.writeHead(200, { "Content-Length": 10 });
      res.write("12345");
      fail();
    }),
    raw("/raw/twice", (res) => {
      res.writeHead(200).end();
      res.writeHead(200).end();
    }),
    raw("/raw/bad-header", (res) => void res.writeHead(200, { "X-Bad": "a\nb" })),
  ];
  for (const [what, options] of [
    ["in a handler", {}],
    ["in the log's fields", { describe: fail }],
    ["in the metrics", { onAnswered: fail }],
    ["in the authentication", { authenticate: fail }],
  ] as const) {
    const server = await serve(t, { routes: [...routes, echo], ...options });
    for (const { path } of routes) {
      const client = await rawClient(t, server.url);
      client.send(rawRequest("GET", path));
      await client.answer().catch(() => {});
      client.socket.destroy();
    }
    const client = await rawClient(t, server.url);
    client.send(rawRequest("POST", "/echo", JSON_TYPE, "{}"));
    await client.answer().catch(() => {});
    const status = await fetch(`${server.url}/fast`).then(
      ({ status }) => status,
      () => "cut",
    );
    // With metrics that fail every request fails; the process answers the next one all the same.
    assert.ok(status === 200 || what === "in the metrics", what);
    assert.ok(server.errors().length > 0, what);
  }
});

test("a few requests of a connection are answered at once, however many are pipelined, and none is lost", async (t) => {
  const pipelined = 200;
  let atOnce = 0;
  let atOnceMax = 0;
  const gate = Promise.withResolvers<void>();
  const slow = publicRoute({
    ...{ method: "GET", path: "/slow", summary: "" },
    async handle() {
      atOnceMax = Math.max(atOnceMax, ++atOnce);
      await gate.promise;
      atOnce--;
      return { bare: {} };
    },
  });
  const server = await serve(t, { routes: [slow, fast] });
  const client = await rawClient(t, server.url);
  client.send(rawRequest("GET", "/slow").repeat(pipelined));
  await until(() => atOnceMax >= 8, "the first are begun");
  await delay(50);
  assert.equal(atOnceMax, 8);
  // What is not taken in stays with the sender: a few system buffers, not all of a flood.
  const large = 2_000;
  for (let i = 0; i < large; i++) client.send(rawRequest("GET", "/slow", { "X-Long": "x".repeat(15_000) }));
  await delay(100);
  const taken = client.socket.writableLength;
  assert.ok(taken > 0, "the sender is held up");
  assert.equal((await fetch(`${server.url}/fast`)).status, 200);
  gate.resolve();
  for (let i = 0; i < pipelined + large; i++) assert.equal((await client.answer()).status, 200);
  assert.ok(atOnceMax <= 8);
  client.send(rawRequest("GET", "/fast"));
  assert.equal((await client.answer()).status, 200, "the connection is good for more");
});

test("a connection that pipelines without measure is cut, and costs the others nothing", async (t) => {
  const gate = Promise.withResolvers<void>();
  const slow = slowRoute(gate.promise);
  const server = await serve(t, { routes: [slow, fast] });
  const client = await rawClient(t, server.url);
  client.send(rawRequest("GET", "/slow").repeat(5_000));
  assert.equal(await client.ended(), "");
  gate.resolve();
  await until(() => server.requests().length >= 200, "those that were taken in are logged");
  assert.ok(server.requests().length < 300, "the rest was dropped unseen");
  assert.equal((await fetch(`${server.url}/fast`)).status, 200);
});

test("requests that wait behind others are logged once when their client goes away", async (t) => {
  const gate = Promise.withResolvers<void>();
  const slow = slowRoute(gate.promise);
  const server = await serve(t, { routes: [slow] });
  const client = await rawClient(t, server.url);
  client.send(rawRequest("GET", "/slow").repeat(20));
  await delay(50);
  client.socket.resetAndDestroy();
  await delay(50);
  gate.resolve();
  await until(() => server.requests().length === 20, "all are logged");
  // Those that were begun may be written to a connection of which nobody has heard yet that it is gone.
  assert.ok(server.requests().filter(({ status }) => status === 499).length >= 12);
});

for (const [what, head, status] of [
  ["GET with a body", rawRequest("GET", "/fast", { "Content-Length": "1000" }), 200],
  ["a path that is none", rawRequest("POST", "/none", { "Content-Length": "1000" }), 404],
  ["OPTIONS", rawRequest("OPTIONS", "/fast", { "Content-Length": "1000" }), 204],
  ["a wrong type", rawRequest("POST", "/echo", { "Content-Length": "1000" }), 415],
  ["a chunked body", rawRequest("GET", "/fast", { "Transfer-Encoding": "chunked" }), 200],
  ["too large a body", rawRequest("POST", "/echo", { ...JSON_TYPE, "Content-Length": "100000" }), 413],
] as const) {
  test(`a body that drips on after the response does not keep the connection: ${what}`, async (t) => {
    const server = await serve(t, { routes: [fast, echo] });
    const client = await rawClient(t, server.url);
    client.send(head);
    const drip = setInterval(() => client.send(head.includes("chunked") ? "1\r\nx\r\n" : "x"), 5);
    t.after(() => clearInterval(drip));
    assert.equal((await client.answer({ bodiless: status === 204 })).status, status);
    await client.ended();
  });
}

test("a connection is kept if the rest of a small body comes soon", async (t) => {
  const server = await serve(t, { routes: [fast, echo], timeouts: { lingerMs: 300 } });
  const client = await rawClient(t, server.url);
  for (let i = 0; i < 3; i++) {
    client.send(rawRequest("POST", "/none", { "Content-Length": "10" }, "12345"));
    assert.equal((await client.answer()).status, 404);
    client.send("67890");
    await delay(i * 150);
  }
  await delay(350);
  client.send(rawRequest("GET", "/fast"));
  assert.equal((await client.answer()).status, 200);
});

test("a body that is slower than the least rate gets 408, one that pauses and goes on does not", async (t) => {
  const server = await serve(t, {
    routes: [putRoute()],
    bodyBytesPer10sMin: 1_000_000,
    timeouts: { lingerMs: 50, bodyStallMs: 200 },
  });
  const dripping = await rawClient(t, server.url);
  dripping.send(rawRequest("PUT", "/raw/x", { "Content-Length": "100000" }));
  const drip = setInterval(() => dripping.send("x"), 10);
  t.after(() => clearInterval(drip));
  const answer = await dripping.answer();
  assert.equal(answer.status, 408);
  assert.match(answer.json.error.message, /at least 1000000 bytes in 10 seconds/);
  assert.equal(await dripping.ended(), "");

  const steady = await rawClient(t, server.url);
  steady.send(rawRequest("PUT", "/raw/x", { "Content-Length": "600000" }));
  for (let i = 0; i < 6; i++) {
    await delay(100);
    steady.send(Buffer.alloc(100_000));
  }
  assert.equal((await steady.answer()).text, "600000");
  assert.deepEqual(
    server.requests().map(({ status }) => status),
    [408, 200],
  );
});

test("an address has so many connections and no more, is told so, and others are let in", async (t) => {
  const server = await serve(t, { routes: [fast], connectionsPerAddressMax: 5 });
  const greedy = await Promise.all(
    Array.from({ length: 5 }, () => servedClient(t, server.url, { localAddress: "127.0.0.2" })),
  );
  const more = await rawClient(t, server.url, { localAddress: "127.0.0.2" });
  const refused = await more.answer();
  assert.equal(refused.status, 429);
  assert.equal(refused.json.error.code, "RATE_LIMITED");
  assert.equal(refused.headers.get("retry-after"), "1");
  assert.equal(await more.ended(), "");
  assert.equal((await fetch(`${server.url}/fast`)).status, 200);
  greedy[0]?.socket.destroy();
  await delay(20);
  await servedClient(t, server.url, { localAddress: "127.0.0.2" });
});

test("a proxy's address may have any number of connections", async (t) => {
  const server = await serve(t, {
    routes: [fast],
    connectionsPerAddressMax: 2,
    isTrustedAddress: trustedAddresses(["127.0.0.0/30"]),
  });
  for (let i = 0; i < 6; i++) await servedClient(t, server.url);
});

test("when all connections are taken, the address that has most gives one up for the newcomer", async (t) => {
  const server = await serve(t, { routes: [fast], connectionsMax: 6 });
  const idle = await Promise.all(
    Array.from({ length: 5 }, () => rawClient(t, server.url, { localAddress: "127.0.0.3" })),
  );
  for (let i = 0; i < 3; i++) await servedClient(t, server.url, { localAddress: `127.0.0.${4 + i}` });
  await until(() => idle.filter(({ socket }) => socket.readableEnded || socket.destroyed).length === 2, "two gave way");
});

test("addresses are grouped as they are given out", () => {
  for (const [address, group] of [
    ["192.0.2.1", "192.0.2.1"],
    ["::ffff:192.0.2.1", "192.0.2.1"],
    ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
    ["2001:db8::6", "2001:db8:0:0::/64"],
    ["fe80::1%eth0", "fe80:0:0:0::/64"],
    ["::1", "0:0:0:0::/64"],
  ] as const) {
    assert.equal(addressGroup(address), group, address);
  }
  const isTrusted = trustedAddresses(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]);
  for (const address of ["10.1.2.3", "::ffff:10.1.2.3", "192.0.2.7", "2001:db8:5::1"])
    assert.ok(isTrusted(address), address);
  for (const address of ["11.0.0.1", "192.0.2.8", "2001:db9::1", "", "nonsense"])
    assert.ok(!isTrusted(address), address);
});

test("a client that does not read its responses is cut, one that waits for a slow handler is not", async (t) => {
  const gate = Promise.withResolvers<void>();
  const text = "x".repeat(8_000_000);
  const routes = [
    publicRoute({ method: "GET", path: "/large", summary: "", handle: () => ({ bare: { text } }) }),
    publicRoute({
      ...{ method: "GET", path: "/slow", summary: "" },
      async handle() {
        await gate.promise;
        return { bare: { slow: true } };
      },
    }),
  ];
  const server = await serve(t, { routes, timeouts: { silenceMs: 100 } });
  const patient = await rawClient(t, server.url);
  patient.send(rawRequest("GET", "/slow"));
  const deaf = await rawClient(t, server.url);
  deaf.socket.pause();
  deaf.send(rawRequest("GET", "/large").repeat(4));
  await until(() => server.requests().length === 4, "all are answered, as far as that goes");
  await delay(500);
  deaf.socket.resume();
  const read = await deaf.ended();
  assert.ok(read.length < 2 * text.length, "the rest was given up");
  gate.resolve();
  assert.deepEqual((await patient.answer()).json, { slow: true });
});

test("what clients do not read is bounded, and those that leave the most unread are cut first", async (t) => {
  const text = "x".repeat(4_000_000);
  const routes = [
    publicRoute({ method: "GET", path: "/large", summary: "", handle: () => ({ bare: { text } }) }),
    fast,
  ];
  const server = await serve(t, { routes });
  const deaf = await Promise.all(
    Array.from({ length: 8 }, async () => {
      const client = await rawClient(t, server.url);
      client.socket.pause();
      client.send(rawRequest("GET", "/large").repeat(8));
      return client;
    }),
  );
  const modest = await rawClient(t, server.url);
  modest.socket.pause();
  modest.send(rawRequest("GET", "/fast").repeat(3));
  await until(() => server.logged("unread_responses_dropped") > 0, "the largest are given up");
  modest.socket.resume();
  for (let i = 0; i < 3; i++) assert.equal((await modest.answer()).status, 200);
  for (const { socket } of deaf) socket.destroy();
  assert.deepEqual(server.errors(), []);
});

test("close() does not wait for clients that are half dead", async (t) => {
  const server = await serve(t, {
    routes: [putRoute(), echo, fast],
    timeouts: { closeStallMs: 100, bodyMs: 60_000, bodyStallMs: 60_000 },
  });
  for (let i = 0; i < 50; i++) {
    const client = await rawClient(t, server.url);
    const silent = i % 2 === 0;
    client.send(
      i % 3 === 0
        ? rawRequest("POST", "/echo", { ...JSON_TYPE, "Content-Length": "100" }, "{")
        : rawRequest("PUT", "/raw/x", { "Content-Length": "100000" }, "x"),
    );
    if (silent) continue;
    const drip = setInterval(() => client.send("x"), 20);
    t.after(() => clearInterval(drip));
  }
  await delay(100);
  const startedMs = performance.now();
  await server.close();
  assert.ok(performance.now() - startedMs < 5_000);
  assert.equal(server.requests().length, 50);
});
