// Goal: what a client states at create, the size and the checksum of a file, decides what is kept and what is confirmed: a
// file that was cut or damaged on its way is neither kept nor charged, and the same URL takes the right one afterwards.
// Method: the real service with each store, and PUTs as clients make them, some of which close half way.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { type TestContext, test } from "node:test";
import type { TestApp } from "./_app.ts";
import { cutPut } from "./_cut_put.ts";
import { EACH_STORE, type EachStore, startAppOn } from "./_each_store.ts";
import { checkRaw, checkRawDrained } from "./_raw_store.ts";

const UPLOADS = "/api/v1/uploads";
const HEADER = "x-amz-checksum-sha256";
/** Half of it is enough for versitygw to keep it, and all of it little enough to be refused with a response. */
const FILE = randomBytes(128 * 1024);
const HALF = FILE.subarray(0, FILE.length / 2);
const DAMAGED = Buffer.from(FILE).fill(FILE.readUInt8(7) ^ 1, 7, 8);
const SUM = createHash("sha256").update(FILE).digest();
const OTHER_SUM = createHash("sha256").update(DAMAGED).digest();

interface Created {
  id: string;
  url: string;
  headers: Record<string, string>;
}

async function create({ call }: TestApp, stated: Record<string, unknown>): Promise<Created> {
  const { status, text, json } = await call("POST", UPLOADS, { body: { filename: "a", category: "file", ...stated } });
  assert.equal(status, 201, text);
  return { id: json.data.upload.id, url: json.data.upload_url, headers: json.data.upload_headers ?? {} };
}

function start(t: TestContext, store: EachStore): Promise<TestApp | null> {
  return startAppOn(t, store, { cleansInBackground: false });
}

function usedBytes({ sql, owner }: TestApp): unknown {
  return sql.prepare("SELECT storage_bytes_used FROM workspaces WHERE id = ?").pluck().get(owner.workspaceId);
}

async function checkKept({ raw }: TestApp, sizes: readonly number[]): Promise<void> {
  assert.deepEqual(
    (await raw.objects()).map(({ sizeBytes }) => sizeBytes),
    sizes,
  );
  assert.deepEqual(raw.halfWritten(), []);
}

/** The whole file goes by the same URL, and is the one that is charged. */
async function finish(app: TestApp, { id, url, headers }: Created): Promise<void> {
  const answer = await app.put(url, FILE, headers);
  assert.equal(answer.status, 200, answer.text);
  const confirmed = await app.confirm(id);
  assert.equal(confirmed.status, 200, confirmed.text);
  assert.equal(confirmed.json.data.size_bytes, FILE.length);
  assert.equal(usedBytes(app), FILE.length);
  await checkRaw(app.sql, app.raw);
  const [upload] = (await app.raw.objects()).filter(({ objectKey }) => objectKey.startsWith("final/"));
  assert.ok((await upload?.read())?.equals(FILE));
  // The first pass removes the staged object, the second looks again once the URL has expired.
  app.clock.advance(app.config.uploadUrlTtlSeconds * 1_000);
  for (let pass = 0; pass < 2; pass++) await app.app.cleaner.runOnce();
  await checkRawDrained(app.sql, app.raw);
}

/** Nothing that can be confirmed came of it. */
async function checkRefused(app: TestApp, { id }: Created, message: RegExp): Promise<void> {
  const answer = await app.confirm(id);
  assert.equal(answer.status, 422, answer.text);
  assert.equal(answer.json.error.code, "VALIDATION_ERROR");
  assert.equal(answer.json.error.details[0].field, "upload_id");
  assert.match(answer.json.error.message, message);
  assert.equal((await app.call("GET", `${UPLOADS}/${id}`)).json.data.status, "pending");
  assert.equal(usedBytes(app), 0);
  assert.equal(app.sql.prepare("SELECT count(*) FROM object_removals").pluck().get(), 0, "no lease was taken");
}

const NOTHING_CAME = /nothing was uploaded yet/;

for (const store of EACH_STORE) {
  test(`${store}: a file that was cut on its way is not confirmed, and its URL takes the whole one`, async (t) => {
    const app = await start(t, store);
    if (app === null) return;
    const upload = await create(app, { size_bytes: FILE.length });
    await cutPut(upload.url, { announcedBytes: FILE.length, sent: HALF });
    // versitygw keeps what came; the others keep nothing.
    await checkKept(app, store === "versitygw" ? [HALF.length] : []);
    const came = `${HALF.length} of ${FILE.length} bytes arrived: PUT it again to its upload_url, then confirm again`;
    await checkRefused(app, upload, store === "versitygw" ? new RegExp(came) : NOTHING_CAME);
    await finish(app, upload);
  });

  test(`${store}: with a checksum nothing is kept of a file that was cut or damaged on its way`, async (t) => {
    const app = await start(t, store);
    if (app === null) return;
    for (const stated of [{}, { size_bytes: FILE.length }]) {
      const upload = await create(app, { ...stated, checksum_sha256: SUM.toString("hex") });
      const { url, headers } = upload;
      assert.deepEqual(headers, { [HEADER]: SUM.toString("base64") });
      await cutPut(url, { announcedBytes: FILE.length, sent: HALF, headers });
      await checkKept(app, []);
      // With the right header, with another one that fits the bytes, and without any.
      for (const sent of [headers, { [HEADER]: OTHER_SUM.toString("base64") }, {}]) {
        const { status, text } = await app.put(url, DAMAGED, sent);
        assert.ok(status === 400 || status === 403, `${status} ${text}`);
      }
      await checkKept(app, []);
      await checkRefused(app, upload, NOTHING_CAME);
      if ("size_bytes" in stated) await finish(app, upload);
      else assert.equal((await app.call("DELETE", `${UPLOADS}/${upload.id}`)).status, 200);
      app.clock.advance(app.config.uploadUrlTtlSeconds * 1_000);
      for (let pass = 0; pass < 2; pass++) await app.app.cleaner.runOnce();
    }
  });
}
