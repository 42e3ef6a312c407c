import assert from "node:assert/strict";
import { test } from "node:test";
import { createFairTurns } from "../lib/fair_turns.ts";
import { createRandom, testSeed } from "./_random.ts";

function work(ms: number): void {
  for (const endMs = performance.now() + ms; performance.now() < endMs; );
}

/** Lets each owner do so many bits of work of this length; resolves with the owners in the order of their bits. */
async function run(owners: ReadonlyMap<string, { bits: number; ms: number }>): Promise<string[]> {
  const turns = createFairTurns(() => 4);
  const done: string[] = [];
  await Promise.all(
    [...owners].map(async ([ownerId, { bits, ms }]) => {
      for (let i = 0; i < bits; i++) {
        await turns.wait(ownerId);
        work(ms);
        done.push(ownerId);
      }
    }),
  );
  return done;
}

test("each owner gets the same time: one with long bits of work gets fewer turns than one with short ones", async () => {
  const done = await run(
    new Map([
      ["long", { bits: 10, ms: 4 }],
      ["short", { bits: 20, ms: 0.5 }],
    ]),
  );
  const longOnes = done.slice(0, done.lastIndexOf("short")).filter((ownerId) => ownerId === "long").length;
  // 10 ms of short bits; with turn and turn about all ten long ones, 40 ms, would have come in between.
  assert.ok(longOnes <= 6, `${longOnes} long ones came before the last short one`);
});

test("all that waits is woken, once, and in its owner's order, whatever comes when", async (t) => {
  const random = createRandom(testSeed((text) => t.diagnostic(text)));
  const turns = createFairTurns(() => 0.5);
  const woken = new Map<string, number[]>();
  const waits: Promise<void>[] = [];
  for (let i = 0; i < 3_000; i++) {
    const ownerId = `owner ${random.integer(0, 60)}`;
    waits.push(
      turns.wait(ownerId).then(() => {
        const own = woken.get(ownerId) ?? [];
        woken.set(ownerId, own);
        own.push(i);
      }),
    );
    if (random.percent(1)) await new Promise((resolve) => setImmediate(resolve));
  }
  await Promise.all(waits);
  const all = [...woken.values()];
  assert.equal(
    all.reduce((sum, own) => sum + own.length, 0),
    3_000,
  );
  for (const own of all)
    assert.deepEqual(
      own,
      own.toSorted((a, b) => a - b),
    );
  assert.equal(turns.isWaited(), false);
});

test("however many owners wait, finding the next takes next to no time", async () => {
  const turns = createFairTurns(() => 1_000);
  const startedMs = performance.now();
  await Promise.all(Array.from({ length: 60_000 }, (_, i) => turns.wait(String(i % 20_000))));
  const tookMs = performance.now() - startedMs;
  // Some 0.2 s, or 3 s on a machine with much else to do; 33 s there if each was compared with each other.
  assert.ok(tookMs < 12_000, `it took ${tookMs} ms`);
});
