// Goal: work on very many small objects lets everyone else have their turn in between.
import assert from "node:assert/strict";
import { test } from "node:test";
import { openTestStore, type TestStore, uncounted } from "../help/disk_store.ts";

const OBJECTS = 2_000;

async function openFull(t: Parameters<typeof openTestStore>[0]): Promise<{ s: TestStore; keys: string[] }> {
  const s = await openTestStore(t, { staging: uncounted((objectKey) => objectKey) });
  const keys = Array.from({ length: OBJECTS }, s.newPendingKey);
  await Promise.all(keys.map((key) => s.put(key, "x")));
  return { s, keys };
}

/** Counts the turns of the event loop that others get while the work is done, and tells it how many there were so far. */
async function countTurns(work: (turnsSoFar: () => number) => Promise<void>): Promise<number> {
  let turns = 0;
  let isDone = false;
  function count(): void {
    turns++;
    if (!isDone) setImmediate(count);
  }
  setImmediate(count);
  await work(() => turns);
  isDone = true;
  return turns;
}

test("a removal of many rows gives way", async (t) => {
  const { s, keys } = await openFull(t);
  const turns = await countTurns(async () => {
    assert.deepEqual(await s.store.remove(keys), new Map());
  });
  assert.ok(turns >= OBJECTS / 128, `${turns} turns`);
  assert.deepEqual(s.everything(), []);
});

test("a listing of many rows gives way, and is whole and in order", async (t) => {
  const { s, keys } = await openFull(t);
  const listed: string[] = [];
  const listedInTurn = new Map<number, number>();
  await countTurns(async (turnsSoFar) => {
    for await (const { objectKey } of s.store.list("staging/")) {
      listed.push(objectKey);
      listedInTurn.set(turnsSoFar(), (listedInTurn.get(turnsSoFar()) ?? 0) + 1);
    }
  });
  const most = Math.max(...listedInTurn.values());
  assert.ok(most <= 2 * 256, `${most} in one turn`);
  assert.deepEqual(listed, keys.sort());
});
