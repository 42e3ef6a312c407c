import assert from "node:assert/strict";
import { test } from "node:test";
import { giveWay } from "../lib/pacer.ts";

/** Longer than all reads together may work in one turn. */
const STEP_MS = 4;

function work(ms: number): void {
  for (const endMs = performance.now() + ms; performance.now() < endMs; );
}

/** Runs reads side by side; tells who made a step when, and how many steps were made in each turn of the event loop. */
async function runReads(
  count: number,
  steps: number,
  stepMs: number,
  ownerOf: (read: number) => string = () => "one",
): Promise<{ made: number[]; perTurn: number[] }> {
  const made: number[] = [];
  const perTurn: number[] = [];
  let seen = 0;
  let running = true;
  const look = (): void => {
    perTurn.push(made.length - seen);
    seen = made.length;
    if (running) setImmediate(look);
  };
  setImmediate(look);
  const reads = Array.from({ length: count }, async (_, read) => {
    for (let i = 0; i < steps; i++) {
      await giveWay(ownerOf(read));
      made.push(read);
      work(stepMs);
    }
  });
  await Promise.all(reads);
  running = false;
  return { made, perTurn };
}

test("however many reads are under way, one turn of the event loop has one long step", async () => {
  const { made, perTurn } = await runReads(5, 4, STEP_MS);
  assert.equal(made.length, 20);
  assert.equal(Math.max(...perTurn), 1);
});

test("reads take turns, first come first served", async () => {
  const { made } = await runReads(3, 3, STEP_MS);
  assert.deepEqual(made, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
});

test("owners take turns by what they have used: who reads a little does not wait for those who read a lot", async () => {
  // One owner has three long reads under way, another comes with a single short one.
  const { made } = await runReads(4, 5, STEP_MS, (read) => (read === 3 ? "another" : "one"));
  const lastOfAnother = made.lastIndexOf(3);
  // While both wait each gets every second step, give or take what a step is longer than another.
  assert.ok(lastOfAnother <= 12, `the other's five steps were over at step ${lastOfAnother} of ${made.length}`);
});

test("short steps share a turn", async () => {
  const { made, perTurn } = await runReads(50, 10, 0);
  assert.equal(made.length, 500);
  assert.ok(perTurn.some((steps) => steps > 1));
});

test("a read that fails keeps nobody from going on", async () => {
  const failing = giveWay("one").then(() => {
    throw new Error("no");
  });
  const other = giveWay("one");
  await assert.rejects(failing, /no/);
  await other;
  await giveWay("one");
});
