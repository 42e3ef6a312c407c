// Goal: an object is in one place, as a row or as a file, whatever came before it under its key; and the file of small
// objects takes part in all that holds for the store's folder.
import assert from "node:assert/strict";
import { cpSync, existsSync, mkdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import Database from "better-sqlite3";
import { createBodyMemory } from "../../lib/store/disk/body_memory.ts";
import { createDiskStore } from "../../lib/store/disk/objects_disk.ts";
import { SMALL_BYTES_MAX } from "../../lib/store/disk/small_objects.ts";
import { AS_FILES, finalKeyFor, openTestStore, type TestStore, uncounted } from "../help/disk_store.ts";
import { until } from "../help/until.ts";

/** Each upload is of another workspace. */
const eachKeyItsOwner = uncounted((objectKey) => objectKey);
const SMALL = "small";
const LARGE = "L".repeat(SMALL_BYTES_MAX + 1);
const CONTENT_TYPE = "text/plain";

async function keysOf(s: TestStore): Promise<string[]> {
  const keys: string[] = [];
  for await (const { objectKey } of s.store.list("staging/")) keys.push(objectKey);
  return keys;
}

/** Puts a file under a key that is a row, as a process that was killed between the two leaves it. */
function addFileBeside(s: TestStore, objectKey: string): void {
  const sql = new Database(join(s.objectsDir, "small.db"));
  sql.prepare("UPDATE objects SET file_beside = 1 WHERE object_key = ?").run(objectKey);
  sql.close();
  mkdirSync(dirname(s.pathOf(objectKey)), { recursive: true });
  writeFileSync(s.pathOf(objectKey), "another object");
}

test("up to the limit an object is a row; beyond it, and where its length is not known before, it is a file", async (t) => {
  const s = await openTestStore(t);
  for (const [bytes, announced, isRow] of [
    [0, true, true],
    [SMALL_BYTES_MAX, true, true],
    [SMALL_BYTES_MAX, false, false],
    [SMALL_BYTES_MAX + 1, true, false],
    [SMALL_BYTES_MAX + 1, false, false],
  ] as const) {
    const key = s.newPendingKey();
    const body = new PassThrough();
    const bytesSent = Buffer.alloc(bytes, "x");
    const receiving = s.store.receive(key, body, {
      ...{ sizeBytes: null, maxBytes: 1024 ** 2, contentLength: announced ? bytes : null },
    });
    // In pieces, as a network does.
    for (let at = 0; at < bytes; at += 20_000) body.write(bytesSent.subarray(at, at + 20_000));
    body.end();
    const stored = await receiving;
    assert.equal(stored.sizeBytes, bytes);
    assert.equal(s.rows().includes(key), isRow, `${bytes} bytes`);
    assert.equal(s.files().length, isRow ? 0 : 1);
    assert.deepEqual(await s.store.stat(key), stored);
    assert.equal(await s.text(key), "x".repeat(bytes));
    assert.deepEqual(await s.store.remove([key]), new Map());
  }
  assert.deepEqual(s.everything(), []);
});

test("a PUT that replaces a large object by a small one, or the other way round, leaves one of them", async (t) => {
  const s = await openTestStore(t);
  const key = s.newPendingKey();
  const sizes = [SMALL, LARGE, SMALL, SMALL, LARGE, LARGE, SMALL];
  for (const bytes of sizes) {
    const stored = await s.put(key, bytes);
    assert.equal(s.everything().length, 1, `one object after ${bytes.length} bytes`);
    assert.deepEqual(await s.store.stat(key), stored);
    assert.equal(await s.text(key), bytes);
    assert.deepEqual(await keysOf(s), [key]);
  }
  assert.deepEqual(await s.store.remove([key]), new Map());
  assert.deepEqual(s.everything(), []);
});

test("of small and large PUTs to one key at once one wins whole, and only it is kept", async (t) => {
  const s = await openTestStore(t);
  for (let round = 0; round < 30; round++) {
    const key = s.newPendingKey();
    // What lies there already makes a PUT of the other kind remove it, while the next one comes.
    await s.put(key, round % 3 === 0 ? SMALL : LARGE);
    const bodies = [LARGE, `${SMALL}${round}`, `${LARGE}${round}`].slice(round % 2);
    const puts = await Promise.all(bodies.map((bytes) => s.put(key, bytes)));
    const won = bodies.indexOf(await s.text(key));
    assert.notEqual(won, -1);
    assert.deepEqual(await s.store.stat(key), puts[won]);
    assert.equal(s.everything().length, 1);
    await s.store.remove([key]);
    assert.deepEqual(s.everything(), []);
  }
});

test("where a kill has left a row and a file under one key the row counts, and both are removed", async (t) => {
  const s = await openTestStore(t);
  const [removed, replaced, promoted] = [s.newPendingKey(), s.newPendingKey(), s.newPendingKey()];
  for (const key of [removed, replaced, promoted]) {
    const stored = await s.put(key, SMALL);
    addFileBeside(s, key);
    assert.deepEqual(await s.store.stat(key), stored);
    assert.equal(await s.text(key), SMALL);
  }
  assert.deepEqual(await keysOf(s), [removed, replaced, promoted].sort());

  await s.store.remove([removed]);
  assert.ok(!existsSync(s.pathOf(removed)));
  assert.equal(await s.store.stat(removed), null);

  await s.put(replaced, "next");
  assert.ok(!existsSync(s.pathOf(replaced)));
  assert.equal(await s.text(replaced), "next");

  const source = await s.store.stat(promoted);
  assert.ok(source !== null);
  const finalKey = finalKeyFor(promoted);
  await s.store.promote(promoted, finalKey, { source, contentType: CONTENT_TYPE });
  await s.store.remove([promoted, replaced]);
  assert.deepEqual(s.everything(), [finalKey]);
  assert.equal(await s.text(finalKey), SMALL);
});

test("a folder from before is served at once: its files stay files, and what is small from now on is a row", async (t) => {
  const before = await openTestStore(t, AS_FILES);
  const old = before.newPendingKey();
  const source = await before.put(old, SMALL);
  const kept = before.newPendingKey();
  await before.put(kept, SMALL);
  await before.store.close();
  for (const suffix of ["", "-wal", "-shm"]) rmSync(join(before.objectsDir, `small.db${suffix}`), { force: true });

  const s = { ...before, store: createDiskStore({ ...before.options, smallBytesMax: SMALL_BYTES_MAX }) };
  t.after(() => s.store.close());
  // Beside a server that is being stopped, a command may ask before anyone has made the file.
  assert.deepEqual(await s.store.stat(old), source);
  await s.store.prepare({ makes: false });
  const finalKey = finalKeyFor(old);
  await s.store.promote(old, finalKey, { source, contentType: CONTENT_TYPE });
  const fresh = s.newPendingKey();
  await s.store.receive(
    fresh,
    (async function* () {
      yield Buffer.from("fresh");
    })(),
    { sizeBytes: null, maxBytes: 100, contentLength: 5 },
  );
  assert.deepEqual(s.rows(), [fresh]);
  assert.deepEqual(await keysOf({ ...s, store: s.store }), [old, kept, fresh].sort());
  assert.deepEqual(await s.store.stat(finalKey), source);
  assert.deepEqual(await s.store.remove([old, kept, fresh, finalKey]), new Map());
  assert.deepEqual(s.everything(), []);
});

test("the bodies of all PUTs together are bounded: one that finds no memory becomes a file", async (t) => {
  const take = createBodyMemory(1_000);
  const [a, b] = [take(), take()];
  assert.equal(a.take(900), true);
  assert.equal(b.take(101), false);
  a.release();
  assert.equal(b.take(101), true);

  const s = await openTestStore(t, { staging: eachKeyItsOwner });
  // 256 bodies of 64 KiB are all that there is room for.
  const slow = Array.from({ length: 300 }, () => new PassThrough());
  const limits = { sizeBytes: null, maxBytes: SMALL_BYTES_MAX, contentLength: SMALL_BYTES_MAX };
  const receiving = slow.map((body) => s.store.receive(s.newPendingKey(), body, limits));
  for (const body of slow) body.write(Buffer.alloc(SMALL_BYTES_MAX - 1));
  await until(() => s.files().length === 44, "what finds no memory goes to the disk");
  for (const body of slow) body.end("x");
  await Promise.all(receiving);
  assert.equal(s.rows().length, 256);
  assert.equal(s.files().length, 44);
});

test("deleting everything gives the disk back", async (t) => {
  const s = await openTestStore(t, { staging: eachKeyItsOwner });
  const keys = await Promise.all(
    Array.from({ length: 300 }, async () => {
      const key = s.newPendingKey();
      await s.put(key, Buffer.alloc(SMALL_BYTES_MAX));
      return key;
    }),
  );
  const sizeOf = (suffix = ""): number => statSync(join(s.objectsDir, `small.db${suffix}`)).size;
  await until(() => sizeOf() > 16 * 1024 ** 2, "the log is copied into the file");
  assert.deepEqual(await s.store.remove(keys), new Map());
  await until(() => sizeOf() < 2 * 1024 ** 2, "the file has become small");
});

test("a file of small objects that is gone, moved or another takes no PUT and answers for no object of the old one", async (t) => {
  const s = await openTestStore(t);
  const key = s.newPendingKey();
  const stored = await s.put(key, SMALL);
  const away = `${s.objectsDir}.away`;

  renameSync(s.objectsDir, away);
  await assert.rejects(s.put(s.newPendingKey(), "more"), { code: "storage_unavailable" });
  await assert.rejects(s.store.stat(key), { failure: "unavailable" });
  renameSync(away, s.objectsDir);
  assert.deepEqual(await s.store.stat(key), stored);
  await s.put(s.newPendingKey(), "more");

  // As a disk that is mounted anew, or a copy that was put back.
  renameSync(s.objectsDir, away);
  cpSync(away, s.objectsDir, { recursive: true, preserveTimestamps: true });
  await s.put(key, "newer");
  assert.equal(await s.text(key), "newer");
  await delay(50);
  const old = new Database(join(away, "small.db"), { readonly: true });
  const sizes = old.prepare("SELECT size_bytes FROM objects WHERE object_key = ?").pluck().all(key);
  assert.deepEqual(sizes, [stored.sizeBytes], "the one that was moved away is left as it was");
  old.close();
  rmSync(away, { recursive: true });
});

test("a file of small objects of a newer version is refused at the start", async (t) => {
  const s = await openTestStore(t);
  await s.store.close();
  const sql = new Database(join(s.objectsDir, "small.db"));
  sql.pragma("user_version = 99");
  sql.close();
  await assert.rejects(createDiskStore(s.options).prepare({ makes: false }), {
    code: "conflict",
    message: /small\.db.*version 99/,
  });
});

for (const { what, touch } of [
  { what: "removed", touch: (path: string) => rmSync(path) },
  { what: "moved away", touch: (path: string) => renameSync(path, `${path}.away`) },
  {
    what: "replaced",
    touch: (path: string) => {
      cpSync(path, `${path}.new`);
      renameSync(`${path}.new`, path);
    },
  },
]) {
  test(`no PUT that was acknowledged is lost if the log of the small objects' file was ${what}`, async (t) => {
    const s = await openTestStore(t);
    const [before, after] = [s.newPendingKey(), s.newPendingKey()];
    await s.put(before, "before");
    for (const suffix of ["-wal", "-shm"]) touch(join(s.objectsDir, `small.db${suffix}`));
    await until(
      () =>
        s.put(after, "after").then(
          () => true,
          () => false,
        ),
      "PUTs are taken again",
    );
    assert.equal(await s.text(before), "before");
    // As a kill of the process leaves it: nothing is closed.
    const killed = join(s.objectsDir, "..", "killed");
    mkdirSync(killed);
    for (const name of ["small.db", "small.db-wal"]) cpSync(join(s.objectsDir, name), join(killed, name));
    const sql = new Database(join(killed, "small.db"));
    const keys = sql.prepare("SELECT object_key FROM objects ORDER BY object_key").pluck().all();
    sql.close();
    assert.deepEqual(keys, [before, after].sort());
  });
}
