import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough, Readable } from "node:stream";
import { type TestContext, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import type { DiskStoreOptions } from "../lib/store/disk/objects_disk.ts";
import { createDiskSpace } from "../lib/store/disk/space.ts";
import { openTestStore, type TestStore, uncounted } from "./_disk_store.ts";
import { skipLoudly } from "./_loud_skip.ts";

const MIB = 1024 * 1024;
/** Each upload is of another workspace. */
const eachKeyItsOwner = uncounted((objectKey) => objectKey);
const FULL = { name: "AppError", code: "insufficient_storage" };

/** A store on a small file system of its own. */
async function openSmallStore(
  t: TestContext,
  { mountOptions, ...changes }: Partial<DiskStoreOptions> & { mountOptions: string },
): Promise<TestStore | null> {
  const folder = mountSmall(t, mountOptions);
  if (folder === null) return null;
  return openTestStore(t, { objectsDir: join(folder, "objects"), maxUploadBytes: 1024 * MIB, ...changes });
}

/** A fresh small file system; null, said loudly, where none can be mounted. */
function mountSmall(t: TestContext, mountOptions: string): string | null {
  if (process.platform !== "linux" || process.getuid?.() !== 0) {
    skipLoudly(t, "mounting a small file system needs Linux and root", "run the tests as root on Linux");
    return null;
  }
  const folder = mkdtempSync(join(tmpdir(), "stowage_test_full_"));
  execFileSync("mount", ["-t", "tmpfs", "-o", mountOptions, "tmpfs", folder]);
  t.after(() => {
    execFileSync("umount", [folder]);
    rmSync(folder, { recursive: true });
  });
  return folder;
}

function receive(s: TestStore, bytes: number, contentLength: number | null = bytes) {
  return s.store.receive(s.newPendingKey(), Readable.from(chunks(bytes)), {
    sizeBytes: null,
    maxBytes: s.options.maxUploadBytes,
    contentLength,
  });
}

function* chunks(bytes: number): Generator<Buffer> {
  for (let sent = 0; sent < bytes; sent += 65_536) yield Buffer.alloc(Math.min(65_536, bytes - sent));
}

test("an upload that would leave less than the minimum free is refused before it is read; smaller ones are taken", async (t) => {
  const s = await openSmallStore(t, { mountOptions: "size=48m", minFreeBytes: 16 * MIB });
  if (s === null) return;
  const untouched = new Readable({ read: () => assert.fail("read a body that has no room") });
  const limits = { sizeBytes: null, maxBytes: 64 * MIB, contentLength: 33 * MIB };
  await assert.rejects(s.store.receive(s.newPendingKey(), untouched, limits), FULL);
  await assert.rejects(
    s.store.receive(s.newPendingKey(), untouched, { sizeBytes: 33 * MIB, maxBytes: 33 * MIB, contentLength: null }),
    FULL,
  );
  assert.deepEqual(s.files(), []);
  assert.equal((await receive(s, 12 * MIB)).sizeBytes, 12 * MIB);
  await assert.rejects(receive(s, 21 * MIB), FULL);
  assert.equal((await receive(s, 1 * MIB)).sizeBytes, 1 * MIB);
});

test("uploads in flight hold the room of what they have sent and little more, whatever they announced", async (t) => {
  const s = await openSmallStore(t, { mountOptions: "size=32m", minFreeBytes: 0, staging: eachKeyItsOwner });
  if (s === null) return;
  const idle = Array.from({ length: 5 }, () => new PassThrough());
  const limits = { sizeBytes: null, maxBytes: 64 * MIB, contentLength: 14 * MIB };
  const inFlight = idle.map((body) => s.store.receive(s.newPendingKey(), body, limits));
  for (const body of idle) body.write("x");
  while (s.files().length < idle.length) await turn();
  assert.equal((await receive(s, 12 * MIB)).sizeBytes, 12 * MIB);
  for (const body of idle) body.destroy();
  const ended = await Promise.allSettled(inFlight);
  assert.ok(ended.every(({ status }) => status === "rejected"));
  assert.equal((await receive(s, 9 * MIB)).sizeBytes, 9 * MIB, "what was not used is free again");
});

test("room that was promised is not promised again until it is given back", async (t) => {
  const folder = mountSmall(t, "size=32m");
  if (folder === null) return;
  const space = createDiskSpace({ folder, minFreeBytes: 28 * MIB, stagedBytes: () => 0 });
  const [a, b, c] = ["a", "b", "c"].map((ownerId) => space.reserve(ownerId, null));
  assert.ok(a !== undefined && b !== undefined && c !== undefined);
  a.take(1);
  b.take(1);
  c.take(1);
  const d = space.reserve("d", null);
  assert.throws(() => d.take(1), FULL);
  assert.throws(() => space.reserve("d", 2 * MIB), FULL);
  a.release();
  a.check();
  d.take(1);
});

test("one owner's uploads get half of the room, with what they have staged; another's are taken", async (t) => {
  const folder = mountSmall(t, "size=32m");
  if (folder === null) return;
  // As if 4 MiB of the disk's use were a's.
  const stagedBytes = (ownerId: string) => (ownerId === "a" ? 4 * MIB : 0);
  const space = createDiskSpace({ folder, minFreeBytes: 16 * MIB, stagedBytes });
  const share = { ...FULL, message: /4194304 bytes of the server's disk, which is their share/ };
  assert.throws(() => space.reserve("a", 7 * MIB), share);
  const announced = space.reserve("a", 6 * MIB);
  const unknown = space.reserve("a", null);
  for (let taken = 0; taken < 6; taken++) {
    unknown.take(MIB);
    writeFileSync(join(folder, `${taken}`), Buffer.alloc(MIB));
  }
  assert.throws(() => unknown.take(1), FULL);
  assert.throws(() => announced.take(1), FULL);
  space.reserve("b", 5 * MIB).take(MIB);
  unknown.release();
  announced.take(1);
});

test("an upload of unknown length is stopped on its way when the room runs out, and nothing of it is kept", async (t) => {
  const s = await openSmallStore(t, { mountOptions: "size=48m", minFreeBytes: 4 * MIB });
  if (s === null) return;
  // More than may be used, and less than there is: the kernel would not refuse it.
  await assert.rejects(receive(s, 30 * MIB, null), FULL);
  assert.deepEqual(s.files(), []);
  assert.equal((await receive(s, 20 * MIB, null)).sizeBytes, 20 * MIB);
});

test("an upload is stopped on its way when others take the room that was promised to it", async (t) => {
  const s = await openSmallStore(t, { mountOptions: "size=48m", minFreeBytes: 8 * MIB });
  if (s === null) return;
  const filler = join(s.objectsDir, "..", "filler");
  function* body(): Generator<Buffer> {
    yield* chunks(4 * MIB);
    execFileSync("dd", ["if=/dev/zero", `of=${filler}`, "bs=1M", "count=24", "status=none"]);
    yield* chunks(14 * MIB);
  }
  const limits = { sizeBytes: null, maxBytes: 64 * MIB, contentLength: 18 * MIB };
  await assert.rejects(s.store.receive(s.newPendingKey(), Readable.from(body()), limits), FULL);
  assert.deepEqual(s.files(), []);
});

test("a disk that is full in the middle of a write says so, keeps nothing, and takes uploads again once there is room", async (t) => {
  // Without the look at the free space before: the kernel's own refusal is what is tested.
  const s = await openSmallStore(t, { mountOptions: "size=16m", minFreeBytes: Number.NEGATIVE_INFINITY });
  if (s === null) return;
  const kept = s.newPendingKey();
  await s.put(kept, "kept");
  await assert.rejects(receive(s, 20 * MIB), FULL);
  assert.equal(s.files().length, 1);
  assert.equal(await s.text(kept), "kept");
  assert.equal((await receive(s, 8 * MIB)).sizeBytes, 8 * MIB);
  await assert.rejects(receive(s, 10 * MIB), FULL);
  assert.deepEqual(await s.store.remove([kept]), new Map());
});

test("a disk without room for one more name refuses uploads and still removes", async (t) => {
  const s = await openSmallStore(t, { mountOptions: "size=16m,nr_inodes=12", minFreeBytes: 0 });
  if (s === null) return;
  const keys: string[] = [];
  const failure = await (async () => {
    for (;;) {
      const key = s.newPendingKey();
      try {
        await s.put(key, "x");
      } catch (error) {
        return error;
      }
      keys.push(key);
    }
  })();
  assert.ok(failure instanceof Error && "code" in failure);
  assert.equal(failure.code, "insufficient_storage");
  assert.ok(keys.length >= 1);
  assert.equal(s.files().length, keys.length);
  assert.deepEqual(await s.store.remove(keys), new Map());
  assert.deepEqual(s.files(), []);
});
