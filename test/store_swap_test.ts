// Goal: no mistake with the settings, the bucket or the mount costs an object: in a store that is not the one that holds
// its objects the service removes, expires and takes nothing, and says what to do.
// Method: the real program on the embedded store, MinIO and versitygw, with what operators do to them done by hand.
import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { Json } from "./_app.ts";
import { logLines, runProgram, type ServingProgram } from "./_process.ts";
import {
  clientFor,
  clientOf,
  copyObjects,
  drained,
  entriesOf,
  keyOf,
  keysIn,
  openPlace,
  type PlaceMake,
  type Site,
  stop,
} from "./_store_place.ts";
import { until } from "./_until.ts";

const MAKES: readonly PlaceMake[] = ["disk", "minio", "versitygw"];
const S3_MAKES: readonly PlaceMake[] = ["minio", "versitygw"];

/** Leaves the database as the upgrade to schema version 3 does. */
const FORGET = "UPDATE installation SET store_json = NULL, marker_written_at_ms = NULL, generation = 0";

type Env = Record<string, string>;
type Uploads = Awaited<ReturnType<typeof prepared>>;

/** Two confirmed uploads and one that waits, and the service is stopped. */
async function prepared(site: Site): Promise<{ keep: Json; gone: Json; pending: { id: string; putUrl: string } }> {
  const program = await site.start();
  const client = clientFor(program, site.made);
  const keep = await client.uploaded("keep");
  const gone = await client.uploaded("gone");
  const pending = await client.staged("pending");
  await drained(site);
  await stop(program);
  return { keep, gone, pending };
}

/** Whatever is asked of a service in another store: reads go on, nothing is taken, nothing is removed. */
async function checkReadsAlone(
  t: TestContext,
  { site, program, env, uploads }: { site: Site; program: ServingProgram; env: Env; uploads: Uploads },
  reason: RegExp,
): Promise<void> {
  const { keep, gone, pending } = uploads;
  const client = clientFor(program, site.made);
  const ready = await client.ready();
  assert.equal(ready.status, 503, ready.text);
  assert.match(ready.json.error.message, reason);
  assert.match(ready.json.error.message, /stowage doctor --accept-store/);
  const told = logLines(program.stderr()).filter(({ msg }) => msg === "store_is_another");
  assert.equal(told.length, 1, "told once");
  assert.equal(told[0]?.level, "error");
  assert.match(told[0]?.why, reason);
  assert.match(told[0]?.hint, /STOWAGE_S3_BUCKET/);

  const created = await client.create();
  assert.equal(created.status, 503, created.text);
  assert.match(created.json.error.message, /^Cannot take uploads at the moment: .* \/ready/);
  assert.equal((await client.confirm(pending.id)).status, 503);
  const shown = await client.show(keep.id);
  assert.equal(shown.status, 200);
  if (program.url === new URL(shown.json.data.download_url).origin) {
    const download = await program.call("GET", shown.json.data.download_url);
    assert.equal(download.status, 503, "a file that is elsewhere is not said to be deleted");
  }
  assert.deepEqual((await client.list()).json.data.length, 3);
  assert.equal((await client.usage()).status, 200);

  // A delete loses nothing: its removal waits for the right store.
  assert.equal((await client.remove(gone.id)).status, 200);
  const metrics = await program.call("GET", "/metrics");
  assert.match(metrics.text, /^stowage_cleaner_paused 1$/m);
  assert.equal((await client.confirm(keep.id)).status, 200, "what is confirmed is told");

  const doctor = await runProgram(t, ["doctor"], { STOWAGE_DATA_DIR: site.dataDir, ...env });
  assert.equal(doctor.exitCode, 1);
  assert.match(doctor.stdout, /^problem +store /m);
  assert.match(doctor.stdout, reason);
}

/** Back in the right store: what was deleted meanwhile is removed there, and all else is as it was. */
async function checkGoesOn(site: Site, program: ServingProgram, { keep, gone, pending }: Uploads): Promise<void> {
  const client = clientFor(program, site.made);
  await until(async () => (await client.ready()).status === 200, "ready again");
  await drained(site);
  const keys = await site.keys();
  assert.ok(
    !keys.some((key) => key.includes(gone.id)),
    `what was deleted is removed from the store that holds it: ${keys}`,
  );
  assert.ok(keys.some((key) => key.includes(keep.id)));
  assert.equal((await client.confirm(pending.id)).status, 200, "what waited can be confirmed");
  assert.equal((await client.create()).status, 201);
  await drained(site);
  assert.equal((await program.call("GET", (await client.show(keep.id)).json.data.download_url)).text, "keep");
}

for (const make of S3_MAKES) {
  test(`${make}: a start without the S3 settings serves reads alone, and loses nothing`, async (t) => {
    const site = await openPlace(t, make);
    if (site === null) return;
    const uploads = await prepared(site);
    const program = await site.start({});
    const reason = new RegExp(
      `the objects are in the bucket "${site.env.STOWAGE_S3_BUCKET}" at http.*, but another store was given: the folder ".*/objects" does not exist`,
    );
    await checkReadsAlone(t, { site, program, env: {}, uploads }, reason);
    assert.ok(!existsSync(join(site.dataDir, "objects")), "no folder is made");
    assert.ok(
      entriesOf(site).some(({ object_key }) => object_key.includes(uploads.gone.id)),
      "its removal waits",
    );
    await stop(program);
    await checkGoesOn(site, await site.start(), uploads);
  });

  test(`${make}: a bucket with a typo is not made, and an existing one without the marker is not taken`, async (t) => {
    const site = await openPlace(t, make);
    if (site === null || site.server === null) return;
    const uploads = await prepared(site);
    const typo = `${site.env.STOWAGE_S3_BUCKET}-typo`;
    const env = { ...site.env, STOWAGE_S3_BUCKET: typo };
    const missing = await site.start(env);
    await checkReadsAlone(
      t,
      { site, program: missing, env, uploads },
      new RegExp(`another store was given: the bucket "${typo}" at .* does not exist`),
    );
    assert.equal(await clientOf(site.server).bucketExists(typo), false, "it is not made");
    await stop(missing);

    await clientOf(site.server).makeBucket(typo, site.server.region);
    const empty = await site.start(env);
    assert.match((await empty.call("GET", "/ready")).json.error.message, /has no marker of this installation/);
    await stop(empty);
    assert.deepEqual(await keysIn(site.server, typo), [], "nothing is written to it");
    await checkGoesOn(site, await site.start(), uploads);
  });

  test(`${make}: the same bucket under another host name is taken without a word from anyone`, async (t) => {
    const site = await openPlace(t, make);
    if (site === null) return;
    const uploads = await prepared(site);
    const endpoint = site.env.STOWAGE_S3_ENDPOINT?.replace("127.0.0.1", "localhost") ?? "";
    const program = await site.start({ ...site.env, STOWAGE_S3_ENDPOINT: endpoint });
    const client = clientFor(program, site.made);
    assert.equal((await client.ready()).status, 200);
    assert.equal((await client.confirm(uploads.pending.id)).status, 200);
    const moved = logLines(program.stderr()).filter(({ msg }) => msg === "store_moved");
    assert.deepEqual(
      moved.map(({ from, to }) => [from, to]),
      [
        [
          `the bucket "${site.env.STOWAGE_S3_BUCKET}" at ${site.env.STOWAGE_S3_ENDPOINT}`,
          `the bucket "${site.env.STOWAGE_S3_BUCKET}" at ${endpoint}`,
        ],
      ],
    );
    await stop(program);
    const again = await site.start({ ...site.env, STOWAGE_S3_ENDPOINT: endpoint });
    assert.ok(!again.stderr().includes("store_moved"), "told once");
  });

  test(`${make}: a mirror of the bucket that was made before the last uploads is not taken for it`, async (t) => {
    const site = await openPlace(t, make);
    if (site === null || site.server === null) return;
    const mirror = `${site.env.STOWAGE_S3_BUCKET}-mirror`;
    const first = await site.start();
    const old = await clientFor(first, site.made).uploaded("old");
    await drained(site);
    await stop(first);
    await copyObjects(site, mirror, () => true);
    const uploads = await prepared(site);
    const env = { ...site.env, STOWAGE_S3_BUCKET: mirror };
    const program = await site.start(env);
    assert.match((await program.call("GET", "/ready")).json.error.message, /is an older copy: its marker is of/);
    for (const { id } of [old, uploads.gone]) {
      assert.equal((await clientFor(program, site.made).remove(id)).status, 200);
    }
    await stop(program);
    assert.ok(
      (await keysIn(site.server, mirror)).some((key) => key.includes(old.id)),
      "nothing is removed from it",
    );
    await checkGoesOn(site, await site.start(), uploads);
    assert.ok(!(await site.keys()).some((key) => key.includes(old.id)));
  });

  test(`${make}: a move by hand is accepted only after its losses were shown, and a running server goes on`, async (t) => {
    const site = await openPlace(t, make);
    if (site === null || site.server === null) return;
    const { keep, gone, pending } = await prepared(site);
    const target = `${site.env.STOWAGE_S3_BUCKET}-new`;
    // Everything but one upload and the marker.
    await copyObjects(site, target, (key) => !key.includes(gone.id) && !key.endsWith("ledger-marker"));
    const env = { ...site.env, STOWAGE_S3_BUCKET: target };
    const program = await site.start(env);
    assert.equal((await program.call("GET", "/ready")).status, 503);
    const settings = { STOWAGE_DATA_DIR: site.dataDir, ...env };

    const declined = await runProgram(t, ["doctor", "--accept-store"], settings);
    assert.equal(declined.exitCode, 1, "nobody answered, so the answer is no");
    assert.match(declined.stdout, /^This is not the store that holds the objects: /);
    assert.match(declined.stdout, /^ {2}1 confirmed upload \(4 bytes\) whose object is not in it: lost, unless/m);
    assert.match(declined.stdout, /Not accepted/);
    assert.equal((await program.call("GET", "/ready")).status, 503);
    assert.ok(!(await keysIn(site.server, target)).some((key) => key.endsWith("ledger-marker")));
    const other = await runProgram(t, ["doctor", "--accept-older-database"], settings);
    assert.match(other.stdout, /there is nothing to accept/, "the one decision is not the other");

    const accepted = await runProgram(t, ["doctor", "--accept-store", "--yes", "--json"], settings);
    assert.equal(accepted.exitCode, 0, accepted.stderr);
    const told = JSON.parse(accepted.stdout);
    assert.deepEqual([told.other_store, told.accepted, told.losses.ghosts.count], [true, true, 1]);
    const client = clientFor(program, site.made);
    await until(async () => (await client.ready()).status === 200, "the running server goes on");
    assert.equal((await client.confirm(pending.id)).status, 200);
    assert.equal((await client.remove(keep.id)).status, 200);
    await until(
      async () => !(await keysIn(site.server ?? assert.fail(), target)).some((key) => key.includes(keep.id)),
      "it is removed there",
    );
    const again = await runProgram(t, ["doctor", "--accept-store"], settings);
    assert.deepEqual(
      [again.exitCode, again.stdout],
      [0, "This is the store that holds the objects: there is nothing to accept\n"],
    );
    await stop(program);

    // The way back is a move too.
    const back = await site.start();
    assert.match((await back.call("GET", "/ready")).json.error.message, /is another one, by its marker/);
  });
}

for (const make of MAKES) {
  test(`${make}: a store that is lost stays lost, and goes on when it is back`, async (t) => {
    const site = await openPlace(t, make);
    if (site === null) return;
    const uploads = await prepared(site);
    const bringBack = await site.vanish();
    const program = await site.start();
    await checkReadsAlone(t, { site, program, env: site.env, uploads }, /but that is lost: the .* does not exist/);
    assert.deepEqual(await site.keys(), [], "nothing is made anew");
    await site.makeEmpty();
    await stop(program);

    const empty = await site.start();
    assert.match(
      (await empty.call("GET", "/ready")).json.error.message,
      /that is lost: the .* has no marker of this installation/,
    );
    assert.equal((await clientFor(empty, site.made).create()).status, 503);
    if (make === "disk")
      assert.deepEqual(readdirSync(join(site.dataDir, "objects")), [], "an empty mount point stays empty");
    else assert.deepEqual(await site.keys(), []);
    if (site.server !== null) await clientOf(site.server).removeBucket(site.env.STOWAGE_S3_BUCKET ?? "");
    await bringBack();
    await checkGoesOn(site, empty, uploads);
  });

  test(`${make}: a store that is swapped for an empty one while it is used is noticed before anything is removed`, async (t) => {
    const site = await openPlace(t, make);
    if (site === null) return;
    const program = await site.start();
    const client = clientFor(program, site.made);
    const [keep, gone] = [await client.uploaded("keep"), await client.uploaded("gone")];
    const pending = await client.staged("pending");
    await drained(site);
    const bringBack = await site.vanish();
    await site.makeEmpty();
    // Longer ago than a comparison is good for.
    await new Promise((resolve) => setTimeout(resolve, 1_100));
    assert.equal((await client.remove(gone.id)).status, 200);
    await program.says("store_is_another");
    assert.ok(
      entriesOf(site).some(({ object_key }) => object_key.includes(gone.id)),
      "its removal is not settled",
    );
    assert.equal((await client.create()).status, 503);
    assert.equal((await client.confirm(pending.id)).status, 503);
    if (site.server !== null) await clientOf(site.server).removeBucket(site.env.STOWAGE_S3_BUCKET ?? "");
    await bringBack();
    await checkGoesOn(site, program, { keep, gone, pending });
    assert.ok(
      entriesOf(site).every(({ attempts }) => attempts === 0),
      "no attempt is burnt",
    );
  });

  test(`${make}: a database of schema version 2 takes its store by the marker, or by its objects where none was written`, async (t) => {
    const site = await openPlace(t, make);
    if (site === null) return;
    const uploads = await prepared(site);
    const forget = (): void => site.sql((db) => void db.exec(FORGET));
    const { installation, ledger_seq, event_sha256, written_at } = await site.marker();
    for (const marker of [{ installation, ledger_seq, event_sha256, written_at }, null]) {
      forget();
      await site.setMarker(marker);
      const program = await site.start();
      assert.equal((await program.call("GET", "/ready")).status, 200);
      assert.ok(!program.stderr().includes('"level":"error"'), "without a word");
      assert.match((await site.marker()).store, /^[0-9a-f]{32}$/);
      await stop(program);
    }
    // Neither a marker nor the objects: another store.
    forget();
    await site.setMarker(null);
    const lost = (await site.keys()).find((key) => key.includes(uploads.gone.id)) ?? assert.fail();
    const bringBack = await site.vanish();
    await site.makeEmpty();
    const program = await site.start();
    const reason = /2 of 2 confirmed uploads that were looked for are not in the .*, which has no marker/;
    assert.match((await program.call("GET", "/ready")).json.error.message, reason);
    await stop(program);
    if (site.server !== null) await clientOf(site.server).removeBucket(site.env.STOWAGE_S3_BUCKET ?? "");
    await bringBack();
    assert.ok((await site.keys()).includes(lost));
    await checkGoesOn(site, await site.start(), { ...uploads, gone: { id: "none" } });
    assert.ok(keyOf(site, uploads.keep.id).startsWith("final/"));
  });
}

test("uploads of schema version 2 that were never confirmed do not let a store be made", async (t) => {
  const site = await openPlace(t, "disk");
  if (site === null) return;
  const program = await site.start();
  await clientFor(program, site.made).staged("waits in another store");
  await stop(program);
  site.sql((db) => void db.exec(FORGET));
  await site.vanish();
  const again = await site.start();
  assert.match((await again.call("GET", "/ready")).json.error.message, /the folder ".*\/objects" does not exist/);
  assert.ok(!existsSync(join(site.dataDir, "objects")));
});
