// Goal: NO-LOSS, NO-GHOST and ROW-FIRST hold through a power loss. SIGKILL keeps the page cache, so no test that kills
// the process would notice a missing fsync.
// Method: one upload's life against the real program under strace; then the order of its system calls. "Before" means
// that the first call had ended when the second began.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { realpathSync } from "node:fs";
import { dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import Database from "better-sqlite3";
import { temporaryFolder } from "../help/app.ts";
import { skipLoudly } from "../help/loud_skip.ts";
import { initProgram, serveProgram } from "../help/process.ts";
import { readTrace, type TracedCall } from "../help/trace.ts";
import { until } from "../help/until.ts";

const CALLS =
  "write,writev,pwrite64,pwritev,sendto,sendmsg,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat";

/** The calls by which a database's log is written, and made durable. */
interface DatabaseFile {
  write: RegExp;
  sync: RegExp;
}
const BOOKS = logOf("DATA/stowage.db");
const SMALL = logOf("DATA/objects/small.db");

function logOf(path: string): DatabaseFile {
  return {
    write: new RegExp(`^p?write\\w*\\(.*<${path}-wal>`),
    sync: new RegExp(`^f(data)?sync\\(.*<${path}-wal>\\)`),
  };
}

interface Trace {
  calls: TracedCall[];
  find: (what: string, isIt: (call: TracedCall) => boolean) => TracedCall;
  /** The first such call that began after `before` had ended. */
  findAfter: (before: TracedCall, what: string, pattern: RegExp) => TracedCall;
  assertBefore: (first: TracedCall, second: TracedCall, why: string) => void;
  assertSynced: (before: TracedCall, folder: string, until: TracedCall, why: string) => void;
  /** All that a database wrote between two calls was on the disk before the second began. */
  assertCommitted: (after: TracedCall, until: TracedCall, why: string, file?: DatabaseFile) => void;
}

/** The calls of one upload's life, of so many bytes; null, and the test skipped, where there is no strace. */
async function traceLife(t: TestContext, bytes: number): Promise<Trace | null> {
  if (spawnSync("strace", ["-V"]).status !== 0) {
    skipLoudly(t, "strace is not there", "install it (Debian: apt-get install strace)");
    return null;
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
  assert.equal((await call("PUT", upload_url, { body: Buffer.alloc(bytes, 1) })).status, 200);
  const sql = new Database(join(dataDir, "stowage.db"), { readonly: true });
  const notedBytes = sql.prepare("SELECT staged_size_bytes FROM uploads").pluck();
  // Written in the middle of the confirm, it would be taken for one of the confirm's own commits.
  await until(() => notedBytes.get() === bytes, "the size of the staged object is noted");
  const context = { context_type: "workspace", context_id: made.workspace_id };
  assert.equal((await call("POST", path, { key, body: context })).status, 200);
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
  const find: Trace["find"] = (what, isIt) => {
    const found = calls.find(isIt);
    assert.ok(found, `There is no ${what} in\n${calls.map(({ text }) => text).join("\n")}`);
    return found;
  };
  const findAfter: Trace["findAfter"] = (before, what, pattern) =>
    find(`${what} after ${before.text}`, ({ text, began }) => began > before.ended && pattern.test(text));
  const assertBefore: Trace["assertBefore"] = (first, second, why) =>
    assert.ok(first.ended < second.began, `${why}: "${first.text}" must end before "${second.text}" begins`);
  return {
    ...{ calls, find, findAfter, assertBefore },
    assertSynced: (before, folder, until, why) =>
      assertBefore(findAfter(before, `fsync of ${folder}`, syncOf(folder)), until, why),
    assertCommitted(after, until, why, file = BOOKS) {
      const last = calls.findLast(
        ({ text, began }) => file.write.test(text) && began > after.ended && began < until.began,
      );
      assert.ok(last, `${why}: nothing was committed between "${after.text}" and "${until.text}"`);
      assertBefore(findAfter(last, "sync of the log", file.sync), until, why);
    },
  };
}

test("what is answered is durable, and each step is durable before the next one counts on it: a file", async (t) => {
  const trace = await traceLife(t, 100_000);
  if (trace === null) return;
  const { calls, find, findAfter, assertBefore, assertSynced, assertCommitted } = trace;
  const listening = find("first line of the log", ({ text }) => /^write.*listening/.test(text));
  const createResponse = findAfter(listening, "response to create", /"HTTP\/1\.1 201/);
  assertCommitted(listening, createResponse, "NO-LOSS: a create that was answered");

  const written = findAfter(createResponse, "bytes of the PUT", /^p?write\w*\(.*<DATA\/objects\/tmp\//);
  const renamed = findAfter(written, "rename", /^rename.*"DATA\/objects\/tmp\/.*"DATA\/objects\/staging\/.*= 0/);
  const putResponse = findAfter(createResponse, "response to the PUT", /"HTTP\/1\.1 200/);
  const lastWritten = calls.findLast(({ text }) => /^p?write\w*\(.*<DATA\/objects\/tmp\//.test(text)) ?? written;
  assertBefore(
    findAfter(lastWritten, "fsync of the file", /^fsync\(.*<DATA\/objects\/tmp\/[0-9a-f]{32}>\)/),
    renamed,
    "NO-GHOST: the file is whole before it has its name",
  );
  assertSynced(renamed, folderOf(renamed), putResponse, "NO-LOSS: a PUT that was answered");

  const linked = findAfter(putResponse, "link", /^link.*"DATA\/objects\/staging\/.*"DATA\/objects\/final\/.*= 0/);
  const confirmResponse = findAfter(putResponse, "response to confirm", /"HTTP\/1\.1 200/);
  assertCommitted(putResponse, linked, "NO-ORPHAN: the lease on the final key");
  const confirming = findAfter(linked, "write of the confirming COMMIT", BOOKS.write);
  assertSynced(linked, folderOf(linked), confirming, "NO-GHOST: the final object before it is charged");
  assertCommitted(linked, confirmResponse, "NO-LOSS: a confirm that was answered");

  const deleteResponse = findAfter(confirmResponse, "response to delete", /"HTTP\/1\.1 200/);
  assertCommitted(confirmResponse, deleteResponse, "NO-LOSS: a delete that was answered");

  const unlinked = findAfter(deleteResponse, "unlink", /^unlink.*"DATA\/objects\/final\/.*= 0/);
  assertCommitted(deleteResponse, unlinked, "ROW-FIRST: taking is a durable write");
  const settling = findAfter(unlinked, "write of the settling COMMIT", BOOKS.write);
  assertSynced(unlinked, folderOf(unlinked), settling, "NO-ORPHAN: the removal before its entry goes");

  for (const made of calls.filter(({ text }) => /^mkdir.*"DATA\/objects\/(staging|final)\/.*= 0/.test(text))) {
    const response = made.began < putResponse.began ? putResponse : confirmResponse;
    assertSynced(made, dirname(folderOf(made, false)), response, "NO-LOSS: a new folder's own name");
  }
});

test("what is answered is durable, and each step is durable before the next one counts on it: a small object", async (t) => {
  const trace = await traceLife(t, 1_000);
  if (trace === null) return;
  const { calls, find, findAfter, assertSynced, assertCommitted } = trace;
  const listening = find("first line of the log", ({ text }) => /^write.*listening/.test(text));
  const made = find("small.db", ({ text }) => SMALL.write.test(text));
  assertSynced(made, "DATA/objects", listening, "NO-LOSS: the name of a new file of small objects");

  const createResponse = findAfter(listening, "response to create", /"HTTP\/1\.1 201/);
  const putResponse = findAfter(createResponse, "response to the PUT", /"HTTP\/1\.1 200/);
  assertCommitted(createResponse, putResponse, "NO-LOSS: a PUT that was answered", SMALL);

  const confirmResponse = findAfter(putResponse, "response to confirm", /"HTTP\/1\.1 200/);
  // The staged object is what is charged, and its PUT has made it durable: see above.
  assertCommitted(putResponse, confirmResponse, "NO-LOSS: a confirm that was answered");
  const written = calls.filter(
    ({ text, began }) => SMALL.write.test(text) && began > putResponse.ended && began < confirmResponse.began,
  );
  assert.deepEqual(written, [], "a confirm writes nothing to the store");

  const deleteResponse = findAfter(confirmResponse, "response to delete", /"HTTP\/1\.1 200/);
  // The first removal brings the marker up to date, and before it the mark in small.db.
  const marked = findAfter(deleteResponse, "new marker", /^rename.*"DATA\/objects\/ledger-marker".*= 0/);
  const removing = findAfter(marked, "write of the removal", SMALL.write);
  assertCommitted(deleteResponse, removing, "ROW-FIRST: taking is a durable write");
  const removed = findAfter(removing, "sync of the removal", SMALL.sync);
  const settling = findAfter(removing, "write of the settling COMMIT", BOOKS.write);
  assert.ok(removed.ended < settling.began, "NO-ORPHAN: the removal is durable before its entry goes");
  const files = calls.filter(({ text }) => /^(rename|link).*"DATA\/objects\/(staging|final)\//.test(text));
  assert.deepEqual(files, [], "no file is made for it");
});

function syncOf(folder: string): RegExp {
  return new RegExp(`^fsync\\(.*<${folder}>\\)`);
}

/** The folder of the last path that a call names; with false the path itself. */
function folderOf({ text }: TracedCall, ofIt = true): string {
  const path = [...text.matchAll(/"(DATA\/[^"]*)"/g)].at(-1)?.[1] ?? "";
  return ofIt ? dirname(path) : path;
}
