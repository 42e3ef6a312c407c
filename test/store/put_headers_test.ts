import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { type TestContext, test } from "node:test";
import { crc32 } from "node:zlib";
import { createCrc32c, createCrc64nvme } from "../../lib/crc.ts";
import { type ApiResponse, startTestApp, type TestApp } from "../help/app.ts";
import { rawClient } from "../help/raw_http.ts";

// Goal: what a PUT's headers promise of its bytes is checked, and a header that cannot be honoured is refused.
// Method: the real service on the embedded store; a file of a row's size and one of a file's; after each refusal nothing is kept.

const SMALL = randomBytes(1_000);
const LARGE = randomBytes(300_000);

const hash = (name: string, bytes: Buffer) => createHash(name).update(bytes).digest("base64");

function crc(checksum: ReturnType<typeof createCrc32c>, bytes: Buffer): string {
  // In uneven chunks, as they may come.
  checksum.update(bytes.subarray(0, 7));
  checksum.update(bytes.subarray(7));
  return checksum.digest().toString("base64");
}

function crc32Of(bytes: Buffer): string {
  const sum = Buffer.alloc(4);
  sum.writeUInt32BE(crc32(bytes));
  return sum.toString("base64");
}

/** Every promise that a client can make of these bytes. */
function promisesOf(bytes: Buffer): [header: string, value: string][] {
  const [md5, sha1, sha256, sha512] = ["md5", "sha1", "sha256", "sha512"].map((name) => hash(name, bytes));
  return [
    ["Content-MD5", `${md5}`],
    ["x-amz-checksum-crc32", crc32Of(bytes)],
    ["x-amz-checksum-crc32c", crc(createCrc32c(), bytes)],
    ["x-amz-checksum-crc64nvme", crc(createCrc64nvme(), bytes)],
    ["x-amz-checksum-sha1", `${sha1}`],
    ["x-amz-checksum-sha256", `${sha256}`],
    ["x-amz-content-sha256", createHash("sha256").update(bytes).digest("hex")],
    ["Digest", `SHA-256=${sha256}`],
    ["Digest", `md5=${md5}, sha=${sha1},SHA-512=${sha512}`],
    ["Repr-Digest", `sha-256=:${sha256}:`],
    ["Content-Digest", `sha-512=:${sha512}:, sha-256=:${sha256}:`],
  ];
}

async function start(t: TestContext): Promise<TestApp> {
  return await startTestApp(t, { env: { STOWAGE_STORE: "disk" }, cleansInBackground: false });
}

function check(response: ApiResponse, status: number, code: string, message: RegExp): void {
  assert.equal(response.status, status, response.text);
  assert.equal(response.json.error.code, code);
  assert.match(response.json.error.message, message);
}

async function checkNothingKept({ raw }: TestApp): Promise<void> {
  assert.deepEqual(await raw.objects(), []);
  assert.deepEqual(raw.halfWritten(), []);
}

test("checksums of known texts", () => {
  const text = Buffer.from("123456789");
  assert.equal(crc(createCrc32c(), text), Buffer.from("e3069283", "hex").toString("base64"));
  assert.equal(crc(createCrc64nvme(), text), Buffer.from("ae8b14860a799888", "hex").toString("base64"));
  assert.equal(crc(createCrc64nvme(), Buffer.alloc(0)), Buffer.alloc(8).toString("base64"));
});

for (const [size, bytes] of [
  ["small", SMALL],
  ["large", LARGE],
] as const) {
  test(`a promised checksum that is right is accepted; a wrong one is 400 and nothing is kept: ${size}`, async (t) => {
    const app = await start(t);
    const { uploadUrl } = await app.createUpload();
    const other = Buffer.from(bytes).fill(bytes.readUInt8(5) ^ 1, 5, 6);
    const wrong = promisesOf(other);
    for (const [i, [header, value]] of promisesOf(bytes).entries()) {
      const [, otherValue = ""] = wrong[i] ?? [];
      const refused = await app.put(uploadUrl, bytes, { [header]: otherValue });
      check(refused, 400, "BAD_REQUEST", /kept/);
      await checkNothingKept(app);
      const accepted = await app.put(uploadUrl, bytes, { [header]: value });
      assert.equal(accepted.status, 200, `${header}: ${accepted.text}`);
      const [object] = await app.raw.objects();
      assert.ok((await object?.read())?.equals(bytes));
      await app.app.objects.remove([`${object?.objectKey}`]);
    }
    // Of several, each counts.
    const both = { "Content-MD5": hash("md5", bytes), "x-amz-checksum-crc32": crc32Of(other) };
    check(await app.put(uploadUrl, bytes, both), 400, "BAD_REQUEST", /x-amz-checksum-crc32 /);
    await checkNothingKept(app);
  });
}

test("a header that cannot be read, or that asks for what is not done, is refused before a byte is read", async (t) => {
  const app = await start(t);
  const { uploadUrl } = await app.createUpload();
  const md5 = hash("md5", SMALL);
  const cases: [headers: Record<string, string>, status: number, code: string][] = [
    ...[
      { "Content-MD5": "abc" },
      { "Content-MD5": md5.slice(0, -2) },
      { "Content-MD5": Buffer.from(md5, "base64").toString("hex") },
      { "x-amz-checksum-sha256": md5 },
      { "x-amz-checksum-sha512": hash("sha512", SMALL) },
      { "x-amz-checksum-crc32": "" },
      { "x-amz-checksum-type": "COMPOSITE" },
      { "x-amz-sdk-checksum-algorithm": "CRC32" },
      { "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER" },
      { Digest: "unixsum=30637" },
      { Digest: `SHA-256=${hash("sha256", SMALL)},adler32=03da0195` },
      { Digest: "" },
      { "Repr-Digest": `sha-256=${hash("sha256", SMALL)}` },
      { "Content-Digest": `crc32c=:${crc32Of(SMALL)}:` },
      { "Content-Range": "bytes 0-9/100" },
      { Range: "bytes=0-9" },
      { Trailer: "Content-MD5" },
      { "x-amz-trailer": "x-amz-checksum-crc32" },
      { "x-amz-copy-source": "/bucket/key" },
      { "x-amz-server-side-encryption": "AES256" },
      { "x-amz-object-lock-mode": "COMPLIANCE" },
      { "If-Unmodified-Since": new Date().toUTCString() },
      { "If-Modified-Since": new Date().toUTCString() },
      { "If-Range": '"a"' },
    ].map((headers): [Record<string, string>, number, string] => [headers, 400, "BAD_REQUEST"]),
    [{ "Content-Encoding": "gzip" }, 415, "UNSUPPORTED_MEDIA_TYPE"],
    [{ "Content-Encoding": "aws-chunked" }, 415, "UNSUPPORTED_MEDIA_TYPE"],
    [{ "Content-Encoding": "identity, br" }, 415, "UNSUPPORTED_MEDIA_TYPE"],
    [{ "Content-Type": "multipart/form-data; boundary=x" }, 415, "UNSUPPORTED_MEDIA_TYPE"],
  ];
  for (const [headers, status, code] of cases) {
    check(await app.put(uploadUrl, SMALL, headers), status, code, /./);
    await checkNothingKept(app);
  }
  check(
    await app.put(uploadUrl, SMALL, { "Content-Type": "Multipart/Form-Data" }),
    415,
    "UNSUPPORTED_MEDIA_TYPE",
    /curl -T FILE/,
  );
  for (const headers of [
    { "Content-Encoding": "identity" },
    { "Content-Type": "application/x-www-form-urlencoded" },
    { "x-amz-content-sha256": "UNSIGNED-PAYLOAD" },
    { "x-amz-sdk-checksum-algorithm": "CRC32", "x-amz-checksum-crc32": crc32Of(SMALL) },
    { "x-amz-sdk-checksum-algorithm": "SHA256", "x-amz-checksum-sha256": hash("sha256", SMALL) },
    { "Cache-Control": "no-cache", "X-Requested-With": "XMLHttpRequest", traceparent: "00-0-0-0" },
  ] satisfies Record<string, string>[]) {
    const response = await app.put(uploadUrl, SMALL, headers);
    assert.equal(response.status, 200, `${JSON.stringify(headers)} ${response.text}`);
  }
});

test("a transfer coding that is not undone is 415", async (t) => {
  const app = await start(t);
  const { uploadUrl } = await app.createUpload();
  const { pathname, search } = new URL(uploadUrl);
  const client = await rawClient(t, app.app.url);
  client.send(
    `PUT ${pathname}${search} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n`,
  );
  const { status, json } = await client.response();
  assert.deepEqual([status, json.error.code], [415, "UNSUPPORTED_MEDIA_TYPE"]);
  await checkNothingKept(app);
});

for (const [size, bytes] of [
  ["small", SMALL],
  ["large", LARGE],
] as const) {
  test(`a PUT's condition that does not hold is 412 and changes nothing: ${size}`, async (t) => {
    const app = await start(t);
    const { uploadUrl } = await app.createUpload();
    const put = (headers: Record<string, string>, body = bytes) => app.put(uploadUrl, body, headers);
    const failed = (response: ApiResponse) => check(response, 412, "PRECONDITION_FAILED", /condition If-/);

    failed(await put({ "If-Match": "*" }));
    failed(await put({ "If-Match": '"a"' }));
    await checkNothingKept(app);
    const first = await put({ "If-None-Match": "*" });
    assert.equal(first.status, 200, first.text);
    const etag = String(first.headers.etag);
    failed(await put({ "If-None-Match": "*" }));
    failed(await put({ "If-None-Match": `"a", ${etag}` }));
    failed(await put({ "If-Match": '"a"' }));
    failed(await put({ "If-Match": `W/${etag}` }));
    const second = await put({ "If-Match": `"a", ${etag}` }, bytes.subarray(1));
    assert.equal(second.status, 200, second.text);
    failed(await put({ "If-Match": etag }));
    const [object] = await app.raw.objects();
    assert.ok((await object?.read())?.equals(bytes.subarray(1)));
  });

  test(`of PUTs at once that each want to be the first, one is: ${size}`, async (t) => {
    const app = await start(t);
    const { uploadUrl } = await app.createUpload();
    const all = await Promise.all([1, 2, 3].map(() => app.put(uploadUrl, bytes, { "If-None-Match": "*" })));
    assert.deepEqual(all.map(({ status }) => status).sort(), [200, 412, 412]);
  });
}

test("a download has Last-Modified, and every condition on it is evaluated", async (t) => {
  const app = await start(t);
  for (const bytes of [SMALL, LARGE]) {
    const beforeMs = Math.floor(app.clock.now() / 1_000) * 1_000;
    const { download_url: url } = await app.confirmedUpload(bytes);
    const get = (headers: Record<string, string>) => app.call("GET", url, { key: "", headers });
    const { headers } = await get({});
    const modified = String(headers["last-modified"]);
    const etag = String(headers.etag);
    const modifiedAtMs = Date.parse(modified);
    assert.ok(modifiedAtMs >= beforeMs && modifiedAtMs <= app.clock.now(), modified);
    const before = new Date(modifiedAtMs - 1_000).toUTCString();
    const cases: [headers: Record<string, string>, status: number][] = [
      [{ "If-Modified-Since": modified }, 304],
      [{ "If-Modified-Since": before }, 200],
      [{ "If-Modified-Since": "nonsense" }, 200],
      [{ "If-None-Match": '"a"', "If-Modified-Since": modified }, 200],
      [{ "If-None-Match": `W/${etag}` }, 304],
      [{ "If-None-Match": "*" }, 304],
      [{ "If-Unmodified-Since": modified }, 200],
      [{ "If-Unmodified-Since": before }, 412],
      [{ "If-Match": etag }, 200],
      [{ "If-Match": "*" }, 200],
      [{ "If-Match": '"a"' }, 412],
      [{ "If-Match": etag, "If-Unmodified-Since": before }, 200],
      [{ "If-Match": '"a"', "If-None-Match": etag }, 412],
      [{ Range: "bytes=0-1", "If-Range": etag }, 206],
      [{ Range: "bytes=0-1", "If-Range": modified }, 206],
      [{ Range: "bytes=0-1", "If-Range": before }, 200],
      [{ Range: "bytes=0-1", "If-Match": '"a"' }, 412],
    ];
    for (const [conditions, status] of cases) {
      const response = await get(conditions);
      assert.equal(response.status, status, JSON.stringify(conditions));
      if (status === 304) assert.equal(response.headers["last-modified"], modified);
    }
    const head = await app.call("HEAD", url, { key: "" });
    assert.deepEqual([head.status, head.headers["last-modified"]], [200, modified]);
  }
});
