import assert from "node:assert/strict";
import { statfsSync } from "node:fs";
import { type ClientRequest, type IncomingMessage, request } from "node:http";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { createUnconfirmed } from "../lib/core/unconfirmed.ts";
import { DATABASE_FILE } from "../lib/db/db.ts";
import { silentLog, startTestApp, type TestApp } from "./_app.ts";
import { afterwards } from "./_db.ts";
import { startPeopleApp } from "./_people.ts";
import { queryPlans } from "./_query_plans.ts";
import { EMBEDDED_ONLY, IS_S3 } from "./_test_store.ts";
import { checkUnconfirmed } from "./_unconfirmed_figures.ts";

const MIB = 1024 * 1024;

interface IdlePut {
  /** The status that it was refused with; null: it was taken, and waits for its body. */
  status: number | null;
  headers: IncomingMessage["headers"];
  req: ClientRequest;
}

/** Begins a PUT, sends so many of its bytes, and then nothing more. */
async function idlePut(t: TestContext, url: string, announcedBytes: number, sentBytes = 0): Promise<IdlePut> {
  const req = request(url, {
    method: "PUT",
    agent: false,
    headers: { "content-length": announcedBytes, expect: "100-continue" },
  });
  req.on("error", () => {});
  afterwards(t, async () => void req.destroy());
  const response = await new Promise<IncomingMessage | undefined>((resolve) => {
    req.once("continue", () => resolve(undefined)).once("response", resolve);
  });
  if (response === undefined) req.write(Buffer.alloc(sentBytes));
  return { status: response?.statusCode ?? null, headers: response?.headers ?? {}, req };
}

async function urlsOf(app: TestApp, count: number, key?: string): Promise<string[]> {
  const uploads = Array.from({ length: count }, () => app.createUpload(key === undefined ? {} : { key }));
  return (await Promise.all(uploads)).map(({ uploadUrl }) => uploadUrl);
}

/** PUTs until it is taken: the server notices in a moment that another PUT has ended. */
async function putWhenTaken(app: TestApp, url: string, bytes: string): Promise<void> {
  const startedMs = performance.now();
  for (let status = 0; status !== 200; { status } = await app.put(url, bytes)) {
    assert.ok(performance.now() - startedMs < 20_000, `it was never taken: ${status}`);
    await delay(10);
  }
}

/** The bytes that a disk has free. */
function freeBytes(folder: string): number {
  const { bavail, bsize } = statfsSync(folder);
  return bavail * bsize;
}

test("idle PUTs that announce more than the disk has do not keep others from uploading", EMBEDDED_ONLY, async (t) => {
  const free = freeBytes("/tmp");
  const each = Math.floor(free / 4);
  const app = await startTestApp(t, {
    quotaBytes: 100 * free,
    env: { STOWAGE_MAX_UPLOAD_BYTES: String(each) },
  });
  const other = await app.addOwner(1_000);
  for (const url of await urlsOf(app, 10)) {
    for (let i = 0; i < 3; i++) assert.equal((await idlePut(t, url, each, 1)).status, null);
  }
  const [url = ""] = await urlsOf(app, 1, other.key);
  assert.equal((await app.put(url, Buffer.alloc(1_000))).status, 200);
});

test("a PUT that announces more than the disk has is refused before its first byte", EMBEDDED_ONLY, async (t) => {
  const free = freeBytes("/tmp");
  const app = await startTestApp(t, {
    quotaBytes: 100 * free,
    env: { STOWAGE_MAX_UPLOAD_BYTES: String(10 * free) },
  });
  const [url = ""] = await urlsOf(app, 1);
  assert.equal((await idlePut(t, url, 2 * free)).status, 507);
});

test(
  "a URL takes three PUTs at once; one more is told to wait, and is taken when one has ended",
  EMBEDDED_ONLY,
  async (t) => {
    const app = await startTestApp(t);
    const [url = "", otherUrl = ""] = await urlsOf(app, 2);
    const puts: IdlePut[] = [];
    for (let i = 0; i < 3; i++) puts.push(await idlePut(t, url, 10));
    assert.deepEqual(
      puts.map(({ status }) => status),
      [null, null, null],
    );
    const refused = await app.put(url, "x".repeat(10));
    assert.equal(refused.status, 429);
    assert.equal(refused.json.error.code, "RATE_LIMITED");
    assert.match(refused.json.error.message, /3 others to this URL are under way/);
    assert.ok(Number(refused.headers["retry-after"]) > 0);
    assert.equal((await app.put(otherUrl, "x")).status, 200, "another URL is free");
    puts[0]?.req.destroy();
    await putWhenTaken(app, url, "x".repeat(10));
  },
);

test("a workspace has 64 PUTs in flight at most, and another's are taken meanwhile", EMBEDDED_ONLY, async (t) => {
  const app = await startTestApp(t);
  const other = await app.addOwner();
  const urls = await urlsOf(app, 65);
  const puts = await Promise.all(urls.map((url) => idlePut(t, url, MIB, 1)));
  const refused = puts.filter(({ status }) => status !== null);
  assert.deepEqual(
    refused.map(({ status }) => status),
    [429],
  );
  assert.ok(Number(refused[0]?.headers["retry-after"]) > 0);
  const [url = ""] = await urlsOf(app, 1, other.key);
  assert.equal((await app.put(url, "x")).status, 200);
});

const UPLOADS = "/api/v1/uploads";
const staged = (app: TestApp, ownerId = app.owner.workspaceId) =>
  app.app.core.unconfirmed.figuresOf(ownerId).stagedBytes;

/** PUTs so many bytes without announcing how many, and returns the status. */
function putChunked(url: string, bytes: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const req = request(url, { method: "PUT", agent: false, headers: { "transfer-encoding": "chunked" } });
    let status: number | null = null;
    req.once("response", (response) => {
      status = response.statusCode ?? 0;
      response.resume();
      resolve(status);
    });
    // The server answers before it has read all, and closes: that the rest cannot be sent is no failure.
    req.on("error", (error) => (status === null ? reject(error) : undefined));
    for (let sent = 0; sent < bytes; sent += MIB) req.write(Buffer.alloc(Math.min(MIB, bytes - sent)));
    req.end();
  });
}

test(
  "a workspace without quota stages 64 MiB and no byte more, however its PUTs are sent",
  EMBEDDED_ONLY,
  async (t) => {
    const app = await startTestApp(t, { quotaBytes: 0 });
    const other = await app.addOwner();
    const [tooLarge = "", first = "", second = "", third = ""] = await urlsOf(app, 4);
    assert.equal((await idlePut(t, tooLarge, 64 * MIB + 1)).status, 402);
    assert.equal((await app.put(first, Buffer.alloc(40 * MIB))).status, 200);
    const refused = await app.put(second, Buffer.alloc(25 * MIB));
    assert.equal(refused.status, 402);
    assert.equal(refused.json.error.code, "STORAGE_LIMIT_EXCEEDED");
    assert.match(refused.json.error.message, /26214400 bytes more: the workspace has 41943040 bytes.*never confirmed/);
    assert.match(
      refused.json.error.message,
      /At most 67108864 at once: the 0 left of the quota of 0.*Confirm or delete/,
    );
    assert.equal(await putChunked(second, 25 * MIB), 402);
    assert.equal(staged(app), 40 * MIB);
    assert.equal((await app.raw.objects()).length, 1, "nothing of a refused PUT is kept");
    assert.deepEqual(app.raw.halfWritten(), []);

    // What is under way counts as if it were there.
    const idle = await idlePut(t, second, 24 * MIB, 1);
    assert.equal(idle.status, null);
    assert.equal((await app.put(third, "x")).status, 402);
    const [ofOther = ""] = await urlsOf(app, 1, other.key);
    assert.equal((await app.put(ofOther, "x")).status, 200, "another workspace has its own");
    idle.req.destroy();
    await putWhenTaken(app, third, "x");
    // The same upload sent again takes the place of what it was.
    assert.equal((await app.put(first, Buffer.alloc(41 * MIB))).status, 200);
    assert.equal(staged(app), 41 * MIB + 1);
  },
);

test("sizes that are stated count at create, up to what is left of the quota and 64 MiB more", async (t) => {
  const app = await startTestApp(t, { quotaBytes: 50 * MIB });
  const create = (sizeBytes: number) => app.createUpload({ size_bytes: sizeBytes });
  const { id } = await create(50 * MIB);
  await create(50 * MIB);
  await assert.rejects(create(14 * MIB + 1), /answered 402: .*STORAGE_LIMIT_EXCEEDED.*Confirm or delete some/);
  await create(14 * MIB);
  await assert.rejects(create(1), /answered 402/);
  assert.ok(await app.createUpload(), "without a size nothing is counted");
  assert.equal((await app.call("DELETE", `${UPLOADS}/${id}`)).status, 200);
  await create(14 * MIB);
});

test(
  "the setting bounds what is staged instead of the quota: 429, and what is confirmed or deleted makes room",
  EMBEDDED_ONLY,
  async (t) => {
    const app = await startTestApp(t, { env: { STOWAGE_STAGED_BYTES_MAX: "100" } });
    const uploads = await Promise.all([app.createUpload(), app.createUpload(), app.createUpload({ size_bytes: 40 })]);
    const [a = { id: "", uploadUrl: "" }, b = { id: "", uploadUrl: "" }] = uploads;
    assert.equal((await app.put(a.uploadUrl, "x".repeat(60))).status, 200);
    const refused = await app.put(b.uploadUrl, "x");
    assert.equal(refused.status, 429);
    assert.equal(refused.json.error.code, "RATE_LIMITED");
    assert.equal(refused.headers["retry-after"], "60");
    assert.match(refused.json.error.message, /has 100 bytes in uploads.*At most 100 at once/);
    const create = () => app.call("POST", UPLOADS, { body: { filename: "a", category: "file", size_bytes: 1 } });
    assert.equal((await create()).status, 429);

    assert.equal((await app.confirm(a.id)).status, 200);
    assert.equal((await app.put(b.uploadUrl, "x".repeat(60))).status, 200);
    assert.equal((await create()).status, 429);
    assert.equal((await app.call("DELETE", `${UPLOADS}/${b.id}`)).status, 200);
    assert.equal((await create()).status, 201);
    await checkUnconfirmed(app.app, app.sql, { ownerId: app.owner.workspaceId, onS3: false });
  },
);

test("a PUT that is sent again while the first ones still hang counts once", EMBEDDED_ONLY, async (t) => {
  const app = await startTestApp(t, { env: { STOWAGE_STAGED_BYTES_MAX: "150" } });
  const [url = "", otherUrl = ""] = await urlsOf(app, 2);
  for (let i = 0; i < 2; i++) assert.equal((await idlePut(t, url, 100, 50)).status, null);
  assert.equal((await app.put(otherUrl, "x".repeat(51))).status, 429);
  assert.equal((await app.put(otherUrl, "x".repeat(50))).status, 200);
  assert.equal((await app.put(url, "x".repeat(100))).status, 200);
});

test("when a transaction fails, what was counted inside it is counted again", async (t) => {
  const app = await startTestApp(t, { env: { STOWAGE_PENDING_UPLOADS_MAX: "20" } });
  const { db, uploads, unconfirmed } = app.app.core;
  const ids = await Promise.all(Array.from({ length: 20 }, async () => (await app.createUpload()).id));
  unconfirmed.forget(app.owner);
  // An upload is deleted, its owner's are counted, and then the transaction is undone, as a full disk would undo it.
  const failed = await Promise.allSettled([
    uploads.remove({ ...app.owner, authKind: "api_key", scopes: [], checkedAtMs: performance.now() }, ids[0] ?? ""),
    db.write(() => unconfirmed.figuresOf(app.owner.workspaceId).uploads),
    db.write(() => void db.prepare("ROLLBACK").run()),
  ]);
  assert.deepEqual(
    failed.map(({ status }) => status),
    ["rejected", "rejected", "rejected"],
  );
  await checkUnconfirmed(app.app, app.sql, { ownerId: app.owner.workspaceId, onS3: IS_S3 });
  await assert.rejects(app.createUpload(), /answered 429/);
});

test("what another process deleted makes room too", EMBEDDED_ONLY, async (t) => {
  const app = await startTestApp(t, { env: { STOWAGE_STAGED_BYTES_MAX: "100", STOWAGE_PENDING_UPLOADS_MAX: "2" } });
  const [a, b] = [await app.createUpload(), await app.createUpload()];
  assert.equal((await app.put(a.uploadUrl, "x".repeat(100))).status, 200);
  assert.equal((await app.put(b.uploadUrl, "x")).status, 429);
  assert.equal(app.sql.prepare("DELETE FROM uploads WHERE id = ?").run(a.id).changes, 1);
  assert.equal((await app.put(b.uploadUrl, "x")).status, 200);
  await app.createUpload();
  await assert.rejects(app.createUpload(), /answered 429/);
});

test(
  "a restart keeps the bound, and a look through staging finds what a crash has lost of it",
  EMBEDDED_ONLY,
  async (t) => {
    const env = { STOWAGE_STAGED_BYTES_MAX: "100" };
    const first = await startTestApp(t, { env });
    const { id, uploadUrl } = await first.createUpload();
    assert.equal((await first.put(uploadUrl, "x".repeat(70))).status, 200);
    const { dataDir, owner } = first;
    await first.close();

    const second = await startTestApp(t, { env, dataDir, owner });
    const again = await second.createUpload();
    assert.equal((await second.put(again.uploadUrl, "x".repeat(31))).status, 429);
    assert.equal((await second.put(again.uploadUrl, "x".repeat(30))).status, 200);
    // As if neither note had been written in time.
    await second.app.core.unconfirmed.flushNotes();
    second.sql.prepare("UPDATE uploads SET staged_size_bytes = NULL").run();
    await second.close();

    const third = await startTestApp(t, { env, dataDir, owner });
    assert.equal(staged(third), 0);
    await third.app.cleaner.lookForLateArrivals();
    assert.equal(staged(third), 100);
    const { uploadUrl: url } = await third.createUpload();
    assert.equal((await third.put(url, "x")).status, 429);
    await third.app.core.unconfirmed.flushNotes();
    const row = third.sql.prepare("SELECT staged_size_bytes FROM uploads WHERE id = ?").pluck().get(id);
    assert.equal(row, 70);
  },
);

test("a person without a workspace stages as much as a workspace with the default quota", async (t) => {
  const app = await startPeopleApp(t, { env: { STOWAGE_DEFAULT_QUOTA_BYTES: String(MIB) } });
  const ann = await app.signIn("ann");
  const create = (sizeBytes: number, workspace?: string) =>
    ann.call("POST", UPLOADS, {
      body: { filename: "a.bin", category: "file", size_bytes: sizeBytes },
      ...(workspace === undefined ? {} : { workspace }),
    });
  assert.equal((await create(65 * MIB)).status, 201);
  const refused = await create(1);
  assert.equal(refused.status, 402);
  assert.match(refused.json.error.message, /you have 68157440 bytes/);
  const workspace = await app.makeWorkspace(ann, 10);
  assert.equal((await create(10, workspace)).status, 201);
});

test("what is staged and what is held are read from indexes alone", async (t) => {
  const app = await startTestApp(t);
  const { workspaces } = app.app.core;
  const options = { pendingUploadsMax: 1, stagedBytesMax: null, defaultQuotaBytes: 1, urlsOutliveUploads: true };
  const plans = queryPlans(join(app.dataDir, DATABASE_FILE), (db) =>
    createUnconfirmed(db, { workspaces, log: silentLog, options }),
  );
  const counts = plans.filter(({ sql }) => sql.includes("count(*)")).map(({ steps }) => steps);
  assert.deepEqual(counts, [
    "SEARCH uploads USING COVERING INDEX uploads_pending_by_owner (workspace_id=?)",
    "SEARCH uploads USING COVERING INDEX uploads_pending_by_owner (workspace_id=? AND user_id=?)",
    "SEARCH object_removals USING COVERING INDEX object_removals_by_owner (owner_id=?)",
  ]);
});
