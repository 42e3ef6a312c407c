// Goal: as long as nothing is stored the store may be made, and changed, without a word; and a store that comes back in a
// state that cannot be used is asked again, with the present reason.
// Method: the real program with other settings; and services whose store fails before it was ever asked.
import assert from "node:assert/strict";
import { mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { StoreError } from "../lib/store/objects.ts";
import { startTestApp, testClock } from "./_app.ts";
import { s3Env } from "./_s3_app.ts";
import { useS3Server } from "./_s3_servers.ts";
import { clientFor, openPlace, type PlaceMake, stop } from "./_store_place.ts";
import { EMBEDDED_ONLY } from "./_test_store.ts";
import { until } from "./_until.ts";

test("minio: an upload that is created before the store has ever answered keeps no bucket from being made", async (t) => {
  const server = await useS3Server(t, "minio");
  if (server === null) return;
  let isDown = true;
  const its = await startTestApp(t, {
    env: s3Env(server, server.newBucketName()),
    cleansInBackground: false,
    wrapStore: (objects) => ({
      ...objects,
      async probe() {
        if (isDown) throw new StoreError("unavailable", "no answer");
        await objects.probe();
      },
    }),
  });
  await its.createUpload();
  isDown = false;
  assert.equal(await its.app.guard.isCurrent(), true);
  assert.equal((await its.call("GET", "/ready")).status, 200);
});

for (const make of ["minio", "versitygw"] as const satisfies readonly PlaceMake[]) {
  test(`${make}: an installation that has stored nothing changes its store without a word`, async (t) => {
    const site = await openPlace(t, make);
    if (site === null) return;
    const first = await site.start({});
    await until(async () => (await first.call("GET", "/ready")).status === 200, "it is ready");
    await stop(first);
    const second = await site.start();
    await until(async () => (await second.call("GET", "/ready")).status === 200, "it is ready");
    await clientFor(second, site.made).uploaded("x");
    assert.ok(!second.stderr().includes('"level":"error"'), second.stderr());
  });
}

test("minio: an installation that has stored nothing goes to another store and comes back to the first", async (t) => {
  const site = await openPlace(t, "minio");
  if (site === null) return;
  for (const env of [site.env, {}, site.env]) {
    const program = await site.start(env);
    await until(async () => (await program.call("GET", "/ready")).status === 200, "it is ready");
    assert.equal(JSON.parse((await program.call("GET", "/ready")).text).cleaner, undefined);
    await stop(program);
  }
  const program = await site.start();
  await clientFor(program, site.made).uploaded("x");
  await stop(program);
  const wrong = await site.start({});
  assert.equal((await wrong.call("GET", "/ready")).status, 503, "from the first upload on it is bound");
});

test(
  "a store that comes back unusable is asked again like one that is down, and told by its present reason",
  EMBEDDED_ONLY,
  async (t) => {
    const clock = testClock();
    const its = await startTestApp(t, { clock, cleansInBackground: false });
    await its.confirmedUpload("keep");
    await its.app.cleaner.runOnce();
    const folder = join(its.dataDir, "objects");
    renameSync(folder, `${folder}.away`);
    clock.advance(2_000);
    await its.app.cleaner.runOnce();
    assert.match(its.app.cleaner.pauseReason() ?? "", /does not exist/);

    renameSync(`${folder}.away`, folder);
    rmSync(join(folder, "tmp"), { recursive: true });
    writeFileSync(join(folder, "tmp"), "");
    clock.advance(2_000);
    assert.deepEqual(await its.app.cleaner.runOnce(), { removed: 0, failed: 0, expired: 0 });
    const ready = await its.call("GET", "/ready");
    assert.equal(ready.status, 503);
    assert.match(ready.json.error.message, /Cannot use ".*objects" for objects/);
    assert.doesNotMatch(ready.json.error.message, /does not exist/);

    rmSync(join(folder, "tmp"));
    mkdirSync(join(folder, "tmp"));
    clock.advance(2_000);
    await its.app.cleaner.runOnce();
    assert.equal(its.app.cleaner.pauseReason(), null);
    assert.equal((await its.call("GET", "/ready")).status, 200);
  },
);
