// Goal: on a disk that is below its reserve a confirm that copies is refused as a PUT is, and one that seals still works: what
// is kept free is for deletes and for the next start.
import assert from "node:assert/strict";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { initDataDir, temporaryFolder, testConfig } from "../help/app.ts";
import { type FaultyApp, startFaultyApp } from "../help/faulty_app.ts";

/** More than any disk has free. */
const RESERVE = { STOWAGE_MIN_FREE_BYTES: String(2 ** 50) };
const DISK = { STOWAGE_STORE: "disk" };

/** A service on a disk that is below its reserve, with an upload that was PUT before. */
async function openShort(
  t: TestContext,
  { seals, bytes }: { seals: boolean; bytes: string },
): Promise<{ its: FaultyApp; id: string }> {
  const dataDir = join(await temporaryFolder(t), "data");
  const owner = await initDataDir(testConfig(dataDir), 1_000_000);
  const before = await startFaultyApp(t, { dataDir, owner, env: DISK });
  const { id } = await before.staged(bytes);
  await before.close();
  return { its: await startFaultyApp(t, { dataDir, owner, seals, env: { ...DISK, ...RESERVE } }), id };
}

test("a confirm that copies a small object is refused with 507, and the upload stays as it was", async (t) => {
  const { its, id } = await openShort(t, { seals: false, bytes: "small" });
  const refused = await its.confirm(id);
  assert.deepEqual([refused.status, refused.json.error.code], [507, "INSUFFICIENT_STORAGE"]);
  assert.equal(its.statusOf(id), "pending");
  assert.deepEqual(its.files(), [its.keyOf(id)]);
  its.check();
  assert.equal((await its.call("DELETE", `/api/v1/uploads/${id}`)).status, 200);
  await its.checkEnd();
  assert.deepEqual(its.files(), []);
});

for (const { what, seals, bytes } of [
  { what: "a small object that is sealed", seals: true, bytes: "small" },
  { what: "a large one, which is linked", seals: false, bytes: "x".repeat(100_000) },
]) {
  test(`a confirm of ${what} copies nothing and works`, async (t) => {
    const { its, id } = await openShort(t, { seals, bytes });
    assert.equal((await its.confirm(id)).status, 200);
    await its.checkEnd();
    assert.equal(its.bytesOf(id), bytes);
  });
}
