import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { openClient } from "./_connection_matrix_client.ts";
import { halfSent, soon } from "./_connection_matrix_program.ts";
import { downloadUrl, openWorld, stagedUpload } from "./_connection_matrix_world.ts";

// Goal: what several requests on one connection have in common does not make one of them the other's undoing.
// Method: the real program, and bytes in the order and the pieces in which it matters. A random search found all of these.

/** A little more than is read from a socket at once, so that what follows comes in the read after. */
const LARGE_BYTES = 66_000;
/** How often a thing is done that depends on what comes first. */
const TIMES = 4;
const SETTLE_MS = 300;

test("requests behind one that was refused before its body came are not answered, and end nothing", async (t) => {
  const run = await (await openWorld(t)).start();
  const client = await openClient(run.url, ["POST", "PUT", "POST"]);
  t.after(client.close);
  // Refused at once, with "Connection: close"; the rest of the body is read for a moment.
  await client.write("POST /api/v1/uploads HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n");
  await client.responded(1, 5_000);
  const second = `PUT /objects/x HTTP/1.1\r\nHost: x\r\nContent-Length: ${LARGE_BYTES}\r\n\r\n${"x".repeat(LARGE_BYTES)}`;
  const third = "POST /nothing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n";
  // While the process stands still, so that it finds all of it at once.
  await run.stop();
  await client.write(`0\r\n\r\n${second}${third}`);
  run.go();
  assert.ok(await client.ended(5_000), "the connection is closed");
  assert.deepEqual(
    client.responses.map(({ status }) => status),
    [401],
  );
  await run.call("GET", "/health").catch(() => assert.fail(`The process ended: ${run.program.stderr().slice(-600)}`));
});

test("a client that goes away in the middle of the second of two PUTs is noticed at once", async (t) => {
  const world = await openWorld(t);
  const run = await world.start();
  await run.call("GET", "/health");
  const openFiles = run.openFiles();
  const put = ({ pathname, search }: URL, sent: number): string =>
    `PUT ${pathname}${search} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n${"x".repeat(sent)}`;
  const pairs: string[] = [];
  for (let i = 0; i < TIMES; i++) {
    const [first, second] = [await stagedUpload(run, world.key), await stagedUpload(run, world.key)];
    pairs.push(put(first.url, 1_000) + put(second.url, 500));
  }
  // All wait for their files, and then read side by side.
  const store = run.holdStore();
  const clients = await Promise.all(
    pairs.map(async (bytes) => {
      const client = await openClient(run.url, ["PUT", "PUT"]);
      t.after(client.close);
      await client.write(bytes);
      return client;
    }),
  );
  assert.ok(await store.held(2 * TIMES));
  store.release();
  for (const client of clients) {
    await client.responded(1, 5_000);
    assert.equal(client.responses[0]?.status, 200);
    client.close();
  }
  assert.ok(await soon(() => halfSent(world.dataDir).length === 0), "nothing half-sent is left");
  assert.ok(await soon(() => run.openFiles() <= openFiles), "nothing is left open");
  const statuses = (): number[] =>
    run
      .lines()
      .filter(({ method, msg }) => msg === "request" && method === "PUT")
      .map(({ status }) => status)
      .sort();
  await soon(() => statuses().length >= 2 * TIMES);
  assert.deepEqual(statuses(), [...Array(TIMES).fill(200), ...Array(TIMES).fill(499)]);
});

test("a client that offers another protocol, and goes away in the middle of its body, is noticed at once", async (t) => {
  const world = await openWorld(t);
  const run = await world.start();
  const { pathname, search } = (await stagedUpload(run, world.key)).url;
  const requests = {
    PUT: `PUT ${pathname}${search} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n`,
    POST:
      `POST /api/v1/workflows HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${world.key}\r\n` +
      "Content-Type: application/json\r\nContent-Length: 1000\r\n",
  };
  for (const [method, head] of Object.entries(requests)) {
    const from = run.lines().length;
    const client = await openClient(run.url, [method]);
    t.after(client.close);
    await client.write(`${head}Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n{}`);
    await run.call("GET", "/health");
    client.halfClose();
    const isLogged = await soon(() =>
      run
        .lines()
        .slice(from)
        .some(({ method: of }) => of === method),
    );
    assert.ok(isLogged, `the ${method} is at its end`);
    assert.equal(run.lines().findLast(({ method: of }) => of === method)?.status, 499);
    assert.ok(await client.ended(5_000), "the connection is closed");
  }
});

test("CONNECT behind a download does not keep its file and its connection open", async (t) => {
  const world = await openWorld(t);
  const run = await world.start();
  await run.call("GET", "/health");
  const openFiles = run.openFiles();
  const { pathname, search } = await downloadUrl(run, world.key, world.shared.bigUpload);
  const get = `GET ${pathname}${search} HTTP/1.1\r\nHost: x\r\n\r\n`;
  for (let i = 0; i < TIMES; i++) {
    const client = await openClient(run.url, ["GET"]);
    t.after(client.close);
    // Of what is behind CONNECT node:http lets go: it reads the socket no more, and tells no response when to go on.
    await client.write(`${get}CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n`);
    await delay(SETTLE_MS);
    client.close();
  }
  assert.ok(await soon(() => run.openFiles() <= openFiles), "nothing is left open");
});
