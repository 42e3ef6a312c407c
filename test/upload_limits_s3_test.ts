// Goal: on an S3 server nobody is in the way of a PUT whose URL is still good, so a URL keeps its upload's place until it has
// expired: deleting or confirming the upload does not make room for more URLs than the bounds allow.
// Method: a real server and real PUTs; only the service's clock moves.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { type Owner, startTestApp, type TestApp, testClock } from "./_app.ts";
import { ownTime, s3Env } from "./_s3_app.ts";
import { useS3Server } from "./_s3_servers.ts";
import { checkUnconfirmed } from "./_unconfirmed_figures.ts";

const MIB = 1024 * 1024;
const UPLOADS = "/api/v1/uploads";

interface S3App extends TestApp {
  create: (sizeBytes?: number) => ReturnType<TestApp["call"]>;
  remove: (id: string) => Promise<void>;
  /** The URLs expire, and the cleaner finds it. */
  urlsExpire: () => Promise<void>;
  checkFigures: () => Promise<void>;
  restart: () => Promise<S3App>;
}

interface Kept {
  env: Record<string, string>;
  dataDir: string;
  owner: Owner;
  quotaBytes: number;
}

async function startS3App(t: TestContext, env: Record<string, string>, quotaBytes?: number): Promise<S3App | null> {
  const server = await useS3Server(t, "minio");
  if (server === null) return null;
  return open(t, {
    env: { ...s3Env(server, server.newBucketName()), ...env },
    ...(quotaBytes === undefined ? {} : { quotaBytes }),
  });
}

async function open(t: TestContext, kept: Pick<Kept, "env"> & Partial<Kept>): Promise<S3App> {
  const clock = testClock();
  const { wrapPresigning, s3 } = ownTime(clock);
  const app = await startTestApp(t, { ...kept, clock, ...(s3 === undefined ? {} : { s3 }), wrapStore: wrapPresigning });
  const { dataDir, owner } = app;
  return {
    ...app,
    create: (sizeBytes) =>
      app.call("POST", UPLOADS, { body: { filename: "a", category: "file", size_bytes: sizeBytes } }),
    async remove(id) {
      assert.equal((await app.call("DELETE", `${UPLOADS}/${id}`)).status, 200);
    },
    async urlsExpire() {
      clock.advance(app.config.uploadUrlTtlSeconds * 1_000);
      // The first removes what is due at once, the second what is due with the URL.
      for (let pass = 0; pass < 2; pass++) await app.app.cleaner.runOnce();
    },
    checkFigures: () => checkUnconfirmed(app.app, app.sql, { ownerId: owner.workspaceId, onS3: true }),
    async restart() {
      await app.close();
      return open(t, { ...kept, dataDir, owner });
    },
  };
}

test("create and delete, again and again, comes to the bound; the places are free when the URLs have expired", async (t) => {
  const first = await startS3App(t, { STOWAGE_PENDING_UPLOADS_MAX: "5" });
  if (first === null) return;
  for (let i = 0; i < 5; i++) {
    const { id, uploadUrl } = await first.createUpload();
    await first.remove(id);
    assert.equal((await first.put(uploadUrl, "late")).status, 200, "the server takes it");
    // What is removed at once makes no room: the URL is good for another PUT.
    await first.app.cleaner.runOnce();
  }
  const refused = await first.create();
  assert.equal(refused.status, 429);
  assert.match(refused.json.error.message, /5 uploads that were never confirmed or whose upload URL is still good/);
  assert.ok(Number(refused.headers["retry-after"]) > 0);
  await first.checkFigures();

  const second = await first.restart();
  assert.equal((await second.create()).status, 429, "a restart forgets nothing");
  await second.urlsExpire();
  for (let i = 0; i < 5; i++) assert.equal((await second.create()).status, 201);
  assert.equal((await second.create()).status, 429);
  await second.checkFigures();
});

test("a confirm does not free the place of a URL that is good for any size", async (t) => {
  const app = await startS3App(t, { STOWAGE_PENDING_UPLOADS_MAX: "2" });
  if (app === null) return;
  for (let i = 0; i < 2; i++) await app.confirmedUpload("tiny");
  assert.equal((await app.create()).status, 429);
  await app.urlsExpire();
  assert.equal((await app.create()).status, 201);
  await app.checkFigures();
});

test("a URL for a stated size holds its bytes: those of deleted uploads, and of confirmed ones beyond the quota", async (t) => {
  const app = await startS3App(t, { STOWAGE_PENDING_UPLOADS_MAX: "2" }, 100 * MIB);
  if (app === null) return;
  for (let i = 0; i < 3; i++) await app.remove((await app.createUpload({ size_bytes: 50 * MIB })).id);
  const refused = await app.create(15 * MIB);
  assert.equal(refused.status, 429);
  assert.match(refused.json.error.message, /157286400 that can still be sent to upload URLs of confirmed or deleted/);
  assert.match(refused.json.error.message, /or wait until those URLs have expired/);
  assert.equal((await app.create(14 * MIB)).status, 201);
  await app.urlsExpire();
  assert.equal((await app.create(100 * MIB)).status, 201);
  await app.checkFigures();
});

test("a workspace can fill its quota at once with confirmed uploads, although their URLs are still good", async (t) => {
  const app = await startS3App(t, { STOWAGE_PENDING_UPLOADS_MAX: "2" }, 100 * MIB);
  if (app === null) return;
  for (let i = 0; i < 4; i++) {
    const { id, uploadUrl } = await app.createUpload({ size_bytes: 25 * MIB });
    assert.equal((await app.put(uploadUrl, Buffer.alloc(25 * MIB))).status, 200);
    assert.equal((await app.confirm(id)).status, 200);
  }
  await app.checkFigures();
});

test("what a look through the bucket finds staged counts, and no more uploads are made beyond the bound", async (t) => {
  const app = await startS3App(t, { STOWAGE_STAGED_BYTES_MAX: "100" });
  if (app === null) return;
  const { id, uploadUrl } = await app.createUpload();
  assert.equal((await app.put(uploadUrl, "x".repeat(101))).status, 200);
  assert.equal((await app.create()).status, 201, "nobody has told the service yet");
  await app.app.cleaner.lookForLateArrivals();
  const refused = await app.create();
  assert.equal(refused.status, 429);
  assert.match(refused.json.error.message, /101 bytes in uploads that were never confirmed/);
  await app.checkFigures();
  await app.remove(id);
  assert.equal((await app.create()).status, 201);
});
