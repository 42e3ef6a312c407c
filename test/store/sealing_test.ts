// Goal: a sealed object is found under its final key whichever key its row still has, and nothing replaces or removes it.
// Method: the embedded store alone, with books that say what the test wants them to say.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { sealedKeyOf } from "../../lib/books/object_keys.ts";
import { createDiskStore, type DiskStore } from "../../lib/store/disk/objects_disk.ts";
import { type ListedObject, type Sealing, StoreError } from "../../lib/store/objects.ts";
import { INSTALLATION_ID, openTestStore, stagingOf, type TestStore } from "../help/disk_store.ts";
import { until } from "../help/until.ts";

const LARGE = "x".repeat(100_000);

interface SealingStore extends TestStore {
  sealing: Sealing;
  /** From now on an upload names the final key of this staging key. */
  confirm: (stagingKey: string) => string;
  /** From now on no upload names the key. */
  forget: (finalKey: string) => void;
  listed: (prefix: string) => Promise<string[]>;
  /** A second store on the same folder, as after a crash: it does not know what is to be renamed. */
  reopen: () => Promise<DiskStore>;
}

async function openSealingStore(t: TestContext): Promise<SealingStore> {
  const pending = new Set<string>();
  const confirmed = new Set<string>();
  const staging = {
    ...stagingOf((key) => pending.has(key)),
    statusOf: (key: string) => (pending.has(key) ? "pending" : confirmed.has(key) ? "uploaded" : null),
  } as const;
  const opened = await openTestStore(t, { staging });
  const { sealing } = opened.store;
  assert.ok(sealing !== null);
  return {
    ...opened,
    pending,
    sealing,
    newPendingKey() {
      const key = opened.newPendingKey();
      pending.add(key);
      return key;
    },
    confirm(stagingKey) {
      pending.delete(stagingKey);
      confirmed.add(sealedKeyOf(stagingKey));
      return sealedKeyOf(stagingKey);
    },
    forget: (finalKey) => void confirmed.delete(finalKey),
    listed: (prefix) => keysOf(opened.store.list(prefix)),
    async reopen() {
      await opened.store.close();
      const store = createDiskStore({ ...opened.options, sweep: false });
      t.after(() => store.close());
      await store.prepare({ makes: false });
      return store;
    },
  };
}

async function keysOf(objects: AsyncIterable<ListedObject>): Promise<string[]> {
  const keys: string[] = [];
  for await (const { objectKey } of objects) keys.push(objectKey);
  return keys;
}

const STAGING = `staging/${INSTALLATION_ID}/`;
const FINAL = `final/${INSTALLATION_ID}/`;

test("a sealed object is found, listed and removed under its final key at once, and gets that name a moment later", async (t) => {
  const s = await openSealingStore(t);
  const key = s.newPendingKey();
  const source = await s.put(key, "hello");
  assert.ok(s.sealing.canSeal(key));
  s.sealing.seal(key, source);
  assert.deepEqual(await s.listed(STAGING), [key], "not before it is confirmed");
  assert.equal(await s.store.stat(sealedKeyOf(key)), null);

  const finalKey = s.confirm(key);
  assert.deepEqual(s.rows(), [key]);
  assert.deepEqual(await s.store.stat(finalKey), source);
  assert.equal(await s.text(finalKey), "hello");
  assert.deepEqual([await s.listed(STAGING), await s.listed(FINAL)], [[], [finalKey]]);

  await until(() => s.rows()[0] === finalKey, "the object is renamed");
  assert.deepEqual(await s.store.stat(finalKey), source);
  assert.equal(await s.text(finalKey), "hello");
  assert.deepEqual([await s.listed(STAGING), await s.listed(FINAL)], [[], [finalKey]]);
  s.forget(finalKey);
  assert.deepEqual(await s.store.remove([finalKey]), new Map());
  assert.deepEqual(s.everything(), []);
});

test("a confirm that came to nothing leaves the staged object as it was", async (t) => {
  const s = await openSealingStore(t);
  const key = s.newPendingKey();
  s.sealing.seal(key, await s.put(key, "hello"));
  // Another object's turn comes after this one's.
  const other = s.newPendingKey();
  s.sealing.seal(other, await s.put(other, "other"));
  const finalKey = s.confirm(other);
  await until(() => s.rows().includes(finalKey), "the other object is renamed");
  assert.deepEqual(s.rows(), [finalKey, key]);
  await s.put(key, "hello again");
  assert.equal(await s.text(key), "hello again");
});

test("after a crash a sealed object that has its staging key is listed in order, and removed by its final key", async (t) => {
  const s = await openSealingStore(t);
  const keys = [s.newPendingKey(), s.newPendingKey(), s.newPendingKey()];
  for (const key of keys) await s.put(key, "hello");
  const [first = "", second = "", third = ""] = keys;
  const finals = [s.confirm(first), s.confirm(third)];
  const store = await s.reopen();
  assert.deepEqual(await keysOf(store.list(FINAL)), finals.toSorted());
  assert.deepEqual(await keysOf(store.list(STAGING)), [second]);
  s.forget(sealedKeyOf(first));
  assert.deepEqual(await store.remove([sealedKeyOf(first)]), new Map());
  assert.deepEqual(s.rows(), [second, third].toSorted());
});

test("a removal of the staging key leaves a sealed object, one of the final key what a pending upload waits for", async (t) => {
  const s = await openSealingStore(t);
  const [key, waiting] = [s.newPendingKey(), s.newPendingKey()];
  for (const each of [key, waiting]) await s.put(each, "hello");
  const finalKey = s.confirm(key);
  assert.deepEqual(await s.store.remove([key, sealedKeyOf(waiting)]), new Map());
  assert.deepEqual(s.rows().sort(), [finalKey, waiting].sort());
  assert.equal(await s.text(finalKey), "hello");
  assert.equal(await s.text(waiting), "hello");
});

test("what was replaced, removed, or has a file beside it cannot be sealed", async (t) => {
  const s = await openSealingStore(t);
  const key = s.newPendingKey();
  const source = await s.put(key, "hello");
  await s.put(key, "other");
  assert.throws(() => s.sealing.seal(key, source), failed("changed"));
  await s.store.remove([key]);
  assert.throws(() => s.sealing.seal(key, source), failed("absent"));
  assert.ok(!s.sealing.canSeal(key));
  await s.put(key, LARGE);
  assert.ok(!s.sealing.canSeal(key), "a file is promoted");
  // While the file is there, and afterwards: whoever removes the row comes to the file.
  await s.put(key, "small");
  assert.ok(!s.sealing.canSeal(key));
});

for (const { size, bytes } of [
  { size: "small", bytes: "other" },
  { size: "large", bytes: LARGE },
]) {
  test(`a ${size} PUT that was let in before the confirm, and is written after it, is refused`, async (t) => {
    const s = await openSealingStore(t);
    const key = s.newPendingKey();
    const source = await s.put(key, "hello");
    const late = assert.rejects(s.put(key, bytes), { code: "not_found" });
    // As late as can be: the write is queued, or the file written, and the next turn of the event loop does it.
    for (let turn = 0; turn < (size === "small" ? 20 : 1); turn++) await Promise.resolve();
    s.sealing.seal(key, source);
    const finalKey = s.confirm(key);
    await late;
    assert.equal(await s.text(finalKey), "hello");
    assert.deepEqual(await s.store.stat(finalKey), source);
    await until(() => s.rows()[0] === finalKey, "the object is renamed");
    assert.deepEqual(s.everything(), [finalKey]);
  });
}

function failed(failure: StoreError["failure"]): (error: unknown) => boolean {
  return (error) => error instanceof StoreError && error.failure === failure;
}
