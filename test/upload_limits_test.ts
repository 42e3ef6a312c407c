import assert from "node:assert/strict";
import { statfsSync } from "node:fs";
import { type ClientRequest, type IncomingMessage, request } from "node:http";
import { type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { startTestApp, type TestApp } from "./_app.ts";
import { afterwards } from "./_db.ts";
import { EMBEDDED_ONLY } from "./_test_store.ts";

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
    while ((await app.put(url, "x".repeat(10))).status !== 200) await delay(10);
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
