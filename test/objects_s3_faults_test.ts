import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { type ListedObject, StoreError } from "../lib/store/objects.ts";
import { answerOf, S3AnswerError, toStoreError } from "../lib/store/s3/errors.ts";
import { createS3Store, type S3Store, type S3StoreOptions } from "../lib/store/s3/objects_s3.ts";
import { type FaultKind, type FaultMatch, type FaultProxy, startFaultProxy } from "./_fault_proxy.ts";
import { collectLog, type LoggedEvent, openS3Store, useS3Server } from "./_s3_servers.ts";
import { failureOf } from "./_store_failure.ts";

// Goal: whatever a store or a proxy in front of it answers, or does not answer, is taken for what it is.
// Method: a real MinIO behind a proxy that breaks what it is told to; time limits are a fraction of a second.

/** Long enough for a real answer on a machine that is busy. */
const FAST = { callMs: 1_500, manyMs: 1_500, copyMs: 1_500, readIdleMs: 1_500 };
/** For calls that get no answer at all. */
const SHORT = { callMs: 200, manyMs: 200, copyMs: 200, readIdleMs: 200 };
const BODIES = {
  empty: "",
  html: "<html><head><title>Welcome</title></head><body><h1>It works</h1></body></html>",
  text: "OK",
  json: '{"status":"ok"}',
  "another document": "<ListAllMyBucketsResult></ListAllMyBucketsResult>",
};
const COPY: FaultMatch = { method: "PUT", header: ["x-amz-copy-source", /./] };
const [STAGING, FINAL] = ["staging/i/u/r", "final/i/u/r"];

interface Rig {
  store: S3Store;
  /** The same bucket without the proxy. */
  direct: S3Store;
  proxy: FaultProxy;
  events: LoggedEvent[];
}

async function openRig(t: TestContext, options: Partial<S3StoreOptions> = {}): Promise<Rig | null> {
  const server = await useS3Server(t, "minio");
  if (!server) return null;
  const proxy = await startFaultProxy(t, server.endpoint);
  const bucket = server.newBucketName();
  const direct = await openS3Store(t, server, { bucket });
  const { log, events } = collectLog();
  const store = createS3Store({
    ...{ ...server, endpoint: proxy.url, publicEndpoint: server.endpoint, bucket, log, now: Date.now },
    ...{ timeouts: FAST, ...options },
  });
  t.after(() => store.close());
  return { store, direct, proxy, events };
}

async function stage({ direct }: Rig, body = "hello") {
  await direct.put(STAGING, body, "text/plain");
  const source = await direct.stat(STAGING);
  assert.ok(source);
  return { source, contentType: "text/plain" };
}

async function putMany(store: S3Store, count: number): Promise<string[]> {
  const keys = Array.from({ length: count }, (_, i) => `final/i/u/${String(i).padStart(4, "0")}`);
  await Promise.all(keys.map((key) => store.put(key, "x", "text/plain")));
  return keys;
}

async function listed(store: S3Store, prefix: string): Promise<ListedObject[]> {
  const objects: ListedObject[] = [];
  for await (const object of store.list(prefix)) objects.push(object);
  return objects;
}

test("every call that gets no answer ends in time, also one that waits for a connection", async (t) => {
  const rig = await openRig(t, { socketsMax: 1, timeouts: SHORT });
  if (!rig) return;
  const { store, proxy } = rig;
  proxy.setFault({ kind: "hang" });
  const calls: (() => Promise<unknown>)[] = [
    () => store.stat(STAGING),
    () => store.promote(STAGING, FINAL, { source: { sizeBytes: 1, etag: '"0"' }, contentType: "a/b" }),
    () => store.read(FINAL),
    () => store.remove([FINAL]),
    () => store.remove([FINAL, STAGING]),
    () => listed(store, "final/i/"),
    () => store.probe(),
    () => store.put(FINAL, "x", "a/b"),
    () => store.prepare({ makes: true }),
  ];
  for (const failed of await Promise.all(calls.map((call) => failureOf(call())))) {
    assert.equal(failed.failure, "unavailable");
    assert.equal(failed.isRefusal, false);
    assert.match(failed.message, /no answer within \d+ ms/);
  }
});

test("a call that waits for a connection does not wait for longer than its own time", async (t) => {
  const rig = await openRig(t, { socketsMax: 1, timeouts: { ...SHORT, manyMs: 600_000 } });
  if (!rig) return;
  const { store, proxy } = rig;
  const hung = proxy.setFault({ kind: "hang" });
  const listing = failureOf(listed(store, "final/i/"));
  await hung.seen;
  assert.match((await failureOf(store.stat(STAGING))).message, /no answer within 200 ms/);
  await proxy.heal();
  proxy.disconnect();
  await listing;
});

test("copies and reads that take long leave all connections of short calls free", async (t) => {
  const rig = await openRig(t, { socketsMax: 1, copySocketsMax: 2, timeouts: { ...SHORT, copyMs: 600_000 } });
  if (!rig) return;
  const { store, proxy } = rig;
  const staged = await store.put(STAGING, "x", "a/b");
  await store.put("final/i/u/read", "x".repeat(100), "a/b");
  const held = proxy.setFault({ kind: "hold", match: COPY });
  const reading = await store.read("final/i/u/read");
  const copies = [FINAL, `${FINAL}2`].map((key) => store.promote(STAGING, key, { source: staged, contentType: "a/b" }));
  await held.seen;
  await store.probe();
  assert.deepEqual(await store.stat(STAGING), staged);
  assert.equal((await store.remove(["final/i/u/none"])).size, 0);
  held.release();
  assert.equal((await reading.toArray()).join("").length, 100);
  for (const copied of await Promise.all(copies)) assert.equal(copied.sizeBytes, 1);
  assert.ok(proxy.connectionsMax() <= 5, `${proxy.connectionsMax()} connections`);
});

test("503s and hung calls cost no connection: the next call works, and nothing is printed", async (t) => {
  const printed: unknown[] = [];
  for (const name of ["log", "info", "warn", "error", "debug"] as const) {
    t.mock.method(console, name, (...words: unknown[]) => printed.push(words));
  }
  const rig = await openRig(t, { socketsMax: 2 });
  if (!rig) return;
  const { store, proxy, events } = rig;
  for (const status of [408, 429, 499, 500, 502, 503, 504, 520]) {
    const body = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
    const fault = proxy.setFault({ kind: "answer", status, body, times: 6 });
    const failures = await Promise.all(Array.from({ length: 6 }, () => failureOf(store.probe())));
    for (const failed of failures) {
      assert.equal(failed.failure, "unavailable");
      assert.match(failed.message, new RegExp(`${status} SlowDown \\(Please reduce`));
    }
    assert.equal(fault.hits(), 6, "no call is repeated behind our back");
    await proxy.heal();
    await store.probe();
  }
  proxy.setFault({ kind: "hang" });
  await Promise.all(Array.from({ length: 6 }, () => failureOf(store.probe())));
  await proxy.heal();
  await store.probe();
  assert.ok(proxy.connectionsMax() <= 4, "two of each store");
  assert.deepEqual(printed, []);
  assert.deepEqual(events, []);
});

test("an error with a body without end costs no connection either", async (t) => {
  const rig = await openRig(t, { socketsMax: 1 });
  if (!rig) return;
  const { store, proxy } = rig;
  proxy.setFault({ kind: "answer", status: 500, body: "x".repeat(1024 * 1024), times: 2 });
  for (let i = 0; i < 2; i++) assert.match((await failureOf(store.probe())).message, /answered 500/);
  proxy.setFault({ kind: "answer", status: 503, body: "<Error>", headers: { "content-length": "100" }, times: 1 });
  assert.match((await failureOf(store.probe())).message, /answered 503|no answer within/);
  await store.probe();
});

test("no more connections are open than allowed, however many calls", async (t) => {
  const rig = await openRig(t, { timeouts: {} });
  if (!rig) return;
  const { store, proxy } = rig;
  await Promise.all(Array.from({ length: 200 }, (_, i) => store.stat(`final/i/u/${i}`)));
  assert.ok(proxy.connectionsMax() <= 16, `${proxy.connectionsMax()} connections`);
  assert.ok(proxy.inFlightMax() > 4, "they do go side by side");
});

test("a kept connection that turns out to be closed is replaced once, and only then", async (t) => {
  const rig = await openRig(t, { socketsMax: 1 });
  if (!rig) return;
  const { store, proxy } = rig;
  await store.probe();
  proxy.requests.length = 0;
  const stale = proxy.setFault({ kind: "cut", times: 1 });
  await store.probe();
  assert.equal(stale.hits(), 1);
  assert.equal(proxy.requests.length, 2);

  // The second attempt is the last.
  await store.probe();
  proxy.requests.length = 0;
  const down = proxy.setFault({ kind: "cut" });
  assert.equal((await failureOf(store.probe())).failure, "unavailable");
  assert.equal(down.hits(), 2);
  // The connection is new now: its reset is an answer.
  assert.equal((await failureOf(store.probe())).failure, "unavailable");
  assert.equal(down.hits(), 3);
});

test("a copy that was sent twice is no refusal, even if the second answer is one", async (t) => {
  const rig = await openRig(t, { copySocketsMax: 1 });
  if (!rig) return;
  const { store, direct, proxy } = rig;
  const options = await stage(rig);
  await direct.put(STAGING, "other", "text/plain");
  // Leaves a kept connection of the kind that copies use.
  await (await store.read(STAGING)).toArray();
  const lost = proxy.setFault({ kind: "cut", match: COPY, times: 1 });
  const failed = await failureOf(store.promote(STAGING, FINAL, options));
  assert.equal(lost.hits(), 1);
  assert.equal(failed.failure, "changed");
  assert.equal(failed.isRefusal, false);
});

for (const [name, body] of Object.entries(BODIES)) {
  test(`a status 200 with ${name} in place of the answer counts for nothing`, async (t) => {
    const rig = await openRig(t);
    if (!rig) return;
    const { store, direct, proxy } = rig;
    const options = await stage(rig);
    await direct.put(FINAL, "x", "text/plain");
    proxy.setFault({ kind: "answer", status: 200, body });
    for (const [call, work] of Object.entries({
      stat: () => store.stat(STAGING),
      promote: () => store.promote(STAGING, "final/i/u/s", options),
      read: () => store.read(FINAL),
      removeOne: () => store.remove([FINAL]),
      removeMany: () => store.remove([FINAL, STAGING]),
      list: () => listed(store, "final/i/"),
      probe: () => store.probe(),
      put: () => store.put(FINAL, "y", "a/b"),
    })) {
      const failed = await failureOf(work());
      assert.equal(failed.failure, "unavailable", call);
      assert.equal(failed.isRefusal, false, call);
    }
    assert.equal((await listed(direct, "final/i/")).length, 1);
  });
}

test("a 404 that is not the store's own is neither absent nor removed", async (t) => {
  const rig = await openRig(t);
  if (!rig) return;
  const { store, direct, proxy } = rig;
  await direct.put(FINAL, "x", "text/plain");
  proxy.setFault({ kind: "answer", status: 404, body: BODIES.html });
  for (const [call, work] of Object.entries({
    stat: () => store.stat(FINAL),
    read: () => store.read(FINAL),
    removeOne: () => store.remove([FINAL]),
    removeMany: () => store.remove([FINAL, STAGING]),
  })) {
    assert.equal((await failureOf(work())).failure, "unavailable", call);
  }
  // Even where only HEAD is answered so, the listing knows better.
  await proxy.heal();
  proxy.setFault({ kind: "answer", status: 404, match: { method: "HEAD" } });
  assert.equal((await failureOf(store.stat(FINAL))).failure, "unavailable");
  assert.equal(await store.stat("final/i/u/absent"), null);
});

test("an object that comes between the two looks is found", async (t) => {
  const rig = await openRig(t);
  if (!rig) return;
  const { store, direct, proxy } = rig;
  await direct.put(FINAL, "x", "text/plain");
  proxy.setFault({ kind: "answer", status: 404, match: { method: "HEAD" }, times: 1 });
  assert.equal((await store.stat(FINAL))?.sizeBytes, 1);
});

test("a removal that the store answers with NoSuchKey is done, with anything else it is not", async (t) => {
  const rig = await openRig(t);
  if (!rig) return;
  const { store, proxy } = rig;
  const answer = (status: number, code: string) => {
    const body = `<?xml version="1.0"?><Error><Code>${code}</Code><Message>m</Message></Error>`;
    proxy.setFault({ kind: "answer", match: { method: "DELETE" }, status, body, times: 1 });
  };
  answer(404, "NoSuchKey");
  assert.deepEqual(await store.remove([FINAL]), new Map());
  answer(404, "NoSuchBucket");
  assert.equal((await failureOf(store.remove([FINAL]))).failure, "bucket_missing");
  answer(404, "NoSuchUpload");
  assert.equal((await failureOf(store.remove([FINAL]))).failure, "unavailable");
  answer(503, "SlowDown");
  assert.equal((await failureOf(store.remove([FINAL]))).failure, "unavailable");
  answer(403, "AccessDenied");
  assert.match((await store.remove([FINAL])).get(FINAL) ?? "", /403 AccessDenied/);
  answer(403, "RequestTimeTooSkewed");
  assert.equal((await failureOf(store.remove([FINAL]))).failure, "denied", "it is not about this object");
});

test("a multi-object delete whose answer is cut short removed nothing that counts", async (t) => {
  const rig = await openRig(t);
  if (!rig) return;
  const { store, proxy } = rig;
  const match = { method: "POST", query: /^delete/ };
  const whole =
    '<?xml version="1.0"?>\n<DeleteResult xmlns="u"><Error><Key>final/i/u/r</Key><Code>AccessDenied</Code></Error></DeleteResult>';
  for (let length = 22; length < whole.length; length += 5) {
    proxy.setFault({ kind: "answer", match, status: 200, body: whole.slice(0, length), times: 1 });
    assert.equal((await failureOf(store.remove([FINAL, STAGING]))).failure, "unavailable", whole.slice(0, length));
  }
});

test("each error entry of a multi-object delete fails its own key, and no other", async (t) => {
  const rig = await openRig(t);
  if (!rig) return;
  const { store, proxy } = rig;
  const keys = ["final/i/u/1", "00123", "final/i/u/3", "final/i/u/4"];
  const entry = (key: string, code: string) =>
    `<Error><Key>${key}</Key><Code>${code}</Code><Message>m</Message></Error>`;
  const answer = (entries: string) =>
    proxy.setFault({
      ...{ kind: "answer", match: { method: "POST", query: /^delete/ }, status: 200, times: 1 },
      body: `<DeleteResult>${entries}</DeleteResult>`,
    });
  // What was asked to be quiet about may be named all the same, as versitygw does.
  const named = "<Deleted><Key>final/i/u/1</Key></Deleted>";
  answer(named + entry("00123", "InternalError") + entry("final/i/u/3", "NoSuchKey") + entry("final/i/u/4", ""));
  const failed = await store.remove(keys);
  assert.deepEqual([...failed.keys()], ["00123", "final/i/u/4"]);
  assert.match(failed.get("00123") ?? "", /InternalError \(m\)/);
  // An entry that is about none of ours could be about any of them.
  answer(entry("final/i/u/other", "InternalError"));
  assert.equal((await failureOf(store.remove(keys))).failure, "unavailable");
});

for (const { status, code } of [
  { status: 501, code: "NotImplemented" },
  { status: 400, code: "NotImplemented" },
  { status: 405, code: "MethodNotAllowed" },
]) {
  test(`a server that answers ${status} ${code} to multi-object deletes gets single ones from then on`, async (t) => {
    const rig = await openRig(t);
    if (!rig) return;
    const { store, direct, proxy, events } = rig;
    const body = `<Error><Code>${code}</Code><Message>A header you provided implies functionality</Message></Error>`;
    const fault = proxy.setFault({ kind: "answer", match: { method: "POST", query: /^delete/ }, status, body });
    const keys = await putMany(direct, 20);
    assert.deepEqual(await store.remove(keys.slice(0, 10)), new Map());
    assert.deepEqual(await store.remove(keys.slice(10)), new Map());
    assert.deepEqual(await listed(direct, "final/i/"), []);
    assert.equal(fault.hits(), 1, "it is asked once");
    assert.deepEqual(
      events.map(({ msg }) => msg),
      ["multi_delete_unsupported"],
    );
    assert.ok(proxy.inFlightMax() <= 8);
  });
}

test("a refused multi-object delete is not taken for one that the server does not know", async (t) => {
  const rig = await openRig(t);
  if (!rig) return;
  const { store, proxy, events } = rig;
  const body = "<Error><Code>AccessDenied</Code><Message>m</Message></Error>";
  proxy.setFault({ kind: "answer", match: { method: "POST" }, status: 403, body });
  assert.equal((await failureOf(store.remove([FINAL, STAGING]))).failure, "denied");
  assert.deepEqual(
    proxy.requests.map(({ method }) => method),
    ["POST"],
  );
  assert.deepEqual(events, []);
});

test("at most four multi-object deletes are in flight, and after one that failed no other is begun", async (t) => {
  const rig = await openRig(t, { timeouts: {} });
  if (!rig) return;
  const { store, proxy } = rig;
  const keys = Array.from({ length: 9_500 }, (_, i) => `final/i/u/${i}`);
  const held = proxy.setFault({ kind: "hold", times: 4 });
  const removing = store.remove(keys);
  await held.seen;
  held.release();
  assert.deepEqual(await removing, new Map());
  assert.equal(proxy.requests.length, 10);
  assert.equal(proxy.inFlightMax(), 4);

  // The first is answered, the second fails while two more are on their way: the rest is not tried.
  proxy.requests.length = 0;
  proxy.setFault({ kind: "answer", status: 503, body: "", skip: 1 });
  const failed = await store.remove(keys);
  assert.equal(failed.size, 8_500);
  assert.ok(proxy.requests.length <= 5, `${proxy.requests.length} requests`);
  for (const reason of new Set(failed.values())) assert.match(reason, /answered 503/);
});

test("a store that is down fails a removal as a whole, and works again when it is back", async (t) => {
  const rig = await openRig(t);
  if (!rig) return;
  const { store, direct, proxy } = rig;
  const keys = await putMany(direct, 3);
  proxy.setFault({ kind: "refuse" });
  for (const some of [keys, keys.slice(0, 1)]) {
    const failed = await failureOf(store.remove(some));
    assert.equal(failed.failure, "unavailable");
    assert.match(failed.message, /ECONNREFUSED/);
  }
  assert.match((await failureOf(store.probe())).message, /ECONNREFUSED/);
  await proxy.heal();
  await store.probe();
  assert.deepEqual(await store.remove(keys), new Map());
  assert.deepEqual(await listed(direct, "final/i/"), []);
});

test("a copy whose answer is lost may have happened", async (t) => {
  const rig = await openRig(t);
  if (!rig) return;
  const { store, direct, proxy } = rig;
  const options = await stage(rig);
  const faults: FaultKind[] = [
    { kind: "drop_response" },
    { kind: "drop_response", connection: "open" },
    { kind: "reset", afterBytes: 100 },
    { kind: "slow", byteEveryMs: 50 },
    { kind: "rewrite", change: (answer) => ({ ...answer, body: answer.body.subarray(0, -5) }) },
  ];
  for (const [index, fault] of faults.entries()) {
    const finalKey = `final/i/u/${index}`;
    proxy.setFault({ ...fault, match: COPY });
    const failed = await failureOf(store.promote(STAGING, finalKey, options));
    assert.equal(failed.failure, "unavailable", fault.kind);
    assert.equal(failed.isRefusal, false, fault.kind);
    assert.equal((await direct.stat(finalKey))?.sizeBytes, 5, `${fault.kind}: the store did it`);
    await proxy.heal();
  }
});

test("after any failure of a copy the staged object is looked at", async (t) => {
  const rig = await openRig(t);
  if (!rig) return;
  const { store, direct, proxy } = rig;
  const options = await stage(rig);
  const promoteAfter = async (status: number, code: string) => {
    const body = `<Error><Code>${code}</Code><Message>m</Message></Error>`;
    proxy.setFault({ kind: "answer", match: COPY, status, body, times: 1 });
    const { failure, isRefusal } = await failureOf(store.promote(STAGING, FINAL, options));
    return { failure, isRefusal };
  };
  // The source is as it was: what was said of it is not so.
  assert.deepEqual(await promoteAfter(412, "PreconditionFailed"), { failure: "unavailable", isRefusal: false });
  assert.deepEqual(await promoteAfter(404, "NoSuchKey"), { failure: "unavailable", isRefusal: false });
  assert.deepEqual(await promoteAfter(500, "InternalError"), { failure: "unavailable", isRefusal: false });
  assert.deepEqual(await promoteAfter(403, "AccessDenied"), { failure: "denied", isRefusal: true });
  assert.deepEqual(await promoteAfter(404, "NoSuchBucket"), { failure: "bucket_missing", isRefusal: true });
  // Status 200 goes out before the work is done.
  assert.deepEqual(await promoteAfter(200, "InternalError"), { failure: "unavailable", isRefusal: false });

  // It changed: a 5xx says nothing about the copy, so that may still come.
  await direct.put(STAGING, "other", "text/plain");
  assert.deepEqual(await promoteAfter(412, "PreconditionFailed"), { failure: "changed", isRefusal: true });
  assert.deepEqual(await promoteAfter(404, "NoSuchKey"), { failure: "changed", isRefusal: true });
  assert.deepEqual(await promoteAfter(500, "InternalError"), { failure: "changed", isRefusal: false });

  await direct.remove([STAGING]);
  assert.deepEqual(await promoteAfter(412, "PreconditionFailed"), { failure: "absent", isRefusal: true });
  assert.deepEqual(await promoteAfter(500, "InternalError"), { failure: "absent", isRefusal: false });
  assert.deepEqual(await promoteAfter(200, "InternalError"), { failure: "absent", isRefusal: false });
});

test("a copy that was done and then cannot be found is no refusal", async (t) => {
  const rig = await openRig(t);
  if (!rig) return;
  const { store, proxy } = rig;
  const options = await stage(rig);
  proxy.setFault({
    ...{ kind: "rewrite", match: COPY },
    change: ({ headers: { etag: _, ...headers }, status }) => ({
      ...{ status, headers },
      body: Buffer.from("<CopyObjectResult></CopyObjectResult>"),
    }),
  });
  const headers = { "x-minio-error-code": "NoSuchKey" };
  proxy.setFault({ kind: "answer", match: { method: "HEAD" }, status: 404, headers });
  const failed = await failureOf(store.promote(STAGING, FINAL, options));
  assert.deepEqual([failed.failure, failed.isRefusal], ["absent", false]);
});

test("a listing that is cut short, leaves its prefix or does not end is no listing", async (t) => {
  const rig = await openRig(t);
  if (!rig) return;
  const { store, direct, proxy } = rig;
  await putMany(direct, 5);
  const match = { method: "GET", query: /list-type=2/ };
  const changes: Record<string, (xml: string) => string> = {
    "its end is missing": (xml) => xml.slice(0, -1),
    "it ends after two objects": (xml) => xml.slice(0, xml.indexOf("<Contents>", xml.indexOf("<Contents>") + 1)),
    "it does not say whether it goes on": (xml) => xml.replace(/<IsTruncated>.*<\/IsTruncated>/, ""),
    "it goes on and does not say where": (xml) => xml.replace("<IsTruncated>false", "<IsTruncated>true"),
    "it has a key of others": (xml) => xml.replace("<Key>final/i/", "<Key>final/i2/"),
    "an object has no size": (xml) => xml.replace(/<Size>1<\/Size>/, ""),
    "an object has no ETag": (xml) => xml.replace(/<ETag>.*?<\/ETag>/, ""),
  };
  for (const [name, change] of Object.entries(changes)) {
    proxy.setFault({
      ...{ kind: "rewrite", match },
      change: (answer) => ({ ...answer, body: Buffer.from(change(answer.body.toString())) }),
    });
    assert.equal((await failureOf(listed(store, "final/i/"))).failure, "unavailable", name);
    await proxy.heal();
  }
  assert.equal((await listed(store, "final/i/")).length, 5);

  // A second page that fails is not the end, and the same page for ever is not either.
  const page = `<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken></ListBucketResult>`;
  proxy.setFault({ kind: "answer", match, status: 200, body: page, times: 1 });
  proxy.setFault({ kind: "answer", match, status: 500, times: 1 });
  assert.match((await failureOf(listed(store, "final/i/"))).message, /answered 500/);
  const endless = proxy.setFault({ kind: "answer", match, status: 200, body: page });
  assert.match((await failureOf(listed(store, "final/i/"))).message, /again and again/);
  assert.equal(endless.hits(), 2);
});

test("an object that breaks off, or stops coming, while it is read is an error of the store", async (t) => {
  const rig = await openRig(t);
  if (!rig) return;
  const { store, direct, proxy } = rig;
  await direct.put(FINAL, "x".repeat(3_000), "text/plain");
  // Of what is promised some comes, or nothing.
  const headers = { "content-length": "5000", etag: '"e"' };
  const faults: FaultKind[] = [
    { kind: "reset", afterBytes: 1_500 },
    { kind: "answer", status: 200, body: "x", headers },
    { kind: "answer", status: 200, body: "", headers },
  ];
  for (const fault of faults) {
    proxy.setFault({ ...fault, match: { method: "GET" } });
    const stream = await store.read(FINAL);
    assert.equal((await failureOf(stream.toArray())).failure, "unavailable");
    await proxy.heal();
  }
  assert.equal((await (await store.read(FINAL)).toArray()).join("").length, 3_000);
});

test("a reader may take longer than the store may", async (t) => {
  const rig = await openRig(t);
  if (!rig) return;
  const { store, direct } = rig;
  await direct.put(FINAL, "x".repeat(5_000_000), "text/plain");
  let bytes = 0;
  for await (const chunk of await store.read(FINAL)) {
    // Longer than any limit of this store, and it has more to send.
    if (bytes === 0) await delay(FAST.callMs + 200);
    bytes += chunk.length;
  }
  assert.equal(bytes, 5_000_000);
});

test("a reader that goes away leaves its connection to others", async (t) => {
  const rig = await openRig(t, { copySocketsMax: 1 });
  if (!rig) return;
  const { store, direct } = rig;
  await direct.put(FINAL, "x".repeat(5_000_000), "text/plain");
  (await store.read(FINAL)).destroy();
  for await (const chunk of await store.read(FINAL)) {
    assert.ok(chunk.length > 0);
    break;
  }
  for await (const chunk of await store.read(FINAL)) assert.ok(chunk.length > 0);
});

test("the store's clock is known from its answers, and a refusal for it says so", async (t) => {
  const rig = await openRig(t);
  if (!rig) return;
  const { store, proxy } = rig;
  assert.equal(store.clockSkewMs(), null);
  await store.probe();
  assert.ok(Math.abs(store.clockSkewMs() ?? Number.NaN) < 2_000);
  proxy.setFault({
    kind: "rewrite",
    change: (answer) => ({
      ...answer,
      headers: { ...answer.headers, date: new Date(Date.now() + 600_000).toUTCString() },
    }),
  });
  await store.probe();
  assert.ok(Math.abs((store.clockSkewMs() ?? Number.NaN) - 600_000) < 2_000);
  await proxy.heal();

  const body = "<Error><Code>RequestTimeTooSkewed</Code><Message>The difference is too large.</Message></Error>";
  proxy.setFault({ kind: "answer", status: 403, body });
  const failed = await failureOf(store.probe());
  assert.equal(failed.failure, "denied");
  assert.match(failed.message, /clock/);
});

test("every call is told to the metrics with what became of it", async (t) => {
  const calls: string[] = [];
  const rig = await openRig(t, { onCall: ({ operation, failure }) => calls.push(`${operation} ${failure}`) });
  if (!rig) return;
  const { store, proxy } = rig;
  calls.length = 0;
  await store.probe();
  proxy.setFault({ kind: "cut" });
  await failureOf(store.stat(STAGING));
  assert.deepEqual(calls, ["list null", "stat unavailable"]);
});

test("whatever is thrown becomes a store's failure, in one place", () => {
  const failureFor = (error: unknown) => toStoreError("do it", error).failure;
  // The client library rejects with a plain object where status 200 brought an error document.
  assert.equal(failureFor({ Code: "NoSuchBucket", Message: "m" }), "bucket_missing");
  assert.equal(failureFor({ Code: "AccessDenied" }), "denied");
  assert.equal(failureFor(new S3AnswerError(403, "", "")), "denied");
  assert.equal(failureFor(new S3AnswerError(412, "", "")), "changed");
  assert.equal(failureFor(new S3AnswerError(404, "", "")), "unavailable");
  assert.equal(failureFor(new S3AnswerError(404, "NoSuchKey", "")), "absent");
  assert.equal(failureFor(new S3AnswerError(503, "SlowDown", "")), "unavailable");
  for (const thrown of [
    undefined,
    null,
    "text",
    7,
    {},
    new Error(""),
    Object.assign(new Error("x"), { code: "ENOTFOUND" }),
  ]) {
    assert.equal(failureFor(thrown), "unavailable");
  }
  const kept = new StoreError("absent", "m");
  assert.equal(toStoreError("do it", kept), kept);
  assert.equal(answerOf(toStoreError("do it", new S3AnswerError(501, "NotImplemented", "")))?.status, 501);
  const long = toStoreError("do it", new S3AnswerError(500, "InternalError", `a\n\u0007b${"x".repeat(5_000)}`));
  assert.ok(long.message.length < 500 && !/[\n\u0007]/.test(long.message));
});
