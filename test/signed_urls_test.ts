import assert from "node:assert/strict";
import { test } from "node:test";
import { newId, newObjectKey } from "../lib/ids.ts";
import { createSignedUrls } from "../lib/store/disk/signed_urls.ts";

const NOW_MS = 1_770_000_000_000;
const EXPIRES_MS = NOW_MS + 900_000;
const KEY = newObjectKey("staging", "0123456789abcdef", newId());
const OTHER_KEY = newObjectKey("staging", "0123456789abcdef", newId());
const signing = { publicUrl: () => "https://files.example", signingKey: Buffer.alloc(32, 7), maxUploadBytes: 1_000 };
const urls = createSignedUrls(signing);

const putUrl = new URL(urls.presignPut(KEY, { contentType: "text/plain", sizeBytes: 12, expiresAtMs: EXPIRES_MS }));
const SHA256 = "0123456789abcdef".repeat(4);
const withSum = { contentType: "text/plain", checksumSha256: SHA256, expiresAtMs: EXPIRES_MS };
const sumUrl = new URL(urls.presignPut(KEY, { ...withSum, sizeBytes: null }));
const sizeAndSumUrl = new URL(urls.presignPut(KEY, { ...withSum, sizeBytes: 12 }));
const getUrl = new URL(
  urls.presignGet(KEY, { contentType: "text/plain", filename: "a b+c&d=é.txt", expiresAtMs: EXPIRES_MS }),
);

function verify(url: URL, method: string, nowMs = NOW_MS, check = urls) {
  return check.verify(method, url.pathname, url.search.slice(1), nowMs);
}

function refused(url: URL | [path: string, search: string], method: string, message = /signature does not fit/): void {
  const [path, search] = url instanceof URL ? [url.pathname, url.search.slice(1)] : url;
  assert.throws(() => urls.verify(method, path, search, NOW_MS), { code: "forbidden", message }, `${method} ${search}`);
}

function changed(url: URL, change: (params: URLSearchParams) => void): URL {
  const copy = new URL(url);
  change(copy.searchParams);
  return copy;
}

test("a URL for a stated size is good for exactly that size", () => {
  const grant = { method: "PUT", objectKey: KEY, checksumSha256: null };
  assert.deepEqual(verify(putUrl, "PUT"), { ...grant, sizeBytes: 12, maxBytes: 12 });
  const empty = new URL(urls.presignPut(KEY, { contentType: "text/plain", sizeBytes: 0, expiresAtMs: EXPIRES_MS }));
  assert.deepEqual(verify(empty, "PUT"), { ...grant, sizeBytes: 0, maxBytes: 0 });
});

test("a URL without a stated size carries the store's limit", () => {
  const url = new URL(urls.presignPut(KEY, { contentType: "text/plain", sizeBytes: null, expiresAtMs: EXPIRES_MS }));
  assert.deepEqual(verify(url, "PUT"), {
    ...{ method: "PUT", objectKey: KEY, sizeBytes: null, maxBytes: 1_000 },
    checksumSha256: null,
  });
});

test("a URL for a stated checksum carries it, with or without a size", () => {
  for (const [url, limits] of [
    [sumUrl, { sizeBytes: null, maxBytes: 1_000 }],
    [sizeAndSumUrl, { sizeBytes: 12, maxBytes: 12 }],
  ] as const) {
    assert.deepEqual(verify(url, "PUT"), { method: "PUT", objectKey: KEY, checksumSha256: SHA256, ...limits });
  }
});

test("a download's URL carries filename and content type unharmed, and serves HEAD", () => {
  const grant = { method: "GET", objectKey: KEY, contentType: "text/plain", filename: "a b+c&d=é.txt" };
  assert.deepEqual(verify(getUrl, "GET"), grant);
  assert.deepEqual(verify(getUrl, "HEAD"), grant);
});

test("a filename with half a surrogate pair can be signed and verified", () => {
  const url = new URL(
    urls.presignGet(KEY, { contentType: "text/plain", filename: "\ud800.txt", expiresAtMs: EXPIRES_MS }),
  );
  assert.deepEqual(verify(url, "GET"), {
    method: "GET",
    objectKey: KEY,
    contentType: "text/plain",
    filename: "\ufffd.txt",
  });
});

test("the signature does not cover the prefix of the public URL, which a proxy may strip", () => {
  const prefixed = createSignedUrls({ ...signing, publicUrl: () => "https://example.org/stowage" });
  const url = new URL(prefixed.presignPut(KEY, { contentType: "text/plain", sizeBytes: 12, expiresAtMs: EXPIRES_MS }));
  assert.equal(url.pathname, `/stowage/objects/${KEY}`);
  assert.equal(urls.verify("PUT", url.pathname.slice("/stowage".length), url.search.slice(1), NOW_MS).objectKey, KEY);
});

test("a URL serves no other method than its own", () => {
  for (const method of ["GET", "HEAD", "POST", "DELETE", "PATCH", "OPTIONS", ""]) refused(putUrl, method);
  for (const method of ["PUT", "POST", "DELETE", "PATCH", "OPTIONS", "get", ""]) refused(getUrl, method);
});

test("every altered, added, missing or repeated parameter makes a URL forged", () => {
  for (const [url, method] of [
    [putUrl, "PUT"],
    [sumUrl, "PUT"],
    [sizeAndSumUrl, "PUT"],
    [getUrl, "GET"],
  ] as const) {
    const names = [...url.searchParams.keys()];
    assert.ok(names.length >= 3);
    for (const name of names) {
      const value = url.searchParams.get(name) ?? "";
      refused(
        changed(url, (params) => params.delete(name)),
        method,
      );
      refused(
        changed(url, (params) => params.append(name, value)),
        method,
      );
      refused(
        changed(url, (params) => params.set(name, "")),
        method,
      );
      refused(
        changed(url, (params) => params.set(name, `${value}0`)),
        method,
      );
      refused(
        changed(url, (params) => params.set(name, `0${value}`)),
        method,
      );
    }
    refused(
      changed(url, (params) => params.append("x", "1")),
      method,
    );
    refused(
      changed(url, (params) => params.append("", "")),
      method,
    );
  }
});

test("parameters cannot be folded into one another's names or values", () => {
  const signature = putUrl.searchParams.get("signature");
  refused([putUrl.pathname, `expires%3D${EXPIRES_MS}%26size=12&signature=${signature}`], "PUT");
  refused([putUrl.pathname, `expires=${EXPIRES_MS}%26size%3D12&signature=${signature}`], "PUT");
});

test("a URL serves no other object", () => {
  for (const path of [
    `/objects/${OTHER_KEY}`,
    `/objects/${KEY}/`,
    `/objects//${KEY}`,
    `/${KEY}`,
    "/objects/",
    "",
    `/objects/${KEY.replace("/", "%2F")}`,
  ]) {
    refused([path, putUrl.search.slice(1)], "PUT");
  }
});

test("another key's signature is forged, and odd signatures are refused without harm", () => {
  const other = createSignedUrls({ ...signing, signingKey: Buffer.alloc(32, 8) });
  assert.throws(() => verify(putUrl, "PUT", NOW_MS, other), { code: "forbidden" });
  const signature = putUrl.searchParams.get("signature") ?? "";
  for (const odd of ["é".repeat(43), signature.slice(1), `${signature}=`, "\0", signature.toLowerCase()]) {
    refused(
      changed(putUrl, (params) => params.set("signature", odd)),
      "PUT",
    );
  }
});

test("the last character of a signature cannot be exchanged for one that decodes to the same bytes", () => {
  const signature = putUrl.searchParams.get("signature") ?? "";
  const same = [..."ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"]
    .map((last) => signature.slice(0, -1) + last)
    .filter((text) => text !== signature && Buffer.from(text, "base64url").equals(Buffer.from(signature, "base64url")));
  assert.equal(same.length, 3);
  for (const text of same)
    refused(
      changed(putUrl, (params) => params.set("signature", text)),
      "PUT",
    );
});

test("a URL expires at its moment, and the answer says what to do", () => {
  assert.equal(verify(putUrl, "PUT", EXPIRES_MS - 1).objectKey, KEY);
  const expired = (advice: RegExp) => ({ code: "forbidden", message: advice });
  assert.throws(() => verify(putUrl, "PUT", EXPIRES_MS), expired(/expired at 2026-.*create a new one/));
  assert.throws(() => verify(getUrl, "GET", EXPIRES_MS), expired(/expired at 2026-.*read the upload again/));
});
