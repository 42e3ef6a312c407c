import assert from "node:assert/strict";
import { existsSync, readdirSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import Database from "better-sqlite3";
import { holdLock } from "./_db.ts";
import { initProgram, logLines, runProgram, type ServingProgram, serveProgram } from "./_process.ts";
import { rawClient } from "./_raw_http.ts";
import { until } from "./_until.ts";

/** Creates an upload; returns where its bytes go and how it is confirmed. */
async function createUpload({ call }: ServingProgram, key: string): Promise<{ path: string; uploadUrl: string }> {
  const { json } = await call("POST", "/api/v1/uploads", { key, body: { filename: "a.bin", category: "file" } });
  return { path: `/api/v1/uploads/${json.data.upload.id}`, uploadUrl: json.data.upload_url };
}

/** Resolves with whether the server takes a new connection. */
function accepts(url: string): Promise<boolean> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve) => {
    const socket = connect({ host: hostname, port: Number(port) });
    socket.once("error", () => resolve(false));
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
  });
}

/** The files of PUTs that are under way. */
function halfSent(dataDir: string): string[] {
  return readdirSync(join(dataDir, "objects", "tmp"));
}

/** Nothing waits in the write-ahead log: the database file alone is whole. */
function assertCheckpointed(dataDir: string): void {
  const wal = join(dataDir, "stowage.db-wal");
  assert.ok(!existsSync(wal) || statSync(wal).size === 0, "the log was copied into the database");
}

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  test(`${signal} during a slow PUT: no new connections, the PUT ends well, exit 0, nothing left in the log`, async (t) => {
    const { dataDir, made } = await initProgram(t);
    const server = await serveProgram(t, dataDir);
    const { path, uploadUrl } = await createUpload(server, made.api_key);
    const { host, pathname, search } = new URL(uploadUrl);
    const idle = await rawClient(t, server.url);
    const client = await rawClient(t, server.url);
    client.send(`PUT ${pathname}${search} HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 10\r\n\r\nhalf `);
    await until(() => halfSent(dataDir).length === 1, "the first half is being written");

    server.child.kill(signal);
    await server.says('"msg":"stopping"');
    await idle.ended();
    assert.equal(await accepts(server.url), false);
    client.send("done.");
    const answer = await client.answer();
    assert.equal(answer.status, 200);
    const { exitCode, stderr } = await server.ended;
    assert.equal(exitCode, 0);
    assert.deepEqual(
      logLines(stderr)
        .map(({ msg }) => msg)
        .slice(-3),
      ["stopping", "request", "stopped"],
    );
    assertCheckpointed(dataDir);

    const next = await serveProgram(t, dataDir);
    const body = { context_type: "workspace", context_id: made.workspace_id };
    const confirmed = await next.call("POST", path, { key: made.api_key, body });
    assert.equal(confirmed.json.data.size_bytes, 10, "what was answered before the end is there after it");
  });
}

test("a write that waits for the database when the signal comes is made and answered", async (t) => {
  const { dataDir, made } = await initProgram(t);
  const server = await serveProgram(t, dataDir);
  // Someone who looks into the file meanwhile: SQLite empties the log by itself only when the last connection closes.
  const sql = new Database(join(dataDir, "stowage.db"), { readonly: true });
  t.after(() => sql.close());
  assert.equal(sql.prepare("SELECT count(*) FROM uploads").pluck().get(), 0);
  const held = await holdLock(t, dataDir);
  const client = await rawClient(t, server.url);
  client.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
  assert.equal((await client.answer()).status, 200);
  const body = '{"filename":"a.bin","category":"file"}';
  client.send(
    `POST /api/v1/uploads HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${made.api_key}\r\n` +
      `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
  );
  // The server looks at its connections in turns: when a second one was answered, a turn after the POST has ended.
  for (let turn = 0; turn < 2; turn++) await server.call("GET", "/health");
  server.child.kill("SIGTERM");
  await server.says('"msg":"stopping"');
  held.release();
  const answer = await client.answer();
  assert.equal(answer.status, 201);
  assert.equal(answer.headers.get("connection"), "close");
  assert.equal((await server.ended).exitCode, 0);
  assertCheckpointed(dataDir);
  assert.equal(sql.prepare("SELECT id FROM uploads").pluck().get(), answer.json.data.upload.id);
});

test("a second signal ends the process at once; the half-sent file is swept at the next start", async (t) => {
  const { dataDir, made } = await initProgram(t);
  const server = await serveProgram(t, dataDir);
  const { uploadUrl } = await createUpload(server, made.api_key);
  const { host, pathname, search } = new URL(uploadUrl);
  const client = await rawClient(t, server.url);
  client.send(`PUT ${pathname}${search} HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 10\r\n\r\nhalf `);
  await until(() => halfSent(dataDir).length === 1, "the first half is being written");
  server.child.kill("SIGTERM");
  await server.says('"msg":"stopping"');
  server.child.kill("SIGINT");
  assert.equal((await server.ended).exitCode, 130);
  assert.equal(halfSent(dataDir).length, 1);
  await serveProgram(t, dataDir);
  assert.deepEqual(halfSent(dataDir), []);
});

test("a port that is taken ends the start with the reason, and leaves nothing locked", async (t) => {
  const { dataDir } = await initProgram(t);
  const other = createServer();
  await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
  t.after(() => other.close());
  const { port } = other.address() as AddressInfo;
  const env = { STOWAGE_DATA_DIR: dataDir, STOWAGE_PORT: String(port) };
  const { exitCode, stdout, stderr } = await runProgram(t, ["serve"], env);
  assert.equal(exitCode, 1);
  assert.equal(stdout, "");
  assert.equal(
    stderr,
    `stowage: error: Cannot listen on 127.0.0.1:${port}: another process uses this port\n` +
      "stowage: hint: stop it, or set STOWAGE_PORT to another port\n",
  );
  assertCheckpointed(dataDir);
  const server = await serveProgram(t, dataDir);
  assert.equal((await server.call("GET", "/ready")).status, 200);
});

for (const [host, why] of [
  ["192.0.2.1", "this machine has no such address"],
  ["stowage.invalid", "the host name is not known"],
]) {
  test(`a host that cannot be listened on is named: ${host}`, async (t) => {
    const { dataDir } = await initProgram(t);
    const env = { STOWAGE_DATA_DIR: dataDir, STOWAGE_HOST: host ?? "" };
    const { exitCode, stderr } = await runProgram(t, ["serve"], env);
    assert.equal(exitCode, 1);
    assert.equal(
      stderr,
      `stowage: error: Cannot listen on ${host}:0: ${why}\n` +
        `stowage: hint: set STOWAGE_HOST to ${host === "192.0.2.1" ? "one that it has" : "an address of this machine"}, such as 127.0.0.1\n`,
    );
  });
}

test("a server goes on when whoever read its log has gone", async (t) => {
  const { dataDir, made } = await initProgram(t);
  const server = await serveProgram(t, dataDir);
  server.child.stderr?.destroy();
  for (let i = 0; i < 5; i++) await createUpload(server, made.api_key);
  assert.equal((await server.call("GET", "/ready")).status, 200);
  server.child.kill("SIGTERM");
  assert.equal((await server.ended).exitCode, 0);
});
