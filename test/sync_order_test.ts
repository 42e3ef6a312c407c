// Goal: NO-LOSS, NO-GHOST and ROW-FIRST hold through a power loss. SIGKILL keeps the page cache, so no test that kills
// the process would notice a missing fsync.
// Method: one upload's life against the real program under strace; then the order of its system calls. "Before" means
// that the first call had ended when the second began.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { realpathSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import Database from "better-sqlite3";
import { temporaryFolder } from "./_app.ts";
import { skipLoudly } from "./_loud_skip.ts";
import { initProgram, serveProgram } from "./_process.ts";
import { readTrace, type TracedCall } from "./_trace.ts";
import { until } from "./_until.ts";

const CALLS =
  "write,writev,pwrite64,pwritev,sendto,sendmsg,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat";

test("what is answered is durable, and each step is durable before the next one counts on it", async (t) => {
  if (spawnSync("strace", ["-V"]).status !== 0) {
    return skipLoudly(t, "strace is not there", "install it (Debian: apt-get install strace)");
  }
  const { dataDir: madeDir, made } = await initProgram(t);
  const dataDir = realpathSync(madeDir);
  const trace = join(await temporaryFolder(t), "trace");
  // -D: the tracer is not the parent, so that signals meant for the program reach it.
  const under = ["strace", "-D", "-f", "-y", "-s", "128", "-e", `trace=${CALLS}`, "-e", "signal=none", "-o", trace];
  const server = await serveProgram(t, dataDir, { under, env: { UV_USE_IO_URING: "0" } });
  const key = made.api_key;
  const { call } = server;

  const created = await call("POST", "/api/v1/uploads", { key, body: { filename: "a.bin", category: "file" } });
  assert.equal(created.status, 201);
  const { upload, upload_url } = created.json.data;
  const path = `/api/v1/uploads/${upload.id}`;
  assert.equal((await call("PUT", upload_url, { body: Buffer.alloc(100_000, 1) })).status, 200);
  const context = { context_type: "workspace", context_id: made.workspace_id };
  assert.equal((await call("POST", path, { key, body: context })).status, 200);
  const sql = new Database(join(dataDir, "stowage.db"), { readonly: true });
  const dueAtOnce = sql.prepare("SELECT count(*) FROM object_removals WHERE due_at_ms = 0").pluck();
  // Booked beside the next removal, it would be a write that no removal waits for.
  await until(() => dueAtOnce.get() === 0, "the removal of the staged object is booked");
  assert.equal((await call("DELETE", path, { key })).status, 200);

  const finalKeys = sql.prepare("SELECT count(*) FROM object_removals WHERE object_key LIKE 'final/%'").pluck();
  await until(() => finalKeys.get() === 0, "the removal of the final object is settled");
  sql.close();
  server.child.kill("SIGTERM");
  assert.equal((await server.ended).exitCode, 0);

  const calls = readTrace(trace).map((each) => ({ ...each, text: each.text.replaceAll(dataDir, "DATA") }));
  const find = (what: string, isIt: (call: TracedCall) => boolean): TracedCall => {
    const found = calls.find(isIt);
    assert.ok(found, `There is no ${what} in\n${calls.map(({ text }) => text).join("\n")}`);
    return found;
  };
  /** The first such call that began after `before` had ended. */
  const findAfter = (before: TracedCall, what: string, pattern: RegExp): TracedCall =>
    find(`${what} after ${before.text}`, ({ text, began }) => began > before.ended && pattern.test(text));
  const assertBefore = (first: TracedCall, second: TracedCall, why: string): void =>
    assert.ok(first.ended < second.began, `${why}: "${first.text}" must end before "${second.text}" begins`);
  const assertSynced = (before: TracedCall, folder: string, until: TracedCall, why: string): void =>
    assertBefore(findAfter(before, `fsync of ${folder}`, syncOf(folder)), until, why);
  /** All that the database wrote between two calls was on the disk before the second began. */
  const assertCommitted = (after: TracedCall, until: TracedCall, why: string): void => {
    const writes = calls.filter(
      ({ text, began }) => WAL_WRITE.test(text) && began > after.ended && began < until.began,
    );
    const last = writes.at(-1);
    assert.ok(last, `${why}: nothing was committed between "${after.text}" and "${until.text}"`);
    assertBefore(findAfter(last, "sync of the log", WAL_SYNC), until, why);
  };

  const listening = find("first line of the log", ({ text }) => /^write.*listening/.test(text));
  const createAnswer = findAfter(listening, "answer to create", /"HTTP\/1\.1 201/);
  assertCommitted(listening, createAnswer, "NO-LOSS: a create that was answered");

  const written = findAfter(createAnswer, "bytes of the PUT", /^p?write\w*\(.*<DATA\/objects\/tmp\//);
  const renamed = findAfter(written, "rename", /^rename.*"DATA\/objects\/tmp\/.*"DATA\/objects\/staging\/.*= 0/);
  const putAnswer = findAfter(createAnswer, "answer to the PUT", /"HTTP\/1\.1 200/);
  const lastWritten = calls.findLast(({ text }) => /^p?write\w*\(.*<DATA\/objects\/tmp\//.test(text)) ?? written;
  assertBefore(
    findAfter(lastWritten, "fsync of the file", /^fsync\(.*<DATA\/objects\/tmp\/[0-9a-f]{32}>\)/),
    renamed,
    "NO-GHOST: the file is whole before it has its name",
  );
  assertSynced(renamed, folderOf(renamed), putAnswer, "NO-LOSS: a PUT that was answered");

  const linked = findAfter(putAnswer, "link", /^link.*"DATA\/objects\/staging\/.*"DATA\/objects\/final\/.*= 0/);
  const confirmAnswer = findAfter(putAnswer, "answer to confirm", /"HTTP\/1\.1 200/);
  assertCommitted(putAnswer, linked, "NO-ORPHAN: the lease on the final key");
  const confirming = findAfter(linked, "write of the confirming COMMIT", WAL_WRITE);
  assertSynced(linked, folderOf(linked), confirming, "NO-GHOST: the final object before it is charged");
  assertCommitted(linked, confirmAnswer, "NO-LOSS: a confirm that was answered");

  const deleteAnswer = findAfter(confirmAnswer, "answer to delete", /"HTTP\/1\.1 200/);
  assertCommitted(confirmAnswer, deleteAnswer, "NO-LOSS: a delete that was answered");

  const unlinked = findAfter(deleteAnswer, "unlink", /^unlink.*"DATA\/objects\/final\/.*= 0/);
  assertCommitted(deleteAnswer, unlinked, "ROW-FIRST: taking is a durable write");
  const settling = findAfter(unlinked, "write of the settling COMMIT", WAL_WRITE);
  assertSynced(unlinked, folderOf(unlinked), settling, "NO-ORPHAN: the removal before its entry goes");

  for (const made of calls.filter(({ text }) => /^mkdir.*"DATA\/objects\/(staging|final)\/.*= 0/.test(text))) {
    const answer = made.began < putAnswer.began ? putAnswer : confirmAnswer;
    assertSynced(made, dirname(folderOf(made, false)), answer, "NO-LOSS: a new folder's own name");
  }
});

const WAL_WRITE = /^p?write\w*\(.*<DATA\/stowage\.db-wal>/;
const WAL_SYNC = /^f(data)?sync\(.*<DATA\/stowage\.db-wal>\)/;

function syncOf(folder: string): RegExp {
  return new RegExp(`^fsync\\(.*<${folder}>\\)`);
}

/** The folder of the last path that a call names; with false the path itself. */
function folderOf({ text }: TracedCall, ofIt = true): string {
  const path = [...text.matchAll(/"(DATA\/[^"]*)"/g)].at(-1)?.[1] ?? "";
  return ofIt ? dirname(path) : path;
}
