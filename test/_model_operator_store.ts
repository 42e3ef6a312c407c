import assert from "node:assert/strict";
import { copyFileSync, mkdirSync, renameSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { DATABASE_FILE } from "../lib/db/db.ts";
import { acceptAsItIs, findQuestion } from "../lib/doctor/accept.ts";
import { withParts } from "../lib/doctor/doctor.ts";
import { silentLog, startTestApp, temporaryFolder } from "./_app.ts";
import type { Operations } from "./_model_operations.ts";
import { expectStatus, type World } from "./_model_world.ts";
import { testBucket } from "./_test_store.ts";

/** Longer than a comparison of the marker is good for. */
const COMPARED_MS = 1_001;

/** What operators do to the store, by mistake, and take back: nothing may come of it but refusals. */
export function createStoreAccidents(t: TestContext, world: World, operations: Operations) {
  const { its, model, random, anyUpload, anyPending, ownContext } = world;
  const { app, call, clock, sql, dataDir, config } = its;

  /** Takes the store away, and leaves an empty one where it was if `isSwapped`. Resolves with what undoes it. */
  async function takeAway(isSwapped: boolean): Promise<() => Promise<void>> {
    const bucket = await testBucket(t, dataDir);
    if (bucket !== null) {
      const bringBack = await bucket.raw.vanish();
      if (isSwapped) await bucket.raw.make();
      return async () => {
        if (isSwapped) await bucket.raw.vanish();
        await bringBack();
      };
    }
    const folder = join(dataDir, "objects");
    renameSync(folder, `${folder}.away`);
    if (isSwapped) mkdirSync(folder);
    return async () => {
      // Empty, or not there at all: whatever was made in it would be lost.
      if (isSwapped) rmSync(folder, { recursive: true });
      renameSync(`${folder}.away`, folder);
    };
  }

  /** Before anything was stored any store is as good as another. */
  function isUnused(): boolean {
    const used = `SELECT EXISTS (SELECT 1 FROM storage_events) OR EXISTS (SELECT 1 FROM uploads)
                      OR EXISTS (SELECT 1 FROM object_removals)`;
    return sql.prepare(used).pluck().get() === 0;
  }

  async function withoutStore(isSwapped: boolean): Promise<void> {
    if (isUnused()) return;
    its.heal();
    const undo = await takeAway(isSwapped);
    clock.advance(COMPARED_MS);
    const nothing = { removed: 0, failed: 0, expired: 0 };
    assert.deepEqual(await app.cleaner.runOnce(), nothing, "nothing is removed, nothing expires");
    assert.equal(await app.cleaner.lookForLateArrivals(), 0);
    const { key } = random.pick(model.workspaces)?.owner ?? assert.fail();
    const body = { filename: "a.bin", category: "file" };
    expectStatus("create in another store", await call("POST", "/api/v1/uploads", { key, body }), [503]);
    const pending = anyPending();
    if (pending !== undefined) {
      expectStatus("confirm in another store", await world.sendConfirm(pending, ownContext(pending.workspace)), [503]);
    }
    await operations.deleteOne(anyUpload());
    assert.equal((await call("GET", "/ready", { key: "" })).status, 503);
    assert.deepEqual(await app.cleaner.runOnce(), nothing);
    await undo();
    await operations.cleanerPass();
    assert.equal(app.cleaner.pauseReason(), null, "it goes on by itself");
  }

  /** Someone starts a copy of the data directory on the same objects, deletes through it, and stops it again. */
  async function startCopy(): Promise<void> {
    its.heal();
    const copyDir = join(await temporaryFolder(t), "copy");
    mkdirSync(copyDir);
    sql.exec(`VACUUM INTO '${join(copyDir, DATABASE_FILE)}'`);
    copyFileSync(join(dataDir, "url_signing.key"), join(copyDir, "url_signing.key"));
    const bucket = await testBucket(t, dataDir);
    if (bucket === null) symlinkSync(join(dataDir, "objects"), join(copyDir, "objects"));
    const copy = await startTestApp(t, {
      ...{ dataDir: copyDir, owner: its.owner, clock, cleansInBackground: false },
      ...(bucket === null ? {} : { env: bucket.env, ...bucket.inTime(clock) }),
    });
    clock.advance(COMPARED_MS);
    const upload = random.pick(model.all());
    // Each looks before it removes; the first that does tells the other.
    await app.cleaner.runOnce();
    assert.match(app.cleaner.pauseReason() ?? "", /another copy of this data directory/);
    clock.advance(COMPARED_MS);
    if (upload !== undefined) {
      const { key } = upload.workspace.owner;
      expectStatus(
        "delete through the copy",
        await copy.call("DELETE", `/api/v1/uploads/${upload.id}`, { key }),
        [200],
      );
    }
    assert.equal((await copy.app.cleaner.runOnce()).removed, 0);
    assert.match(copy.app.cleaner.pauseReason() ?? "", /another copy of this data directory/);
    await copy.close();

    await withParts({ config, log: silentLog, now: clock.now }, async (parts) => {
      assert.notEqual(await findQuestion(parts, "older-database", clock.now), null);
      await acceptAsItIs(parts, "older-database", clock.now);
    });
    await operations.cleanerPass();
    assert.equal(app.cleaner.pauseReason(), null, "the one that a person chose goes on");
  }

  return {
    swapStore: () => withoutStore(true),
    unmountStore: () => withoutStore(false),
    startCopy,
  };
}
