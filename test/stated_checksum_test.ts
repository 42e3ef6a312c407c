// Goal: what a client states at create, the size and the checksum of a file, decides what is kept and what is confirmed: a
// file that was cut or damaged on its way is neither kept nor charged, and the same URL takes the right one afterwards.
// Method: the real service with each store, and PUTs as clients make them, some of which close half way.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { type TestContext, test } from "node:test";
import { type Json, startTestApp, type TestApp } from "./_app.ts";
import { cutPut } from "./_cut_put.ts";
import { EACH_STORE, type EachStore, startAppOn } from "./_each_store.ts";
import { faultyStore } from "./_faulty_store.ts";
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

/** A URL to the same place that is good for any length. */
function openUrl({ app, sql }: TestApp, id: string): string {
  const key = sql.prepare<[string], string>("SELECT object_key FROM uploads WHERE id = ?").pluck().get(id) ?? "";
  const expiresAtMs = Date.now() + 60_000;
  return app.objects.presignPut(key, { contentType: "text/plain", sizeBytes: null, expiresAtMs });
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
    // Whatever the store makes of a length that is signed: what counts is what lies there.
    const anyLength = openUrl(app, upload.id);
    for (const [bytes, message] of [
      [HALF, came],
      [FILE.subarray(1), `${FILE.length - 1} of ${FILE.length} bytes arrived`],
      [Buffer.alloc(0), `0 of ${FILE.length} bytes arrived`],
      [
        Buffer.alloc(FILE.length + 1),
        `${FILE.length + 1} bytes arrived, more than the ${FILE.length} that were stated`,
      ],
    ] as const) {
      assert.equal((await app.put(anyLength, bytes)).status, 200);
      await checkRefused(app, upload, new RegExp(message));
    }
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

test("versitygw: a whole file that a cut PUT replaces while it is confirmed is not charged as the whole", async (t) => {
  const { hooks, wrapStore } = faultyStore();
  const app = await startAppOn(t, "versitygw", { cleansInBackground: false, wrapStore });
  if (app === null) return;
  const upload = await create(app, { size_bytes: FILE.length });
  assert.equal((await app.put(upload.url, FILE)).status, 200);
  hooks.before = async ({ name }) => {
    if (name === "promote") await cutPut(upload.url, { announcedBytes: FILE.length, sent: HALF });
  };
  assert.equal((await app.confirm(upload.id)).status, 503);
  hooks.before = undefined;
  const answer = await app.confirm(upload.id);
  assert.equal(answer.status, 422, answer.text);
  assert.match(answer.json.error.message, new RegExp(`${HALF.length} of ${FILE.length} bytes arrived`));
  assert.equal(usedBytes(app), 0);
  await finish(app, upload);
});

test("a checksum is shown wherever the upload is, in lower case; without one there is null and no header to send", async (t) => {
  const app = await startTestApp(t);
  const hex = SUM.toString("hex");
  const shownOf = async (id: string) => {
    const one = await app.call("GET", `${UPLOADS}/${id}`);
    const { json } = await app.call("GET", UPLOADS);
    const listed = json.data.find((upload: Json) => upload.id === id);
    return [one.json.data.checksum_sha256, listed.checksum_sha256];
  };
  const upload = await create(app, { checksum_sha256: hex.toUpperCase() });
  assert.deepEqual(await shownOf(upload.id), [hex, hex]);
  assert.equal((await app.put(upload.url, FILE, upload.headers)).status, 200);
  const { id: workflow } = (await app.call("POST", "/api/v1/workflows", { body: { name: "W" } })).json.data;
  const body = { context_type: "workflow", context_id: workflow };
  const confirmed = await app.call("POST", `${UPLOADS}/${upload.id}`, { body });
  assert.equal(confirmed.json.data.checksum_sha256, hex);
  assert.deepEqual(await shownOf(upload.id), [hex, hex]);
  const ofWorkflow = await app.call("GET", `/api/v1/workflows/${workflow}/uploads`);
  assert.equal(ofWorkflow.json.data[0].checksum_sha256, hex);

  for (const stated of [{}, { checksum_sha256: null }, { size_bytes: 5 }]) {
    const answer = await app.call("POST", UPLOADS, { body: { filename: "a", category: "file", ...stated } });
    assert.deepEqual(Object.keys(answer.json.data), ["upload", "upload_url"]);
    assert.deepEqual(await shownOf(answer.json.data.upload.id), [null, null]);
  }
});

test("what is no SHA-256 in hex is refused with 422 and makes nothing", async (t) => {
  const app = await startTestApp(t);
  const hex = SUM.toString("hex");
  for (const wrong of [
    "",
    hex.slice(1),
    `${hex}0`,
    `${hex.slice(1)}g`,
    ` ${hex.slice(1)}`,
    SUM.toString("base64"),
    7,
    [hex],
  ]) {
    const body = { filename: "a", category: "file", checksum_sha256: wrong };
    const { status, json } = await app.call("POST", UPLOADS, { body });
    assert.deepEqual(
      [status, json.error.code, json.error.details[0].field],
      [422, "VALIDATION_ERROR", "checksum_sha256"],
    );
    assert.match(json.error.message, /64 hexadecimal digits/);
  }
  assert.equal(app.sql.prepare("SELECT count(*) FROM uploads").pluck().get(), 0);
});

test("a create that is repeated with its key gets the same URL and header, also once it is confirmed", async (t) => {
  const app = await startTestApp(t);
  const hex = SUM.toString("hex");
  const stated = (checksum: string) =>
    app.call("POST", UPLOADS, {
      body: { filename: "a", category: "file", size_bytes: FILE.length, checksum_sha256: checksum },
      headers: { "Idempotency-Key": "one" },
    });
  const first = (await stated(hex)).json.data;
  const wantedUrl = (answer: Json) => [answer.upload.id, answer.upload_url, answer.upload_headers];
  assert.deepEqual(wantedUrl((await stated(hex)).json.data), wantedUrl(first));
  assert.equal((await app.put(first.upload_url, FILE, first.upload_headers)).status, 200);
  assert.equal((await app.confirm(first.upload.id)).status, 200);
  const again = (await stated(hex.toUpperCase())).json.data;
  assert.deepEqual(wantedUrl(again), wantedUrl(first));
  assert.deepEqual([again.upload.status, again.upload.checksum_sha256], ["uploaded", hex]);
  assert.equal((await stated(OTHER_SUM.toString("hex"))).status, 422, "another checksum is another request");
});
