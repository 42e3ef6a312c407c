// Goal: a removal of many files neither fails as a whole because of one folder nor takes all threads of the file system.
import assert from "node:assert/strict";
import { rmSync, writeFileSync } from "node:fs";
import fsPromises from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { afterwards } from "../help/db.ts";
import { AS_FILES, INSTALLATION_ID, openTestStore } from "../help/disk_store.ts";

test("a folder that cannot be used keeps its own files alone from being removed", async (t) => {
  const s = await openTestStore(t, AS_FILES);
  const good = s.newPendingKey();
  const [, , uploadId = "", random = ""] = s.newPendingKey().split("/");
  const key = `staging/${INSTALLATION_ID}/00000${uploadId.slice(5)}/${random}`;
  await s.put(good, "good");
  // The system cannot even say whether a folder below it is there.
  const outer = dirname(dirname(s.pathOf(key)));
  rmSync(outer, { recursive: true, force: true });
  writeFileSync(outer, "");
  const reasons = await s.store.remove([key, good]);
  assert.deepEqual([...reasons.keys()], [key]);
  assert.match(reasons.get(key) ?? "", /^ENOTDIR on /);
  assert.equal(await s.store.stat(good), null);
  assert.deepEqual(s.files(), [join("staging", "00000")]);
});

test("few files are removed at once, however many folders they lie in", async (t) => {
  const s = await openTestStore(t, AS_FILES);
  const keys: string[] = [];
  for (let folder = 0; folder < 12; folder++) {
    for (let file = 0; file < 12; file++) {
      const [, , uploadId = "", random = ""] = s.newPendingKey().split("/");
      const key = `staging/${INSTALLATION_ID}/${uploadId.slice(0, 5)}${(0x100 + folder).toString(16)}${uploadId.slice(8)}/${random}`;
      s.pending.add(key);
      await s.put(key, "x");
      keys.push(key);
    }
  }
  const { unlink } = fsPromises;
  let running = 0;
  let runningMax = 0;
  fsPromises.unlink = async (path) => {
    runningMax = Math.max(runningMax, ++running);
    await unlink(path);
    running--;
  };
  syncBuiltinESMExports();
  afterwards(t, () => {
    fsPromises.unlink = unlink;
    syncBuiltinESMExports();
  });
  assert.deepEqual(await s.store.remove(keys), new Map());
  assert.equal(runningMax, 8);
  assert.deepEqual(s.files(), []);
});
