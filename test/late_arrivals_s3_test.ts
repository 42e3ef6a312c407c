// Goal: what lands in the bucket after its key was given up is removed all the same: NO-ORPHAN on servers that let a PUT end
// after its URL has expired, and that finish a copy which nobody waits for any more.
// Method: real servers; the PUT is really late, the copy is held back and made by hand later. Only the service's clock moves.
import assert from "node:assert/strict";
import { once } from "node:events";
import { type ClientRequest, type IncomingMessage, request } from "node:http";
import { type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import type { SeenRequest } from "./_fault_proxy.ts";
import { DAY_MS } from "./_faulty_app.ts";
import { SHORT } from "./_matrix_faults.ts";
import { openRig, openSite, type Rig, type RigOptions, type Site, soon } from "./_matrix_rig.ts";
import { COPY } from "./_matrix_steps.ts";
import { serveProgram } from "./_process.ts";
import { checkRaw, checkRawDrained, installationOf, type RawStore } from "./_raw_store.ts";
import { S3_MAKES, type S3Server, useS3Server } from "./_s3_servers.ts";

const HOUR_MS = 3_600_000;
const URL_TTL_SECONDS = 2;

interface S3Rig extends Rig {
  s3: NonNullable<Site["s3"]>;
}

async function openS3Rig(t: TestContext, site: Site, options: RigOptions = {}): Promise<S3Rig> {
  const rig = await openRig(t, site, options);
  assert.ok(rig.s3 !== null);
  return { ...rig, s3: rig.s3 };
}

const keysOf = async (raw: RawStore): Promise<string[]> => (await raw.objects()).map(({ objectKey }) => objectKey);
const keyOf = ({ its }: Rig, id: string): string =>
  String(its.sql.prepare("SELECT object_key FROM uploads WHERE id = ?").pluck().get(id));

async function statusOf(req: ClientRequest): Promise<number> {
  const [answer]: IncomingMessage[] = await once(req, "response");
  answer?.resume();
  return answer?.statusCode ?? 0;
}

/** Sends a request once more that a proxy has seen, as it was signed. */
async function sendLate(server: S3Server, { method, path, query, headers }: SeenRequest): Promise<number> {
  const url = new URL(server.endpoint);
  const late = request({
    ...{ host: url.hostname, port: url.port, method, headers, setHost: false },
    path: query === "" ? path : `${path}?${query}`,
  });
  late.end();
  return await statusOf(late);
}

for (const make of S3_MAKES) {
  test(`${make}: a PUT that ends after its URL, its row and both removals is found by the hourly look, within the URL's life and 25 h`, async (t) => {
    const server = await useS3Server(t, make);
    if (server === null) return;
    const site = await openSite(t, server);
    site.env.STOWAGE_UPLOAD_URL_TTL_SECONDS = String(URL_TTL_SECONDS);
    const rig = await openS3Rig(t, site);
    const { its, raw } = rig;
    const { clock, app } = its;

    const { id, uploadUrl } = await its.createUpload();
    const key = keyOf(rig, id);
    const late = request(uploadUrl, { method: "PUT", headers: { "Content-Length": 8 } });
    const answered = statusOf(late);
    late.write("half");
    assert.equal((await its.call("DELETE", `/api/v1/uploads/${id}`)).status, 200);
    await app.cleaner.runOnce();
    clock.advance(URL_TTL_SECONDS * 1_000 + 1);
    await app.cleaner.runOnce();
    assert.deepEqual(its.sql.prepare("SELECT object_key FROM object_removals").all(), [], "both removals are made");
    await delay(URL_TTL_SECONDS * 1_000 + 500);
    late.end("full");
    const status = await answered;

    const lands = (await keysOf(raw)).includes(key);
    assert.equal(lands, status === 200);
    // Where it does not land there is nothing to do; two of the three let it, so that the rest is put to the test.
    assert.ok(lands || make === "versitygw", `${make} answered ${status}`);
    let hours = 0;
    while ((await keysOf(raw)).includes(key)) {
      assert.ok(hours < 25, "it is removed within the URL's life and 25 hours");
      clock.advance(HOUR_MS);
      hours++;
      await app.cleaner.lookForLateArrivals();
      await app.cleaner.runOnce();
    }
    // A PUT may be under way for a day: what is younger stays.
    assert.ok(!lands || hours >= 24, `removed after ${hours} hours`);
    await rig.drain();
  });

  for (const how of ["abandoned", "whose service was killed"]) {
    test(`${make}: a copy ${how} that lands after its removal is removed once more a day later`, async (t) => {
      const server = await useS3Server(t, make);
      if (server === null) return;
      const site = await openSite(t, server);
      const prepared = await openS3Rig(t, site, { timeouts: SHORT });
      const { id, uploadUrl } = await prepared.its.createUpload();
      assert.equal((await prepared.its.put(uploadUrl, "some text")).status, 200);
      const hung = prepared.s3.proxy.setFault({ kind: "hang", match: COPY, times: 1 });

      let rig = prepared;
      if (how === "abandoned") assert.equal((await rig.its.confirm(id)).status, 503);
      else {
        await prepared.its.close();
        const program = await serveProgram(t, site.dataDir, { env: site.env });
        const body = { context_type: "workspace", context_id: site.owner.workspaceId };
        const lost = program.call("POST", `/api/v1/uploads/${id}`, { key: site.owner.key, body }).catch(() => {});
        await soon(hung.seen, "the copy");
        program.child.kill("SIGKILL");
        await Promise.all([program.ended, lost]);
        rig = await openS3Rig(t, site);
        // Its lease runs out.
        rig.its.clock.advance(HOUR_MS);
      }
      const { its, raw } = rig;
      const copy = await hung.seen;
      const lateKey = copy.path.slice(copy.path.indexOf("final/"));
      assert.ok((await its.app.cleaner.runOnce()).removed > 0);

      assert.equal(await sendLate(server, copy), 200);
      assert.ok((await keysOf(raw)).includes(lateKey), "the copy has landed");
      await checkRaw(its.sql, raw);
      assert.equal((await its.confirm(id)).status, 200);
      assert.notEqual(keyOf(rig, id), lateKey);
      its.clock.advance(DAY_MS + HOUR_MS);
      await its.app.cleaner.runOnce();
      assert.deepEqual(await keysOf(raw), [keyOf(rig, id)]);
      await rig.drain();
    });
  }

  test(`${make}: two installations share a bucket, and neither touches what is the other's`, async (t) => {
    const server = await useS3Server(t, make);
    if (server === null) return;
    const bucketName = server.newBucketName();
    const one = await openS3Rig(t, await openSite(t, server, bucketName));
    const two = await openS3Rig(t, await openSite(t, server, bucketName));
    const both = [one, two];
    for (const { its, s3 } of both) {
      await its.confirmedUpload("confirmed");
      const { id } = await its.confirmedUpload("deleted");
      assert.equal((await its.call("DELETE", `/api/v1/uploads/${id}`)).status, 200);
      const { uploadUrl } = await its.createUpload();
      assert.equal((await its.put(uploadUrl, "pending")).status, 200);
      const lateId = "0190a000-0000-7000-8000-000000000000";
      await s3.bucket.put(`staging/${installationOf(its.sql)}/${lateId}/${"a".repeat(32)}`, "late");
    }
    const before = await keysOf(rawOf(two));
    await drainOne(one);
    assert.deepEqual(await keysOf(rawOf(two)), before);
    const confirmed = await keysOf(rawOf(one));
    assert.equal(confirmed.length, 1);
    await drainOne(two);
    assert.deepEqual(await keysOf(rawOf(one)), confirmed);
    assert.equal((await keysOf(rawOf(two))).length, 1);
  });

  test(`${make}: a bucket that is missing has removed nothing`, async (t) => {
    const server = await useS3Server(t, make);
    if (server === null) return;
    const rig = await openS3Rig(t, await openSite(t, server));
    const { its, s3, raw } = rig;
    const ids = [];
    for (const text of ["one", "two", "three"]) ids.push((await its.confirmedUpload(text)).id);
    await its.app.cleaner.runOnce();
    for (const id of ids) assert.equal((await its.call("DELETE", `/api/v1/uploads/${id}`)).status, 200);
    const restore = await s3.bucket.vanish();
    // All at once, and then one by one.
    for (let pass = 0; pass < 3; pass++) {
      assert.deepEqual(await its.app.cleaner.runOnce(), { removed: 0, failed: 0, expired: 0 });
      its.clock.advance(1);
    }
    const entries = its.sql
      .prepare<[], { attempts: number; last_error: string | null }>(
        "SELECT attempts, last_error FROM object_removals WHERE again_at_ms IS NULL AND object_key LIKE 'final/%'",
      )
      .all();
    assert.equal(entries.length, 3);
    for (const { attempts, last_error } of entries) {
      assert.equal(attempts, 0);
      assert.match(last_error ?? "", /NoSuchBucket/);
    }
    await restore();
    assert.equal((await keysOf(raw)).length, 3);
    await rig.drain();
    assert.deepEqual(await keysOf(raw), []);
  });
}

/** What of the bucket is under the prefixes of one installation. */
function rawOf({ its, raw }: Rig): RawStore {
  const part = `/${installationOf(its.sql)}/`;
  return { ...raw, objects: async () => (await raw.objects()).filter(({ objectKey }) => objectKey.includes(part)) };
}

async function drainOne(rig: Rig): Promise<void> {
  const { cleaner } = rig.its.app;
  for (let day = 0; day < 2; day++) {
    rig.its.clock.advance(DAY_MS + HOUR_MS);
    await cleaner.runOnce();
    await cleaner.lookForLateArrivals();
    await cleaner.runOnce();
  }
  await checkRawDrained(rig.its.sql, rawOf(rig));
}
