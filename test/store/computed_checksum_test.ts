// Goal: an upload's `checksum_sha256` is the SHA-256 of the bytes that can be downloaded, or null.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { test } from "node:test";
import { SMALL_BYTES_MAX } from "../../lib/store/disk/small_objects.ts";
import { createStagedChecksums } from "../../lib/store/disk/staged_checksums.ts";
import { startTestApp, type TestApp } from "../help/app.ts";

const UPLOADS = "/api/v1/uploads";
const COMPUTES = { STOWAGE_COMPUTE_CHECKSUMS: "true" };

const sumOf = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");

/** Takes files through create, PUT (each body in turn) and confirm; returns the checksum that is shown at the end. */
async function shownAfter(
  app: TestApp,
  bodies: Buffer[],
  { filename = "a.bin", category = "file", headers = {} as Record<string, string> } = {},
): Promise<string | null> {
  const created = await app.call("POST", UPLOADS, { body: { filename, category } });
  assert.equal(created.status, 201, created.text);
  const { upload, upload_url } = created.json.data;
  for (const body of bodies) assert.equal((await app.put(upload_url, body, headers)).status, 200);
  assert.equal((await app.call("GET", `${UPLOADS}/${upload.id}`)).json.data.checksum_sha256, null, "not before");
  const confirmed = await app.confirm(upload.id);
  assert.equal(confirmed.status, 200, confirmed.text);
  const shown = (await app.call("GET", `${UPLOADS}/${upload.id}`)).json.data.checksum_sha256;
  assert.equal(confirmed.json.data.checksum_sha256, shown);
  return shown;
}

const SIZES = [0, 1, 1_024, SMALL_BYTES_MAX, SMALL_BYTES_MAX + 1, 3_000_000];

test("with STOWAGE_COMPUTE_CHECKSUMS, a confirmed upload shows the SHA-256 of its bytes, whatever its size", async (t) => {
  const app = await startTestApp(t, { env: COMPUTES });
  for (const sizeBytes of SIZES) {
    const body = randomBytes(sizeBytes);
    assert.equal(await shownAfter(app, [body]), sumOf(body), `${sizeBytes} bytes`);
  }
  const script = Buffer.from("one\ntwo\n");
  assert.equal(await shownAfter(app, [script], { filename: "a.txt", category: "script" }), sumOf(script));
});

test("of several PUTs to one URL, small and large, the last one's checksum is shown", async (t) => {
  const app = await startTestApp(t, { env: COMPUTES });
  for (const sizes of [
    [10, 10],
    [10, SMALL_BYTES_MAX + 1],
    [SMALL_BYTES_MAX + 1, 10],
    [100_000, 100_000],
  ]) {
    const bodies = sizes.map((sizeBytes) => randomBytes(sizeBytes));
    assert.equal(await shownAfter(app, bodies), sumOf(bodies.at(-1) ?? Buffer.alloc(0)), sizes.join());
  }
});

test("a PUT that was refused changes no checksum", async (t) => {
  const app = await startTestApp(t, { env: COMPUTES });
  const created = await app.call("POST", UPLOADS, { body: { filename: "a", category: "file" } });
  const { upload, upload_url } = created.json.data;
  const body = randomBytes(100);
  assert.equal((await app.put(upload_url, body)).status, 200);
  const wrong = { "Content-MD5": Buffer.alloc(16).toString("base64") };
  assert.equal((await app.put(upload_url, randomBytes(100), wrong)).status, 400);
  assert.equal((await app.confirm(upload.id)).json.data.checksum_sha256, sumOf(body));
});

test("without the setting, the checksum that a PUT has announced is shown, or none", async (t) => {
  const app = await startTestApp(t);
  for (const sizeBytes of SIZES) {
    const body = randomBytes(sizeBytes);
    assert.equal(await shownAfter(app, [body]), null);
    const headers = { "x-amz-checksum-sha256": Buffer.from(sumOf(body), "hex").toString("base64") };
    assert.equal(await shownAfter(app, [body], { headers }), sumOf(body));
  }
});

test("a checksum is known only of the very object that was PUT, and only of the latest ones", () => {
  const { note, addTo } = createStagedChecksums();
  const checksumSha256 = "0".repeat(64);
  const stored = { sizeBytes: 1, etag: '"a"' };
  note("first", { ...stored, checksumSha256 });
  assert.deepEqual(addTo("first", stored), { ...stored, checksumSha256 });
  const replaced = { sizeBytes: 1, etag: '"b"' };
  assert.deepEqual(addTo("first", replaced), replaced);
  assert.deepEqual(addTo("other", stored), stored);
  for (let i = 0; i < 10_000; i++) note(`key ${i}`, { ...stored, checksumSha256 });
  assert.deepEqual(addTo("first", stored), stored, "forgotten");
  note("key 9999", stored);
  assert.deepEqual(addTo("key 9999", stored), stored, "replaced by one whose checksum was not computed");
});
