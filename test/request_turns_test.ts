import assert from "node:assert/strict";
import { test } from "node:test";
import { createRequestTurns } from "../lib/http/request_turns.ts";

function work(ms: number): void {
  for (const endMs = performance.now() + ms; performance.now() < endMs; );
}

/** Lets requests come in all at once, each of `workMs`, and resolves with their names in the order in which they were answered. */
async function answer(names: readonly string[], workMs: number, ownerOf: (name: string) => string): Promise<string[]> {
  const turns = createRequestTurns();
  const answered: string[] = [];
  await Promise.all(
    names.map(async (name) => {
      const turn = turns.enter(ownerOf(name));
      if (turn !== null) await turn;
      work(workMs);
      answered.push(name);
    }),
  );
  return answered;
}

test("a request begins at once while there is little to do", () => {
  assert.equal(createRequestTurns().enter("one"), null);
});

test("a tenant with many requests under way does not keep another's single one waiting", async () => {
  const flood = Array.from({ length: 100 }, (_, i) => `flood ${i}`);
  const answered = await answer([...flood, "single"], 1, (name) => name.slice(0, 5));
  assert.equal(answered.length, 101);
  const place = answered.indexOf("single");
  // The first eight begin at once; then the single one's owner has had the least.
  assert.ok(place <= 16, `it was number ${place + 1} of 101`);
});

test("the requests of one tenant keep their order", async () => {
  const names = Array.from({ length: 30 }, (_, i) => `request ${i}`);
  assert.deepEqual(await answer(names, 0.5, () => "one"), names);
});

test("after a flood requests begin at once again", async () => {
  const turns = createRequestTurns();
  await Promise.all(
    Array.from({ length: 20 }, async () => {
      await turns.enter("one");
      work(1);
    }),
  );
  await new Promise((resolve) => setImmediate(resolve));
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(turns.enter("one"), null);
});

test("while some wait, whoever comes takes a turn too, and the event loop goes on in between", async () => {
  const turns = createRequestTurns();
  let loops = 0;
  const count = (): void => {
    loops++;
    if (running) setImmediate(count);
  };
  let running = true;
  setImmediate(count);
  await Promise.all(
    Array.from({ length: 40 }, async () => {
      const turn = turns.enter("one");
      if (turn !== null) await turn;
      work(1);
    }),
  );
  running = false;
  // 40 ms of work in slices of 8 ms: not in one go.
  assert.ok(loops >= 4, `${loops} turns`);
});
