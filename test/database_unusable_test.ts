// Goal: while the service runs, a database that cannot be used is 503 with the cause in /ready, never 500; and what is
// acknowledged is in the file that the next start reads.
// Method: the real service, whose file is moved, replaced, damaged or made read-only under it.
import assert from "node:assert/strict";
import { copyFileSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import Database from "better-sqlite3";
import { DATABASE_FILE } from "../lib/db/db.ts";
import { type Answer, startTestApp, type TestApp } from "./_app.ts";
import { confirmUploads } from "./_operator.ts";
import { initProgram, serveProgram } from "./_process.ts";
import { until } from "./_until.ts";

function assertUnavailable(answer: Answer, why: RegExp): void {
  assert.equal(answer.status, 503, answer.text);
  assert.equal(answer.json.error.code, "STORAGE_UNAVAILABLE");
  assert.match(answer.json.error.message, why);
  assert.doesNotMatch(answer.json.error.message, /\/tmp|stowage\.db/, "no path is told to strangers");
}

/** Everything that writes, tried. */
async function writes(its: TestApp, id: string): Promise<Answer[]> {
  const file = { filename: "a.bin", category: "file" };
  return [
    await its.call("POST", "/api/v1/uploads", { body: file }),
    await its.call("POST", "/api/v1/workflows", { body: {} }),
    await its.confirm(id),
    await its.call("DELETE", `/api/v1/uploads/${id}`),
  ];
}

test("a database that is read-only is 503 with the cause in /ready, and goes on once it is not", async (t) => {
  const its = await startTestApp(t);
  const { id, uploadUrl } = await its.createUpload();
  await its.put(uploadUrl, "12345");
  its.app.core.db.prepare("PRAGMA query_only = ON").run();
  for (const answer of await writes(its, id)) assert.equal(answer.status, 503, answer.text);
  assertUnavailable(
    await its.call("GET", "/ready"),
    /cannot be written at the moment: it cannot be written: its file, its folder or its disk is read-only/,
  );
  assert.equal((await its.call("GET", `/api/v1/uploads/${id}`)).status, 200, "reads go on");
  its.app.core.db.prepare("PRAGMA query_only = OFF").run();
  await until(async () => (await its.call("GET", "/ready")).status === 200, "it is ready again");
  assert.equal((await its.confirm(id)).status, 200);
});

for (const part of ["", "-wal"]) {
  for (const what of ["moved away", "removed", "replaced by a copy"]) {
    test(`a file that is ${what} (stowage.db${part}) takes no more writes, and /ready says why`, async (t) => {
      const { dataDir, made } = await initProgram(t);
      const { call, child } = await serveProgram(t, dataDir);
      const owner = { key: made.api_key, workspaceId: made.workspace_id };
      const [id] = await confirmUploads({ call }, owner, 1);
      const path = join(dataDir, DATABASE_FILE + part);
      if (what === "removed") rmSync(path);
      else renameSync(path, `${path}-away`);
      if (what === "replaced by a copy") copyFileSync(`${path}-away`, path);
      const status = async (): Promise<number> => (await call("GET", "/ready")).status;
      await until(async () => (await status()) === 503, "it is not ready");
      assertUnavailable(await call("GET", "/ready"), /was moved, removed or replaced while the service was running/);
      const deleted = await call("DELETE", `/api/v1/uploads/${id}`, owner);
      assertUnavailable(deleted, /was moved, removed or replaced/);
      assert.equal((await call("GET", `/api/v1/uploads/${id}`, owner)).status, 200, "reads go on");
      if (what !== "moved away") return;
      renameSync(`${path}-away`, path);
      await until(async () => (await status()) === 200, "it is ready again once the file is back");
      assert.equal((await call("DELETE", `/api/v1/uploads/${id}`, owner)).status, 200);
      child.kill("SIGTERM");
    });
  }
}

test("a damaged page that a request comes to is 503, and the log has it", async (t) => {
  const { dataDir, made } = await initProgram(t);
  const owner = { key: made.api_key, workspaceId: made.workspace_id };
  const first = await serveProgram(t, dataDir);
  const [id] = await confirmUploads(first, owner, 5);
  first.child.kill("SIGTERM");
  await first.ended;
  const path = join(dataDir, DATABASE_FILE);
  const sql = new Database(path);
  const page = Number(
    sql.prepare("SELECT rootpage FROM sqlite_schema WHERE name = 'uploads_by_workspace'").pluck().get(),
  );
  sql.close();
  writeSync(openSync(path, "r+"), Buffer.alloc(4_096, 0x5a), 0, 4_096, (page - 1) * 4_096);
  // It ended cleanly, so nothing is looked at when it starts.
  const { call, stderr } = await serveProgram(t, dataDir);
  assertUnavailable(await call("GET", "/api/v1/uploads", owner), /its file is damaged/);
  assert.equal((await call("GET", `/api/v1/uploads/${id}`, owner)).status, 200, "what is not damaged can be read");
  assert.equal((await call("DELETE", `/api/v1/uploads/${id}`, owner)).status, 503);
  assert.match(stderr(), /SQLITE_CORRUPT/);
});
