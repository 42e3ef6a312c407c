// Goal: while requests keep the process busy the cleaner gives back what it has used of it, and a slow store costs it nothing.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { createPace } from "../lib/operations/cleaner_pace.ts";
import { startTestApp } from "./_app.ts";
import { enterRemovals } from "./_enter_removals.ts";
import { stillClock } from "./_faulty_app.ts";
import { openRig, openSite } from "./_matrix_rig.ts";
import { useS3Server } from "./_s3_servers.ts";

/** What the cleaner hands to the store at a time while nobody else needs the process, and while it is busy. */
const BATCH_KEYS = 4_000;
const BATCH_KEYS_BUSY = 512;

/** Keeps the event loop busy until the test ends, as requests do. */
function keepBusy(t: TestContext): void {
  let isOn = true;
  t.after(() => {
    isOn = false;
  });
  function spin(): void {
    if (!isOn) return;
    const untilMs = performance.now() + 2;
    while (performance.now() < untilMs);
    setImmediate(spin);
  }
  spin();
}

function startPace({ utilization }: { utilization: number }) {
  const pauses: number[] = [];
  let workedMs = 1_000;
  const pace = createPace({
    workedMs: () => workedMs,
    pause: async (ms) => void pauses.push(ms),
    utilization: async () => utilization,
  });
  return {
    pace,
    pauses,
    work(ms: number) {
      workedMs += ms;
    },
  };
}

test("a busy process gets back thirty-six times what the cleaner's writes have used of it, once, and nothing for waiting", async () => {
  const { pace, pauses, work } = startPace({ utilization: 0.9 });
  work(3);
  await pace.lookAround();
  assert.ok(pace.isBusy());
  assert.deepEqual(pauses, [108]);
  // However long the store took meanwhile: nothing was used.
  await pace.giveBack();
  await pace.lookAround();
  assert.deepEqual(pauses, [108]);
  work(1);
  await pace.giveBack();
  work(10_000);
  await pace.giveBack();
  assert.deepEqual(pauses, [108, 36, 5_000]);
});

test("a process that has time gets nothing back, and what was used meanwhile is not asked for later", async () => {
  const { pace, pauses, work } = startPace({ utilization: 0.5 });
  work(3);
  await pace.lookAround();
  work(3);
  await pace.giveBack();
  assert.ok(!pace.isBusy());
  assert.deepEqual(pauses, []);
});

test("a store that takes a minute for each batch does not make the pauses of a busy service any longer", async (t) => {
  const clock = stillClock();
  const calls: number[] = [];
  const its = await startTestApp(t, {
    clock,
    cleansInBackground: false,
    wrapStore: (objects) => ({
      ...objects,
      async remove(keys) {
        calls.push(keys.length);
        clock.advance(60_000);
        return new Map();
      },
    }),
  });
  enterRemovals(its, BATCH_KEYS + 4 * BATCH_KEYS_BUSY);
  keepBusy(t);
  const { removed } = await its.app.cleaner.runOnce();
  assert.equal(removed, BATCH_KEYS + 4 * BATCH_KEYS_BUSY);
  assert.deepEqual(calls, [BATCH_KEYS, ...Array(4).fill(BATCH_KEYS_BUSY)]);
});

test("minio: while it is slow and the service busy, each answer still brings the cleaner on by hundreds of objects", async (t) => {
  const server = await useS3Server(t, "minio");
  if (server === null) return;
  const rig = await openRig(t, await openSite(t, server));
  const { its, s3 } = rig;
  assert.ok(s3 !== null);
  const { proxy } = s3;
  enterRemovals(its, BATCH_KEYS + 4 * BATCH_KEYS_BUSY);
  keepBusy(t);
  let hasEnded = false;
  const pass = its.app.cleaner.runOnce().finally(() => {
    hasEnded = true;
  });
  const isDelete = { method: "POST", query: /^delete/ };
  let answers = 0;
  while (!hasEnded) {
    const held = proxy.setFault({ kind: "hold", point: "before", match: isDelete, times: 1 });
    if ((await Promise.race([held.seen, pass])) === undefined) break;
    for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
    held.release();
    answers++;
  }
  assert.equal((await pass).removed, BATCH_KEYS + 4 * BATCH_KEYS_BUSY);
  // Four requests of a thousand each, and then one for each batch.
  assert.ok(answers <= 8, `${answers} answers`);
  assert.deepEqual(proxy.requests.filter(({ method }) => method === "POST").length, 8);
});
