import assert from "node:assert/strict";
import { statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { takeServeLock } from "../lib/db/serve_lock.ts";
import { temporaryFolder } from "./_app.ts";
import { holdLock } from "./_db.ts";
import { initProgram, runProgram, serveProgram } from "./_process.ts";

test("a second serve is refused and told which process serves, and where", async (t) => {
  const { dataDir } = await initProgram(t);
  const first = await serveProgram(t, dataDir);
  const second = await runProgram(t, ["serve"], { STOWAGE_DATA_DIR: dataDir });
  assert.equal(second.exitCode, 1);
  assert.equal(
    second.stderr,
    `stowage: error: The data directory "${dataDir}" is already served by process ${first.child.pid} at ${first.url}\n` +
      "stowage: hint: stop that one first, or set STOWAGE_DATA_DIR to another directory\n",
  );
  assert.equal((await first.call("GET", "/ready")).status, 200);
});

test("nothing has to be removed by hand after a SIGKILL: the next serve starts", async (t) => {
  const { dataDir, made } = await initProgram(t);
  const killed = await serveProgram(t, dataDir);
  const created = await killed.call("POST", "/api/v1/uploads", {
    key: made.api_key,
    body: { filename: "a.bin", category: "file" },
  });
  killed.child.kill("SIGKILL");
  assert.equal((await killed.ended).signal, "SIGKILL");
  const next = await serveProgram(t, dataDir);
  const found = await next.call("GET", `/api/v1/uploads/${created.json.data.upload.id}`, { key: made.api_key });
  assert.equal(found.status, 200);
});

test("commands work beside a server, and what they change holds for it at once", async (t) => {
  const { dataDir, made } = await initProgram(t);
  const server = await serveProgram(t, dataDir);
  const run = async (...args: string[]): Promise<string> => {
    const { exitCode, stdout, stderr } = await runProgram(t, args, { STOWAGE_DATA_DIR: dataDir });
    assert.equal(exitCode, 0, stderr);
    return stdout;
  };
  const whoami = async (key: string): Promise<number> =>
    (await server.call("GET", "/api/v1/auth/whoami", { key })).status;

  const another = JSON.parse(await run("keys", "create", "--workspace", made.workspace_id, "--json"));
  assert.equal(await whoami(another.api_key), 200);
  await run("keys", "revoke", another.api_key_id);
  assert.equal(await whoami(another.api_key), 401);
  assert.equal(await whoami(made.api_key), 200);

  await run("workspaces", "set-quota", made.workspace_id, "1");
  const refused = await server.call("POST", "/api/v1/uploads", {
    key: made.api_key,
    body: { filename: "a.bin", category: "file", size_bytes: 2 },
  });
  assert.equal(refused.status, 402);

  const init = await runProgram(t, ["init"], { STOWAGE_DATA_DIR: dataDir });
  assert.equal(init.exitCode, 1);
  assert.equal(init.stdout, "");
  assert.match(init.stderr, /has a workspace already and was left as it is\nstowage: hint: .*`stowage keys create/);
});

test("a process that holds the write lock for ten seconds delays writes and nothing else", async (t) => {
  const { dataDir, made } = await initProgram(t);
  const { call } = await serveProgram(t, dataDir);
  const key = made.api_key;
  const create = () => call("POST", "/api/v1/uploads", { key, body: { filename: "a.bin", category: "file" } });
  const before = await create();
  assert.equal(before.status, 201);

  const held = await holdLock(t, dataDir);
  // Each of the two waits for the limit of five seconds.
  for (let round = 0; round < 2; round++) {
    let answered = false;
    const waiting = create().finally(() => {
      answered = true;
    });
    for (const path of ["/health", "/api/v1/auth/whoami", `/api/v1/uploads/${before.json.data.upload.id}`]) {
      assert.equal((await call("GET", path, { key })).status, 200);
    }
    assert.equal(answered, false, "reads are answered while the write waits");
    const refused = await waiting;
    assert.equal(refused.status, 503);
    assert.equal(refused.json.error.code, "STORAGE_UNAVAILABLE");
    assert.ok(Number(refused.headers["retry-after"]) > 0);
  }

  const queued = create();
  assert.equal((await call("GET", "/health")).status, 200);
  held.release();
  assert.equal((await queued).status, 201, "what waited for less than the limit is done once the lock is free");
  assert.equal((await create()).status, 201);
  assert.equal(
    (await call("GET", "/api/v1/uploads", { key })).json.pagination.total,
    3,
    "a refused write left nothing",
  );
});

test("announcing does not let go of the lock, and the file is private to its user", async (t) => {
  const dataDir = await temporaryFolder(t);
  const lock = takeServeLock(dataDir);
  t.after(() => lock.release());
  assert.equal(statSync(join(dataDir, "serve.lock")).mode & 0o777, 0o600);
  assert.throws(() => takeServeLock(dataDir), { code: "conflict", message: new RegExp(`by process ${process.pid}$`) });
  lock.announce("http://127.0.0.1:1");
  assert.throws(() => takeServeLock(dataDir), {
    code: "conflict",
    message: new RegExp(`by process ${process.pid} at http://127\\.0\\.0\\.1:1$`),
  });
  lock.release();
  takeServeLock(dataDir).release();
});

test("a directory that cannot hold a lock is named, with what to do", async (t) => {
  const dataDir = join(await temporaryFolder(t), "missing");
  assert.throws(() => takeServeLock(dataDir), {
    code: "storage_unavailable",
    message: /^Cannot use the lock file ".*serve\.lock": /,
    hint: /local disk/,
  });
});
