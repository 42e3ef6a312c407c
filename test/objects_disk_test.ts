import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { PassThrough, Readable } from "node:stream";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { newId, newObjectKey } from "../lib/ids.ts";
import { createFolders } from "../lib/store/disk/folders.ts";
import { createDiskStore } from "../lib/store/disk/objects_disk.ts";
import type { ListedObject, ObjectStat } from "../lib/store/objects.ts";
import { finalKeyFor, INSTALLATION_ID, openTestStore, stagingOf, type TestStore } from "./_disk_store.ts";
import { collectLog } from "./_s3_servers.ts";

const CONTENT_TYPE = "text/plain";

/** Puts and promotes in one go. */
async function confirmed(
  s: TestStore,
  bytes: string,
): Promise<{ stagingKey: string; finalKey: string; source: ObjectStat }> {
  const stagingKey = s.newPendingKey();
  const source = await s.put(stagingKey, bytes);
  const finalKey = finalKeyFor(stagingKey);
  await s.store.promote(stagingKey, finalKey, { source, contentType: CONTENT_TYPE });
  return { stagingKey, finalKey, source };
}

async function listed(s: TestStore, prefix: string): Promise<ListedObject[]> {
  const found: ListedObject[] = [];
  for await (const object of s.store.list(prefix)) found.push(object);
  return found;
}

test("a received object can be stat'ed and read, and its file is private", async (t) => {
  const s = await openTestStore(t);
  const key = s.newPendingKey();
  const put = await s.put(key, "hello");
  assert.equal(put.sizeBytes, 5);
  assert.match(put.etag, /^"5-[0-9a-f]+"$/);
  assert.deepEqual(await s.store.stat(key), put);
  assert.equal(await s.text(key), "hello");
  const [file = ""] = s.files();
  assert.equal(statSync(join(s.objectsDir, file)).mode & 0o777, 0o600);
  assert.equal(statSync(join(s.objectsDir, dirname(file))).mode & 0o777, 0o700);
});

test("an object of no bytes is an object", async (t) => {
  const s = await openTestStore(t);
  const key = s.newPendingKey();
  const limits = { sizeBytes: 0, maxBytes: 0, contentLength: 0 };
  const put = await s.store.receive(key, Readable.from([]), limits);
  assert.equal(put.sizeBytes, 0);
  assert.deepEqual(await s.store.stat(key), put);
  assert.equal(await s.text(key), "");
});

test("files are fanned out by the id's bits of time: uploads of one minute share a folder, those of another do not", async (t) => {
  const s = await openTestStore(t);
  const random = "00112233445566778899aabbccddeeff";
  for (const uploadId of [
    "019ab3f2-77aa-7000-8000-000000000001",
    "019ab3f2-0000-7000-8000-000000000002",
    "019ab3f3-0000-7000-8000-000000000003",
  ]) {
    const key = `staging/${INSTALLATION_ID}/${uploadId}/${random}`;
    s.pending.add(key);
    await s.put(key, "x");
  }
  assert.deepEqual(s.files(), [
    `staging/019ab/3f2/019ab3f2-0000-7000-8000-000000000002.${random}`,
    `staging/019ab/3f2/019ab3f2-77aa-7000-8000-000000000001.${random}`,
    `staging/019ab/3f3/019ab3f3-0000-7000-8000-000000000003.${random}`,
  ]);
});

test("a key that cannot be ours names nothing and touches nothing", async (t) => {
  const s = await openTestStore(t, { staging: stagingOf(() => true) });
  const ours = newObjectKey("staging", INSTALLATION_ID, newId());
  await s.put(ours, "mine");
  const outside = join(dirname(s.objectsDir), "outside");
  await writeFile(outside, "keep");
  const strangers = [
    "",
    "../outside",
    "staging/../../outside",
    newObjectKey("staging", "fedcba9876543210", newId()),
    ours.toUpperCase(),
    `${ours}\n`,
    `${ours}/..`,
    ours.replace("staging", "tmp"),
    `staging/${INSTALLATION_ID}/../../../../../../../outside/00112233445566778899aabbccddeeff`,
  ];
  for (const key of strangers) {
    assert.equal(await s.store.stat(key), null, key);
    await assert.rejects(s.store.read(key), { name: "StoreError", failure: "absent" });
    await assert.rejects(s.put(key, "x"), { code: "not_found" });
    const source = { sizeBytes: 4, etag: '"4-0"' };
    await assert.rejects(s.store.promote(key, finalKeyFor(ours), { source, contentType: CONTENT_TYPE }), {
      failure: "absent",
    });
    await assert.rejects(s.store.promote(ours, key, { source, contentType: CONTENT_TYPE }), { name: "StoreError" });
  }
  assert.deepEqual(await s.store.remove(strangers), new Map());
  assert.equal(await s.text(ours), "mine");
  assert.ok(existsSync(outside));
  assert.equal(s.files().length, 1);
});

test("no two PUTs to one key give the same ETag, whatever their length and the clock", async (t) => {
  const s = await openTestStore(t, { now: () => 1_770_000_000_000 });
  const key = s.newPendingKey();
  const etags = new Set<string>();
  for (let i = 0; i < 50; i++) etags.add((await s.put(key, `same${i % 2}`)).etag);
  assert.equal(etags.size, 50);
});

test("of two PUTs to one key at once one wins whole, and its ETag is the object's", async (t) => {
  const s = await openTestStore(t);
  const key = s.newPendingKey();
  const [a, b] = ["a".repeat(200_000), "b".repeat(100_000)];
  const puts = await Promise.all([s.put(key, a), s.put(key, b)]);
  const stored = await s.store.stat(key);
  const text = await s.text(key);
  assert.ok(text === a || text === b);
  assert.deepEqual(stored, puts[text === a ? 0 : 1]);
  assert.equal(s.files().length, 1);
});

test("a body that is longer than allowed is refused as soon as it is known, and nothing is kept", async (t) => {
  const s = await openTestStore(t);
  const key = s.newPendingKey();
  const limits = { sizeBytes: null, maxBytes: 10, contentLength: null };
  const endless = Readable.from(
    (function* () {
      for (;;) yield Buffer.alloc(4);
    })(),
  );
  // As the HTTP server hands a body on: giving up on it does not end the connection.
  await assert.rejects(s.store.receive(key, endless.iterator({ destroyOnReturn: false }), limits), {
    code: "payload_too_large",
    message: /at most 10 bytes/,
  });

  const untouched = new Readable({ read: () => assert.fail("read a body that was announced as too long") });
  await assert.rejects(s.store.receive(key, untouched, { ...limits, contentLength: 11 }), {
    code: "payload_too_large",
  });
  assert.deepEqual(s.files(), []);
});

test("a stated size must be met exactly", async (t) => {
  const s = await openTestStore(t);
  const key = s.newPendingKey();
  const receive = (bytes: number, contentLength: number | null) =>
    s.store.receive(key, Readable.from([Buffer.alloc(bytes)]), { sizeBytes: 10, maxBytes: 10, contentLength });
  const both = (bytes: number) => ({ code: "bad_request", message: new RegExp(`stated as 10 bytes.* ${bytes}\\b`) });
  await assert.rejects(receive(9, null), both(9));
  await assert.rejects(receive(9, 9), both(9));
  await assert.rejects(receive(0, 0), both(0));
  await assert.rejects(receive(11, null), { code: "payload_too_large", message: /stated as 10 bytes/ });
  await assert.rejects(receive(11, 11), { code: "payload_too_large" });
  assert.deepEqual(s.files(), []);
  assert.equal((await receive(10, 10)).sizeBytes, 10);
});

test("a large body is not gathered in memory: reading waits for the disk", async (t) => {
  const s = await openTestStore(t);
  const key = s.newPendingKey();
  const sizeBytes = 24 * 1024 * 1024;
  const chunk = Buffer.alloc(64 * 1024, "x");
  let readBytes = 0;
  let aheadBytesMax = 0;
  const body = new Readable({
    highWaterMark: 256 * 1024,
    read() {
      const [file] = readdirSync(join(s.objectsDir, "tmp"));
      const writtenBytes = file === undefined ? 0 : statSync(join(s.objectsDir, "tmp", file)).size;
      aheadBytesMax = Math.max(aheadBytesMax, readBytes - writtenBytes);
      if (readBytes === sizeBytes) this.push(null);
      else this.push(chunk);
      readBytes = Math.min(sizeBytes, readBytes + chunk.length);
    },
  });
  const put = await s.store.receive(key, body, { sizeBytes, maxBytes: sizeBytes, contentLength: null });
  assert.equal(put.sizeBytes, sizeBytes);
  assert.ok(aheadBytesMax <= 1024 * 1024, `${aheadBytesMax} bytes were read ahead of the disk`);
});

test("memory that a chunk shares with others is not given back with it", async (t) => {
  const s = await openTestStore(t);
  const shared = Buffer.alloc(1_000, "x");
  const key = s.newPendingKey();
  const limits = { sizeBytes: null, maxBytes: 1_000, contentLength: null, ownsChunks: true };
  await s.store.receive(key, Readable.from([shared.subarray(0, 10), Buffer.from("alone")]), limits);
  assert.equal(shared.toString(), "x".repeat(1_000));
  assert.equal(await s.text(key), "xxxxxxxxxxalone");
});

test("a body that fails or ends too early leaves nothing, and what it failed with is told as it is", async (t) => {
  const s = await openTestStore(t);
  const key = s.newPendingKey();
  const body = new PassThrough();
  const limits = { sizeBytes: null, maxBytes: 1_000, contentLength: 100 };
  const accepted = Promise.withResolvers<void>();
  const receiving = s.store.receive(key, body, { ...limits, onAccept: accepted.resolve });
  await accepted.promise;
  body.write(Buffer.alloc(50));
  // As a socket fails: nothing of the disk's.
  const reset = Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET", syscall: "read" });
  body.destroy(reset);
  await assert.rejects(receiving, (error) => error === reset);
  await assert.rejects(s.store.receive(key, Readable.from([Buffer.alloc(50)]), limits), {
    code: "bad_request",
    message: /broke off/,
  });
  assert.deepEqual(s.files(), []);
});

test("a PUT whose row is gone before it begins is not read", async (t) => {
  const s = await openTestStore(t);
  const body = new Readable({ read: () => assert.fail("read a body that nothing waits for") });
  const key = newObjectKey("staging", INSTALLATION_ID, newId());
  const limits = { sizeBytes: null, maxBytes: 10, contentLength: null, onAccept: () => assert.fail("accepted") };
  await assert.rejects(s.store.receive(key, body, limits), { code: "not_found" });
});

test("a PUT whose row goes while it runs is refused at its end, and nothing is kept", async (t) => {
  const s = await openTestStore(t);
  const key = s.newPendingKey();
  const body = new PassThrough();
  const receiving = s.store.receive(key, body, { sizeBytes: null, maxBytes: 1_000, contentLength: null });
  body.write("late");
  await turn();
  s.pending.delete(key);
  body.end();
  await assert.rejects(receiving, { code: "not_found" });
  assert.deepEqual(s.files(), []);
});

test("slow senders do not keep others from uploading", async (t) => {
  const s = await openTestStore(t);
  const slow = Array.from({ length: 20 }, () => new PassThrough());
  const limits = { sizeBytes: null, maxBytes: 1_000, contentLength: null };
  const receiving = slow.map((body) => s.store.receive(s.newPendingKey(), body, limits));
  for (const body of slow) body.write("begin");
  assert.equal((await s.put(s.newPendingKey(), "quick")).sizeBytes, 5);
  for (const body of slow) body.end();
  await Promise.all(receiving);
});

test("promote makes the final key hold what was stat'ed, also when it is asked twice", async (t) => {
  const s = await openTestStore(t);
  const { stagingKey, finalKey, source } = await confirmed(s, "hello");
  assert.deepEqual(await s.store.stat(finalKey), source);
  assert.deepEqual(await s.store.promote(stagingKey, finalKey, { source, contentType: CONTENT_TYPE }), source);
  await s.store.remove([stagingKey]);
  assert.equal(await s.text(finalKey), "hello");
});

test("an overwrite between stat and promote is seen, and nothing is made final", async (t) => {
  const s = await openTestStore(t);
  const key = s.newPendingKey();
  const source = await s.put(key, "hello");
  await s.put(key, "HELLO");
  const finalKey = finalKeyFor(key);
  await assert.rejects(s.store.promote(key, finalKey, { source, contentType: CONTENT_TYPE }), {
    name: "StoreError",
    failure: "changed",
  });
  assert.equal(await s.store.stat(finalKey), null);
});

test("an overwrite after promote leaves the final object as it was", async (t) => {
  const s = await openTestStore(t);
  const { stagingKey, finalKey, source } = await confirmed(s, "hello");
  await s.put(stagingKey, "HELLO");
  assert.deepEqual(await s.store.stat(finalKey), source);
  assert.equal(await s.text(finalKey), "hello");
  await assert.rejects(
    s.store.promote(stagingKey, finalKey, { source: { ...source, etag: '"5-0"' }, contentType: CONTENT_TYPE }),
    { failure: "changed" },
  );
  assert.equal(await s.text(finalKey), "hello", "an object that is final already is never removed by a promote");
});

test("promoting what is not there says so", async (t) => {
  const s = await openTestStore(t);
  const key = s.newPendingKey();
  const source = { sizeBytes: 1, etag: '"1-1"' };
  await assert.rejects(s.store.promote(key, finalKeyFor(key), { source, contentType: CONTENT_TYPE }), {
    name: "StoreError",
    failure: "absent",
  });
});

test("removal is repeatable, takes empty folders along, and leaves the rest", async (t) => {
  const s = await openTestStore(t);
  const [a, b] = [await confirmed(s, "a"), await confirmed(s, "b")];
  assert.deepEqual(await s.store.remove([a.stagingKey, a.finalKey, b.stagingKey]), new Map());
  assert.deepEqual(await s.store.remove([a.stagingKey, a.finalKey, a.finalKey]), new Map());
  assert.equal(await s.text(b.finalKey), "b");
  assert.deepEqual(readdirSync(join(s.objectsDir, "staging")), []);
  assert.deepEqual(await s.store.remove([b.finalKey]), new Map());
  assert.deepEqual(readdirSync(join(s.objectsDir, "final")), []);
});

test("a key whose file cannot be removed is reported with the reason, the others are removed", async (t) => {
  const s = await openTestStore(t);
  const [a, b] = [await confirmed(s, "a"), await confirmed(s, "b")];
  await s.store.remove([a.finalKey]);
  await mkdir(s.pathOf(a.finalKey), { recursive: true });
  const reasons = await s.store.remove([a.finalKey, b.finalKey]);
  assert.deepEqual([...reasons.keys()], [a.finalKey]);
  assert.match(reasons.get(a.finalKey) ?? "", /^E[A-Z]+ on unlink$/);
  assert.equal(await s.store.stat(b.finalKey), null);
});

test("PUTs, promotes and removals that make and remove the same folders do not disturb one another", async (t) => {
  const s = await openTestStore(t);
  await Promise.all(
    Array.from({ length: 8 }, async () => {
      for (let round = 0; round < 25; round++) {
        const { stagingKey, finalKey } = await confirmed(s, "x");
        assert.deepEqual(await s.store.remove([stagingKey]), new Map());
        assert.equal(await s.text(finalKey), "x");
        assert.deepEqual(await s.store.remove([finalKey]), new Map());
      }
    }),
  );
  assert.deepEqual(s.files(), []);
});

test("list yields what is under the prefix, with size, ETag and time, and nothing that is not ours", async (t) => {
  const nowMs = 1_770_000_000_000;
  const s = await openTestStore(t, { now: () => nowMs });
  const [a, b] = [await confirmed(s, "a"), await confirmed(s, "bb")];
  const [folder = ""] = s.files().map((file) => join(s.objectsDir, dirname(file)));
  await writeFile(join(folder, "README"), "not ours");
  await writeFile(join(s.objectsDir, "staging", ".DS_Store"), "not ours");
  await mkdir(join(s.objectsDir, "staging", "lost+found"));
  // Under names that ours could have.
  await writeFile(join(s.objectsDir, "staging", "abc"), "a file where a folder could be");
  await writeFile(join(s.objectsDir, "staging", "01234"), "another");
  await mkdir(join(folder, `${newId()}.${"0".repeat(32)}`));

  const staged = await listed(s, `staging/${INSTALLATION_ID}/`);
  assert.deepEqual(new Set(staged.map((object) => object.objectKey)), new Set([a.stagingKey, b.stagingKey]));
  const first = staged.find((object) => object.objectKey === a.stagingKey);
  assert.deepEqual(first, { objectKey: a.stagingKey, ...a.source, modifiedAtMs: nowMs });
  assert.equal((await listed(s, `final/${INSTALLATION_ID}/`)).length, 2);
  assert.equal((await listed(s, `${a.finalKey.split("/").slice(0, 3).join("/")}/`)).length, 1);
  assert.deepEqual(await listed(s, "staging/fedcba9876543210/"), []);
  assert.deepEqual(await listed(s, "tmp/"), []);
});

test("opening sweeps what an earlier process left half-written, and only for the one who may", async (t) => {
  const s = await openTestStore(t);
  const { finalKey } = await confirmed(s, "keep");
  const leftover = join(s.objectsDir, "tmp", "00112233445566778899aabbccddeeff");
  await writeFile(leftover, "half");
  await createDiskStore({ ...s.options, sweep: false }).prepare({ makes: false });
  assert.ok(existsSync(leftover));
  const reopened = createDiskStore(s.options);
  await reopened.prepare({ makes: false });
  assert.ok(!existsSync(leftover));
  assert.notEqual(await reopened.stat(finalKey), null);
  assert.deepEqual(readdirSync(join(s.objectsDir, "tmp")), []);
});

test("what is not ours in the folder of half-written files stays, is told once, and does not stop the start", async (t) => {
  const s = await openTestStore(t);
  const folder = join(s.objectsDir, "tmp");
  await mkdir(join(folder, "lost+found"));
  await mkdir(join(folder, "0".repeat(32)));
  await writeFile(join(folder, "README"), "not ours");
  await writeFile(join(folder, "f".repeat(32)), "half");
  const { log, events } = collectLog();
  await createDiskStore({ ...s.options, log }).prepare({ makes: false });
  assert.deepEqual(readdirSync(folder).sort(), ["0".repeat(32), "README", "lost+found"]);
  assert.deepEqual(
    events.map(({ level, msg, fields }) => [level, msg, fields.files]),
    [
      ["info", "temporary_files_swept", 1],
      ["warn", "foreign_files_found", 3],
    ],
  );
});

test("ETags survive a backup that keeps times", async (t) => {
  const s = await openTestStore(t);
  const { finalKey, source } = await confirmed(s, "hello");
  const copy = `${s.objectsDir}_copy`;
  execFileSync("cp", ["-a", s.objectsDir, copy]);
  const restored = createDiskStore({ ...s.options, objectsDir: copy });
  assert.deepEqual(await restored.stat(finalKey), source);
});

test("a folder that cannot be used fails at the start, with the reason", async (t) => {
  const s = await openTestStore(t);
  const objectsDir = join(s.objectsDir, "a_file");
  await writeFile(objectsDir, "");
  await assert.rejects(createDiskStore({ ...s.options, objectsDir }).prepare({ makes: true }), {
    code: "storage_unavailable",
    message: /a_file.*ENOTDIR|a_file.*EEXIST/,
  });
});

test("a folder that is gone is not made anew by a PUT or a confirm, and nothing counts as removed from it", async (t) => {
  const s = await openTestStore(t);
  const key = s.newPendingKey();
  const source = await s.put(key, "hello");
  const final = finalKeyFor(key);
  await rm(s.objectsDir, { recursive: true });
  await assert.rejects(s.put(s.newPendingKey(), "more"), { code: "storage_unavailable" });
  await assert.rejects(s.store.promote(key, final, { source, contentType: "text/plain" }));
  assert.equal((await s.store.remove([key])).size, 1);
  await assert.rejects(s.store.readMarker("marker"), { failure: "bucket_missing" });
  await assert.rejects(s.store.prepare({ makes: false }), { failure: "bucket_missing" });
  assert.ok(!existsSync(s.objectsDir));
  // Gone just between two steps of a PUT.
  const folder = dirname(s.pathOf(key));
  await s.store.prepare({ makes: true });
  await rm(s.objectsDir, { recursive: true });
  await assert.rejects(createFolders(s.objectsDir).make(folder), { code: "ENOENT" });
  assert.ok(!existsSync(s.objectsDir));
});

test("probe() leaves nothing behind", async (t) => {
  const s = await openTestStore(t);
  await s.store.probe();
  assert.deepEqual(s.files(), []);
});
