// Goal: a clock that is wrong when the service starts does not expire everything, and one that is right after a long rest
// of the service does, an hour later.
// Method: the real service on one data directory, started again and again under clocks that the test sets.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import type { ListedObject } from "../lib/store/objects.ts";
import { initDataDir, startTestApp, type TestAppOptions, temporaryFolder, testConfig } from "./_app.ts";
import { DAY_MS, stillClock } from "./_faulty_app.ts";
import { collectLog } from "./_s3_servers.ts";
import { until } from "./_until.ts";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
/** An embedded store, whatever store the other tests use: its marker is a file. */
const DISK = { STOWAGE_STORE: "disk" };

/** A data directory whose service can be started again; one runs at a time. */
async function openPlace(t: TestContext) {
  const dataDir = join(await temporaryFolder(t), "data");
  const owner = await initDataDir(testConfig(dataDir), 1_000_000);
  const clock = stillClock();
  async function start(options: TestAppOptions = {}) {
    const { log, events } = collectLog();
    const its = await startTestApp(t, { dataDir, owner, clock, log, cleansInBackground: false, env: DISK, ...options });
    return {
      ...its,
      expired: async () => (await its.app.cleaner.runOnce()).expired,
      warnings: () => events.filter(({ level }) => level === "warn").map(({ msg }) => msg),
      idempotencyKeys: () => its.sql.prepare("SELECT count(*) FROM idempotency_keys").pluck().get(),
    };
  }
  return { dataDir, clock, start };
}

test("a service that was off for a week expires what is over after an hour, and says why it waits", async (t) => {
  const { clock, start } = await openPlace(t);
  const first = await start();
  await first.call("POST", "/api/v1/uploads", {
    body: { filename: "a.bin", category: "file" },
    headers: { "Idempotency-Key": "once" },
  });
  await first.expired();
  await first.close();

  clock.advance(7 * DAY_MS);
  const its = await start();
  assert.equal(await its.expired(), 0);
  assert.deepEqual(its.warnings(), ["clock_doubted"]);
  clock.advance(HOUR_MS - MINUTE_MS);
  assert.equal(await its.expired(), 0);
  assert.equal(its.idempotencyKeys(), 1);
  clock.advance(2 * MINUTE_MS);
  assert.equal(await its.expired(), 1);
  assert.equal(its.idempotencyKeys(), 0);
  assert.deepEqual(its.warnings(), ["clock_doubted"]);
  await its.close();

  clock.advance(DAY_MS - HOUR_MS);
  const again = await start();
  await again.expired();
  assert.deepEqual(again.warnings(), [], "a service that was off for less than a day is not held up");
});

test("what a wrong clock has dated does not make it right after a restart, and set right it is trusted at once", async (t) => {
  const { clock, start } = await openPlace(t);
  const first = await start();
  const { id } = await first.createUpload();
  assert.equal(await first.expired(), 0);
  await first.close();

  clock.setBy(10 * DAY_MS);
  const wrong = await start();
  assert.equal(await wrong.expired(), 0);
  await wrong.confirmedUpload("dated ten days ahead");
  await wrong.createUpload();
  await wrong.close();
  clock.advance(5 * MINUTE_MS);
  const again = await start();
  assert.equal(await again.expired(), 0);
  assert.deepEqual(again.warnings(), ["clock_doubted"]);
  await again.close();

  clock.setBy(-10 * DAY_MS);
  const right = await start();
  await right.expired();
  assert.deepEqual(right.warnings(), []);
  assert.equal(right.sql.prepare("SELECT status FROM uploads WHERE id = ?").pluck().get(id), "pending");
  clock.advance(2 * DAY_MS);
  assert.equal(await right.expired(), 1);
});

test("a service that is restarted within the hour still expires, and one that was off meanwhile rests anew", async (t) => {
  const { clock, start } = await openPlace(t);
  const first = await start();
  await first.createUpload();
  await first.expired();
  await first.close();
  clock.advance(7 * DAY_MS);
  for (const minutes of [50, 180, 50]) {
    const its = await start();
    assert.equal(await its.expired(), 0);
    assert.deepEqual(its.warnings(), ["clock_doubted"]);
    await its.close();
    clock.advance(minutes * MINUTE_MS);
  }
  const last = await start();
  assert.equal(await last.expired(), 0);
  clock.advance(11 * MINUTE_MS);
  assert.equal(await last.expired(), 1);
});

test("a clock that is days behind is doubted as well", async (t) => {
  const { clock, start } = await openPlace(t);
  const first = await start();
  await first.createUpload();
  await first.expired();
  await first.close();
  clock.setBy(-3 * DAY_MS);
  const its = await start();
  await its.expired();
  assert.deepEqual(its.warnings(), ["clock_doubted"]);
});

for (const [evidence, isDoubted] of [
  ["nothing", true],
  ["upload", false],
  ["ledger", false],
  ["marker", false],
] as const) {
  test(`a clock that was never trusted before: with ${evidence} of late it is ${isDoubted ? "doubted" : "trusted"}`, async (t) => {
    const { dataDir, clock, start } = await openPlace(t);
    const first = await start();
    await first.confirmedUpload("an event");
    await first.createUpload();
    await first.expired();
    const markerPath = join(dataDir, "objects", "ledger-marker");
    await first.close();
    clock.advance(5 * DAY_MS);
    const lateMs = clock.now();
    // As a file of an earlier version is, and what the test leaves in it is as old as the file.
    const second = await start();
    second.sql.prepare("UPDATE installation SET clock_trusted_at_ms = NULL").run();
    if (evidence === "upload") second.sql.prepare("UPDATE uploads SET created_at_ms = ?").run(lateMs);
    if (evidence === "ledger") {
      // Only the schema's own clock dates an event: so the others are made old instead.
      clock.setBy(-5 * DAY_MS);
      second.sql.prepare("UPDATE installation SET created_at_ms = 1").run();
      second.sql.prepare("UPDATE uploads SET created_at_ms = 1").run();
    }
    await second.close();
    if (evidence === "marker") {
      const marker = JSON.parse(readFileSync(markerPath, "utf8"));
      writeFileSync(markerPath, JSON.stringify({ ...marker, written_at: new Date(lateMs).toISOString() }));
    }
    const its = await start();
    await its.expired();
    assert.deepEqual(its.warnings(), isDoubted ? ["clock_doubted"] : []);
  });
}

test("nothing expires before the store's clock was heard", async (t) => {
  const { clock, start } = await openPlace(t);
  let skewMs: number | null = null;
  const its = await start({ wrapStore: (objects) => ({ ...objects, clockSkewMs: () => skewMs }) });
  await its.createUpload();
  clock.advance(2 * DAY_MS);
  assert.equal(await its.expired(), 0);
  assert.deepEqual(its.warnings(), ["store_clock_unknown"]);
  skewMs = 0;
  assert.equal(await its.expired(), 1);
});

test("a service that is restarted every 50 minutes looks through staging once an hour, and at once if it cannot tell", async (t) => {
  const { clock, start } = await openPlace(t);
  let looks = 0;
  const wrapStore: TestAppOptions["wrapStore"] = (objects) => ({
    ...objects,
    async *list(prefix): AsyncGenerator<ListedObject> {
      looks++;
      yield* objects.list(prefix);
    },
  });
  const looksByRun: number[] = [];
  for (let run = 0; run < 8; run++) {
    const its = await start({ wrapStore, cleansInBackground: true });
    const lookedAt = its.sql.prepare("SELECT looked_at_ms FROM installation").pluck();
    const before = lookedAt.get();
    // After 100 minutes each. The last has 50, and a time that cannot be.
    if ([2, 4, 6, 7].includes(run)) await until(() => lookedAt.get() !== before, `the look of run ${run}`);
    else await delay(300);
    await its.app.cleaner.stop();
    if (run === 6) its.sql.prepare("UPDATE installation SET looked_at_ms = ?").run(clock.now() + DAY_MS);
    await its.close();
    looksByRun.push(looks);
    clock.advance(50 * MINUTE_MS);
  }
  assert.deepEqual(looksByRun, [0, 0, 1, 1, 2, 2, 3, 4]);
});
