import assert from "node:assert/strict";
import http from "node:http";
import { test } from "node:test";
import { Client } from "minio";
import { fetch } from "undici";
import { createPresigner, PRESIGN_SECONDS_MAX } from "../lib/store/s3/signing.ts";
import { openS3Store, putTo, S3_MAKES, useS3Server } from "./_s3_servers.ts";

const NOW_MS = Date.parse("2026-11-23T12:34:56.789Z");
const KEY = { accessKey: "AKIDEXAMPLE", secretKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY" };
const BASE = {
  endpoint: "https://s3.example.com",
  region: "eu-central-1",
  bucket: "stowage",
  virtualHost: false,
  ...KEY,
};
const ALPHABET = "abcXYZ019-_.~/ !'()*+%&=?#:;,@$\"<>\\^`{|}äß測🙂";

/** A small generator with a seed, so that a failure can be repeated. */
function createRandom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

test("a URL is the client library's own, over random keys, dates and lives", async () => {
  const seed = Number(process.env.STOWAGE_TEST_SEED ?? Date.now() % 2 ** 31);
  console.log(`seed ${seed} (repeat with STOWAGE_TEST_SEED=${seed})`);
  const random = createRandom(seed);
  const pick = (chars: string, length: number) => {
    const all = [...chars];
    return Array.from({ length }, () => all[random(all.length)]).join("");
  };

  for (let i = 0; i < 300; i++) {
    const region = ["us-east-1", "garage", "eu-west-2"][random(3)] ?? "";
    const bucket = `b${pick("abc019-", 8)}z`;
    const secure = random(2) === 0;
    const virtualHost = random(2) === 0;
    const port = [80, 443, 9000][random(3)] ?? 0;
    const pair = { accessKey: pick("ABCxyz019", 12), secretKey: pick("ABCxyz019+/=", 40) };
    const client = new Client({
      endPoint: "s3.example.com",
      ...{ port, region, useSSL: secure, pathStyle: !virtualHost, ...pair },
    });
    const endpoint = `${secure ? "https" : "http"}://s3.example.com:${port}`;
    const presign = createPresigner({ endpoint, region, bucket, virtualHost, ...pair });

    // Slashes at the ends or next to each other are legal in keys; "." and ".." as a part are not our business.
    const objectKey = `k${pick(ALPHABET, 1 + random(40))}`;
    const signedAtMs = Math.floor((NOW_MS + random(2 ** 31) * 1000) / 1000) * 1000;
    const seconds = 1 + random(PRESIGN_SECONDS_MAX - 1);
    const times = { signedAtMs, expiresAtMs: signedAtMs + seconds * 1000 };

    const put = await client.presignedUrl("PUT", bucket, objectKey, seconds, {}, new Date(signedAtMs));
    assert.equal(presign({ method: "PUT", objectKey, ...times }), put);

    const query = {
      "response-content-type": "text/plain; charset=utf-8",
      "response-content-disposition": pick(ALPHABET, 20),
    };
    const get = new URL(await client.presignedUrl("GET", bucket, objectKey, seconds, query, new Date(signedAtMs)));
    const ours = new URL(presign({ method: "GET", objectKey, query, ...times }));
    assert.equal(ours.origin + ours.pathname, get.origin + get.pathname);
    assert.deepEqual([...ours.searchParams].sort(), [...get.searchParams].sort());
  }
});

test("the signing key follows the day, forwards and back", () => {
  const presign = createPresigner(BASE);
  const at = (signedAtMs: number) =>
    presign({ method: "PUT", objectKey: "k", signedAtMs, expiresAtMs: signedAtMs + 60_000 });
  const today = at(NOW_MS);
  const tomorrow = at(NOW_MS + 24 * 3600_000);
  assert.match(tomorrow, /Credential=AKIDEXAMPLE%2F20261124%2F/);
  assert.equal(at(NOW_MS), today);
  assert.equal(
    createPresigner(BASE)({
      method: "PUT",
      objectKey: "k",
      signedAtMs: NOW_MS + 86_400_000,
      expiresAtMs: NOW_MS + 86_460_000,
    }),
    tomorrow,
  );
});

test("a URL never outlives what was promised, and one of the past is expired", () => {
  const presign = createPresigner(BASE);
  const endOf = (signedAtMs: number, expiresAtMs: number) => {
    const { searchParams } = new URL(presign({ method: "GET", objectKey: "k", signedAtMs, expiresAtMs }));
    const time = searchParams.get("X-Amz-Date") ?? "";
    const iso = time.replace(/^(....)(..)(..T..)(..)(..Z)$/, "$1-$2-$3:$4:$5");
    return Date.parse(iso) + Number(searchParams.get("X-Amz-Expires")) * 1000;
  };
  for (let ms = 0; ms < 1_000; ms += 37) {
    const expiresAtMs = NOW_MS + 900_000 + ms;
    assert.equal(endOf(NOW_MS, expiresAtMs), Math.floor(expiresAtMs / 1000) * 1000);
  }
  assert.ok(endOf(NOW_MS, NOW_MS - 60_000) <= NOW_MS - 60_000);
  assert.equal(endOf(NOW_MS, NOW_MS + 30 * 86_400_000), Math.floor(NOW_MS / 1000) * 1000 + PRESIGN_SECONDS_MAX * 1000);
});

test("a path prefix of the public endpoint is in the URL and not in the signature", () => {
  const times = { signedAtMs: NOW_MS, expiresAtMs: NOW_MS + 60_000 };
  const plain = new URL(createPresigner(BASE)({ method: "PUT", objectKey: "a/b", ...times }));
  for (const prefix of ["/store", "/store/", "/deep/store"]) {
    const presign = createPresigner({ ...BASE, endpoint: `https://s3.example.com${prefix}` });
    const url = new URL(presign({ method: "PUT", objectKey: "a/b", ...times }));
    assert.equal(url.pathname, `${prefix.replace(/\/$/, "")}/stowage/a/b`);
    assert.equal(url.search, plain.search);
  }
});

test("a bucket with dots stays in the path over TLS, whatever the style", () => {
  const times = { signedAtMs: NOW_MS, expiresAtMs: NOW_MS + 60_000 };
  const style = (endpoint: string, bucket: string) => {
    const url = new URL(
      createPresigner({ ...BASE, endpoint, bucket, virtualHost: true })({ method: "PUT", objectKey: "k", ...times }),
    );
    return url.host + url.pathname;
  };
  assert.equal(style("https://s3.example.com", "my.bucket"), "s3.example.com/my.bucket/k");
  assert.equal(style("http://s3.example.com", "my.bucket"), "my.bucket.s3.example.com/k");
  assert.equal(style("https://s3.example.com:8443", "bucket"), "bucket.s3.example.com:8443/k");
});

for (const make of S3_MAKES) {
  test(`${make}: a signed length is the only one that is taken, and zero is one`, async (t) => {
    const server = await useS3Server(t, make);
    if (!server) return;
    const store = await openS3Store(t, server);
    const urlFor = (sizeBytes: number | null) =>
      store.presignPut("staging/i/u/r", { contentType: "text/plain", sizeBytes, expiresAtMs: Date.now() + 60_000 });
    assert.equal(await putTo(urlFor(5), "12345"), 200);
    assert.equal(await putTo(urlFor(5), "123456"), 403);
    assert.equal(await putTo(urlFor(5), "1234"), 403);
    assert.equal((await store.stat("staging/i/u/r"))?.sizeBytes, 5);
    assert.equal(await putTo(urlFor(0), ""), 200);
    assert.equal((await store.stat("staging/i/u/r"))?.sizeBytes, 0);
    // Where no size was stated any length goes, and so does any content type.
    assert.equal(await putTo(urlFor(null), "123456789", { "content-type": "video/x-odd" }), 200);
  });

  test(`${make}: an expired URL and a URL for another object are refused`, async (t) => {
    const server = await useS3Server(t, make);
    if (!server) return;
    const store = await openS3Store(t, server);
    const options = { contentType: "text/plain", sizeBytes: null };
    const expired = store.presignPut("staging/i/u/r", { ...options, expiresAtMs: Date.now() - 1_000 });
    const status = await putTo(expired, "x");
    // Garage calls it a bad request.
    assert.equal(status, make === "garage" ? 400 : 403);
    const good = store.presignPut("staging/i/u/r", { ...options, expiresAtMs: Date.now() + 60_000 });
    assert.equal(await putTo(good.replace("staging/i/u/r", "staging/i/u/s"), "x"), 403);
    assert.equal(await putTo(good, "x"), 200);
  });

  test(`${make}: a download has our name, type and caching, and takes a range`, async (t) => {
    const server = await useS3Server(t, make);
    if (!server) return;
    const store = await openS3Store(t, server);
    await store.put("final/i/u/r", "0123456789", "application/x-other");
    const filename = 'naïve "report" (1), 測試.txt';
    const url = store.presignGet("final/i/u/r", {
      contentType: "text/plain; charset=utf-8",
      filename,
      expiresAtMs: Date.now() + 60_000,
    });
    // Asked for apart: to a range Garage gives what was stored with the object instead.
    const ranged = await fetch(url, { headers: { range: "bytes=2-4" } });
    assert.equal(ranged.status, 206);
    assert.equal(await ranged.text(), "234");
    const answer = await fetch(url);
    assert.equal(answer.status, 200);
    assert.equal(await answer.text(), "0123456789");
    assert.equal(answer.headers.get("content-type"), "text/plain; charset=utf-8");
    assert.equal(answer.headers.get("cache-control"), "private, no-store");
    const disposition = answer.headers.get("content-disposition") ?? "";
    assert.match(disposition, /^attachment; /);
    const encoded = /filename\*=UTF-8''([^;]+)/.exec(disposition)?.[1] ?? "";
    assert.equal(decodeURIComponent(encoded), filename);
  });

  test(`${make}: a URL with a path prefix works through a proxy that takes the prefix away`, async (t) => {
    const server = await useS3Server(t, make);
    if (!server) return;
    const proxy = http.createServer((req, res) => {
      assert.match(req.url ?? "", /^\/store\//);
      const onward = http.request(server.endpoint, {
        method: req.method,
        path: req.url?.slice("/store".length),
        headers: req.headers,
      });
      onward.on("response", (answer) => answer.pipe(res.writeHead(answer.statusCode ?? 0, answer.headers)));
      req.pipe(onward);
    });
    await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
    t.after(() => proxy.close());
    const address = proxy.address();
    assert.ok(address !== null && typeof address === "object");
    const store = await openS3Store(t, server, { publicEndpoint: `http://127.0.0.1:${address.port}/store/` });
    const expiresAtMs = Date.now() + 60_000;
    const put = store.presignPut("staging/i/u/r", { contentType: "text/plain", sizeBytes: 3, expiresAtMs });
    assert.equal(await putTo(put, "abc"), 200);
    const get = store.presignGet("staging/i/u/r", { contentType: "text/plain", filename: "a.txt", expiresAtMs });
    assert.equal(await (await fetch(get)).text(), "abc");
  });
}
