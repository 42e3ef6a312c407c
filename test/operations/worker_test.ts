// Goal: no wake is lost, whenever it comes.
// Method: a worker whose pass and plan are held, woken while each is under way.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { createWorker } from "../../lib/operations/worker.ts";
import { afterwards } from "../help/db.ts";
import { createGate, type Gate } from "../help/faulty_store.ts";
import { until } from "../help/until.ts";

/** A worker that sleeps for an hour after each pass, unless it is woken. */
function sleepyWorker(t: TestContext, { mayWake = true } = {}) {
  const counts = { passes: 0, plans: 0 };
  const gates: { pass?: Gate; plan?: Gate } = {};
  const worker = createWorker({
    async runPass() {
      counts.passes++;
      await gates.pass?.pass();
    },
    async planNext() {
      counts.plans++;
      await gates.plan?.pass();
      return 3_600_000;
    },
    mayWake: () => mayWake,
    gapMs: 1,
    retryMs: 3_600_000,
    onFailure: (error) => assert.fail(String(error)),
    workedMs: () => 0,
  });
  afterwards(t, worker.stop);
  return { worker, counts, gates };
}

test("a wake that comes while the next pass is planned brings it on at once", async (t) => {
  const { worker, counts, gates } = sleepyWorker(t);
  const gate = createGate();
  gates.plan = gate;
  worker.start();
  await gate.reached;
  delete gates.plan;
  worker.wake();
  gate.open();
  await until(() => counts.plans === 2, "the second pass was run");
  await delay(50);
  assert.deepEqual(counts, { passes: 2, plans: 2 });
});

test("a wake that comes during a pass is left to the plan that follows it", async (t) => {
  const { worker, counts, gates } = sleepyWorker(t);
  const gate = createGate();
  gates.pass = gate;
  worker.start();
  await gate.reached;
  worker.wake();
  gate.open();
  await until(() => counts.plans === 1, "the next pass was planned");
  await delay(50);
  assert.deepEqual(counts, { passes: 1, plans: 1 });
});

test("work that keeps its own pace is not woken early", async (t) => {
  const { worker, counts, gates } = sleepyWorker(t, { mayWake: false });
  const gate = createGate();
  gates.plan = gate;
  worker.start();
  await gate.reached;
  worker.wake();
  gate.open();
  await delay(50);
  assert.deepEqual(counts, { passes: 1, plans: 1 });
});
