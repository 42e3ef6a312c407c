// Goal: the storage figures say what is known to lie in the store for a workspace, whatever became of the upload that it was
// PUT for: together they are the bytes that are really there.
// Method: the embedded store and a real MinIO, real PUTs, and the raw store beside the figures after each step.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { type Json, type TestApp, testClock } from "./_app.ts";
import { startAppOn } from "./_each_store.ts";
import { ownTime } from "./_s3_app.ts";

const UPLOADS = "/api/v1/uploads";

interface Watched extends TestApp {
  /** Those figures that are not zero. */
  figures: () => Promise<Json>;
  /** The figures once all that can be known is known; checks that they add up to what lies in the store. */
  scanned: () => Promise<Json>;
  remove: (id: string) => Promise<void>;
  staged: (text: string, options?: { size_bytes?: number }) => Promise<{ id: string; uploadUrl: string }>;
  urlsExpire: () => Promise<void>;
}

async function start(t: TestContext, store: "disk" | "minio"): Promise<Watched | null> {
  const clock = testClock();
  const { wrapPresigning, s3 } = ownTime(clock);
  const app = await startAppOn(t, store, {
    ...{ clock, cleansInBackground: false },
    ...(store === "disk" || s3 === undefined ? {} : { s3, wrapStore: wrapPresigning }),
  });
  if (app === null) return null;
  const { call, owner, raw } = app;
  const { cleaner, core } = app.app;

  async function figures(): Promise<Json> {
    const { json } = await call("GET", "/api/v1/usage/summary");
    const { bytes_quota, percent, oldest_removal_age_seconds: age, ...storage } = json.data.storage;
    assert.equal(age === null, storage.bytes_awaiting_removal === 0, "an age is of what lies there");
    return Object.fromEntries(Object.entries(storage).filter(([, value]) => value !== 0));
  }

  return {
    ...app,
    figures,
    async scanned() {
      await cleaner.lookForLateArrivals();
      await core.unconfirmed.flushNotes();
      const shown = await figures();
      const { bytes_used = 0, bytes_pending_stored = 0, bytes_awaiting_removal = 0 } = shown;
      const objects = await raw.objects();
      const thereBytes = objects.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
      assert.equal(bytes_used + bytes_pending_stored + bytes_awaiting_removal, thereBytes);
      return shown;
    },
    async remove(id) {
      assert.equal((await call("DELETE", `${UPLOADS}/${id}`, { key: owner.key })).status, 200);
    },
    async staged(text, options) {
      const upload = await app.createUpload(options);
      assert.equal((await app.put(upload.uploadUrl, text)).status, 200);
      return upload;
    },
    async urlsExpire() {
      clock.advance(app.config.uploadUrlTtlSeconds * 1_000);
      for (let pass = 0; pass < 2; pass++) await cleaner.runOnce();
    },
  };
}

for (const store of ["disk", "minio"] as const) {
  test(`${store}: what was PUT for a pending upload is shown, and still after its delete until it is removed`, async (t) => {
    const its = await start(t, store);
    if (its === null) return;
    const first = await its.staged("12345");
    const second = await its.staged("123", { size_bytes: 3 });
    const pending = { uploads_pending: 2, bytes_pending_stated: 3, bytes_pending_stored: 8 };
    assert.deepEqual(await its.scanned(), pending);
    await its.remove(first.id);
    await its.remove(second.id);
    const held = store === "disk" ? {} : { uploads_held: 2 };
    const given = { ...held, bytes_awaiting_removal: 8 };
    assert.deepEqual([await its.figures(), await its.scanned()], [given, given], "no scan is needed to know it");
    await its.app.cleaner.runOnce();
    assert.deepEqual(await its.scanned(), held, "removed; an entry that waits for its URL's end holds no bytes");
    await its.urlsExpire();
    assert.deepEqual(await its.scanned(), {});
  });

  test(`${store}: a stated size is not claimed to lie there`, async (t) => {
    const its = await start(t, store);
    if (its === null) return;
    const { id } = await its.createUpload({ size_bytes: 700 });
    await its.remove(id);
    assert.deepEqual(await its.scanned(), store === "disk" ? {} : { uploads_held: 1 });
  });

  test(`${store}: the bytes of a confirmed upload are shown once for each place where they lie`, async (t) => {
    const its = await start(t, store);
    if (its === null) return;
    const { id, uploadUrl } = await its.staged("12345");
    assert.equal((await its.confirm(id)).status, 200);
    const used = { bytes_used: 5, uploads: 1 };
    // The embedded store's staged file is the confirmed one; an S3 server has a copy until it is removed.
    assert.deepEqual(
      await its.figures(),
      store === "disk" ? used : { ...used, uploads_held: 1, bytes_awaiting_removal: 5 },
    );
    await its.app.cleaner.runOnce();
    assert.deepEqual(await its.scanned(), store === "disk" ? used : { ...used, uploads_held: 1 });
    const late = await its.put(uploadUrl, "again");
    assert.equal(late.status, store === "disk" ? 404 : 200);
    assert.deepEqual(
      await its.scanned(),
      store === "disk" ? used : { ...used, uploads_held: 1, bytes_awaiting_removal: 5 },
    );
    await its.remove(id);
    const both = store === "disk" ? 5 : 10;
    assert.equal((await its.scanned()).bytes_awaiting_removal, both);
    await its.app.cleaner.runOnce();
    await its.urlsExpire();
    assert.deepEqual(await its.scanned(), {});
  });
}

test("minio: what is PUT to the URL of a deleted upload is shown as soon as a scan has found it", async (t) => {
  const its = await start(t, "minio");
  if (its === null) return;
  const other = await its.addOwner();
  const { id, uploadUrl } = await its.createUpload();
  await its.remove(id);
  assert.deepEqual(await its.figures(), { uploads_held: 1 });
  for (const text of ["late", "and later"]) {
    assert.equal((await its.put(uploadUrl, text)).status, 200);
    assert.deepEqual(await its.scanned(), { uploads_held: 1, bytes_awaiting_removal: text.length });
  }
  const others = await its.call("GET", "/api/v1/usage/summary", { key: other.key });
  assert.equal(others.json.data.storage.bytes_awaiting_removal, 0, "another workspace sees nothing of it");
  await its.app.cleaner.runOnce();
  assert.deepEqual(await its.scanned(), { uploads_held: 1 });
  assert.equal((await its.put(uploadUrl, "once more")).status, 200);
  assert.deepEqual(await its.scanned(), { uploads_held: 1, bytes_awaiting_removal: 9 });
  await its.urlsExpire();
  assert.deepEqual(await its.scanned(), {});
});

test("disk: an upload that is deleted just after its PUT has its bytes shown", async (t) => {
  const its = await start(t, "disk");
  if (its === null) return;
  // Not written to the row yet: nothing has been awaited in between that would.
  const { id } = await its.staged("12345");
  await its.remove(id);
  assert.equal((await its.figures()).bytes_awaiting_removal, 5);
  assert.deepEqual(await its.scanned(), { bytes_awaiting_removal: 5 });
});
