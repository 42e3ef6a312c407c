import assert from "node:assert/strict";
import { test } from "node:test";
import { checkBooks } from "./_books.ts";
import { type Client, openClient } from "./_connection_matrix_client.ts";
import { halfSent, type Run } from "./_connection_matrix_program.ts";
import { downloadUrl, openWorld, stagedUpload, type World } from "./_connection_matrix_world.ts";

// Goal: clients that are half dead do not keep the service from ending.
// Method: the real program gets SIGTERM while fifty of them are connected and one request is really being answered.

const OF_EACH = 5;
/** Promised are 5 s; the rest is for a slow machine. Before, it was half a minute. */
const ENDS_WITHIN_MS = 7_000;

/** Each leaves a connection in a state that it may never get out of. */
const HALF_DEAD: Record<string, (client: Client, world: World, run: Run) => Promise<void>> = {
  async "sends part of a head"(client) {
    await client.write("GET /health HTT");
  },
  async "asked once, and is silent"(client) {
    await client.write("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    await client.responded(1, 5_000);
  },
  async "closed its side after the head of a PUT"(client, world, run) {
    await client.write(await putHead(world, run));
    client.halfClose();
  },
  async "closed its side in the body of a PUT"(client, world, run) {
    await client.write(`${await putHead(world, run)}half`);
    client.halfClose();
  },
  async "is silent in the body of a PUT"(client, world, run) {
    await client.write(`${await putHead(world, run)}half`);
  },
  async "drips the body of a PUT"(client, world, run) {
    await client.write(await putHead(world, run));
    client.drip("x".repeat(400), 300);
  },
  async "sent a chunk of a PUT that is none"(client, world, run) {
    await client.write(`${await putHead(world, run, "Transfer-Encoding: chunked")}zz\r\n`);
  },
  async "is silent in the body of a POST"(client, { key }) {
    const head = `POST /api/v1/workflows HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${key}`;
    await client.write(`${head}\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{`);
  },
  async "drips a body that nobody reads"(client) {
    await client.write("GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n");
    client.drip("x".repeat(400), 300);
  },
  async "does not read its download"(client, { key, shared }, run) {
    client.pause();
    const { pathname, search } = await downloadUrl(run, key, shared.bigUpload);
    await client.write(`GET ${pathname}${search} HTTP/1.1\r\nHost: x\r\n\r\n`);
  },
};

async function putHead({ key }: World, run: Run, framing = "Content-Length: 500000"): Promise<string> {
  const { pathname, search } = (await stagedUpload(run, key)).url;
  return `PUT ${pathname}${search} HTTP/1.1\r\nHost: x\r\n${framing}\r\n\r\n`;
}

test("SIGTERM with fifty half-dead connections: the service ends soon after its last whole request", async (t) => {
  const world = await openWorld(t);
  const run = await world.start();
  const clients: Client[] = [];
  t.after(() => {
    for (const client of clients) client.close();
  });
  for (const make of Object.values(HALF_DEAD)) {
    for (let i = 0; i < OF_EACH; i++) {
      const client = await openClient(run.url, ["GET"]);
      clients.push(client);
      await make(client, world, run);
    }
  }
  assert.equal(clients.length, 50);

  const release = world.holdDatabase();
  const last = await openClient(run.url, ["POST"]);
  clients.push(last);
  await last.write(
    `POST /api/v1/workflows HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${world.key}\r\n` +
      "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
  );
  // A turn after which the request has come to where it waits.
  for (let turn = 0; turn < 2; turn++) await run.call("GET", "/health");
  run.program.child.kill("SIGTERM");
  await run.program.says('"msg":"stopping"');
  release();
  assert.ok(await last.responded(1, 5_000), "the whole request is answered");
  assert.equal(last.responses[0]?.status, 201);
  const answeredMs = performance.now();
  const { exitCode } = await run.program.ended;
  const tookMs = performance.now() - answeredMs;
  assert.equal(exitCode, 0);
  t.diagnostic(`ended ${Math.round(tookMs)} ms after the last whole request`);
  assert.ok(tookMs < ENDS_WITHIN_MS, `ended ${Math.round(tookMs)} ms after the last whole request`);
  assert.deepEqual(halfSent(world.dataDir), []);
  assert.deepEqual(
    run.lines().filter(({ level }) => level === "error" || level === "fatal"),
    [],
  );
  checkBooks(world.sql);
});
