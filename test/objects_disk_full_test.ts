import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough, Readable } from "node:stream";
import { type TestContext, test } from "node:test";
import type { DiskStoreOptions } from "../lib/store/disk/objects_disk.ts";
import { openTestStore, type TestStore } from "./_disk_store.ts";
import { skipLoudly } from "./_loud_skip.ts";

const MIB = 1024 * 1024;
const FULL = { name: "AppError", code: "insufficient_storage" };

/** A store on a small file system of its own. */
async function openSmallStore(
  t: TestContext,
  { mountOptions, ...changes }: Partial<DiskStoreOptions> & { mountOptions: string },
): Promise<TestStore | null> {
  if (process.platform !== "linux" || process.getuid?.() !== 0) {
    skipLoudly(t, "mounting a small file system needs Linux and root", "run the tests as root on Linux");
    return null;
  }
  const folder = await mkdtemp(join(tmpdir(), "stowage_test_full_"));
  execFileSync("mount", ["-t", "tmpfs", "-o", mountOptions, "tmpfs", folder]);
  t.after(async () => {
    execFileSync("umount", [folder]);
    await rm(folder, { recursive: true });
  });
  return openTestStore(t, { objectsDir: join(folder, "objects"), maxUploadBytes: 1024 * MIB, ...changes });
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
  const s = await openSmallStore(t, { mountOptions: "size=32m", minFreeBytes: 16 * MIB });
  if (s === null) return;
  const untouched = new Readable({ read: () => assert.fail("read a body that has no room") });
  const limits = { sizeBytes: null, maxBytes: 64 * MIB, contentLength: 17 * MIB };
  await assert.rejects(s.store.receive(s.newPendingKey(), untouched, limits), FULL);
  await assert.rejects(
    s.store.receive(s.newPendingKey(), untouched, { sizeBytes: 17 * MIB, maxBytes: 17 * MIB, contentLength: null }),
    FULL,
  );
  assert.deepEqual(s.files(), []);
  assert.equal((await receive(s, 12 * MIB)).sizeBytes, 12 * MIB);
  await assert.rejects(receive(s, 5 * MIB), FULL);
  assert.equal((await receive(s, 1 * MIB)).sizeBytes, 1 * MIB);
});

test("room that was promised to an upload in flight is not promised again", async (t) => {
  const s = await openSmallStore(t, { mountOptions: "size=32m", minFreeBytes: 0 });
  if (s === null) return;
  const body = new PassThrough();
  const limits = { sizeBytes: null, maxBytes: 64 * MIB, contentLength: 20 * MIB };
  const inFlight = s.store.receive(s.newPendingKey(), body, limits);
  await assert.rejects(receive(s, 20 * MIB), FULL);
  assert.equal((await receive(s, 5 * MIB)).sizeBytes, 5 * MIB);
  body.destroy();
  await assert.rejects(inFlight, { code: "ERR_STREAM_PREMATURE_CLOSE" });
  assert.equal((await receive(s, 20 * MIB)).sizeBytes, 20 * MIB, "what was not used is free again");
});

test("an upload of unknown length is stopped on its way when the room runs out, and nothing of it is kept", async (t) => {
  const s = await openSmallStore(t, { mountOptions: "size=32m", minFreeBytes: 4 * MIB });
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
    execFileSync("dd", ["if=/dev/zero", `of=${filler}`, "bs=1M", "count=8", "status=none"]);
    yield* chunks(32 * MIB);
  }
  const limits = { sizeBytes: null, maxBytes: 64 * MIB, contentLength: 36 * MIB };
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
