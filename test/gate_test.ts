import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { AppError } from "../lib/errors.ts";
import { createGate, type Gate } from "../lib/gate.ts";

const LONG_MS = 600_000;

/** Work that goes on until it is ended, and who does it now. */
function workers(gate: Gate) {
  const running: { owner: string; end: () => void }[] = [];
  const outcomes: Promise<unknown>[] = [];
  return {
    outcomes,
    begin(owner: string): void {
      const work = () =>
        new Promise<void>((resolve) => {
          running.push({ owner, end: resolve });
        });
      outcomes.push(gate(owner, work));
    },
    /** Ends the oldest work of an owner. */
    async end(owner: string): Promise<void> {
      const at = running.findIndex((work) => work.owner === owner);
      assert.notEqual(at, -1, `${owner} does nothing`);
      for (const { end } of running.splice(at, 1)) end();
      await nextTurn();
    },
    running: () => running.map(({ owner }) => owner).join(""),
  };
}

test("one owner gets half of the places, and the others find some for as long as there are any", async () => {
  const w = workers(createGate({ places: 8, waitMsMax: LONG_MS, refusal: "no" }));
  for (const owner of "aaaaaaaabbbbccd") w.begin(owner);
  await nextTurn();
  assert.equal(w.running(), "aaaabbcd");
  // One of a's: what b waits for is not free for it, because it holds as many as are free then.
  await w.end("a");
  assert.equal(w.running(), "aaabbcd");
  await w.end("a");
  assert.equal(w.running(), "aabbcdc", "c holds fewer than are free");
  while (w.running() !== "") await w.end(w.running()[0] ?? "");
  await Promise.all(w.outcomes);
});

test("among those who wait the owner with the fewest places is next, and equals take turns", async () => {
  const w = workers(createGate({ places: 2, waitMsMax: LONG_MS, refusal: "no" }));
  for (const owner of "abaaabbb") w.begin(owner);
  await nextTurn();
  assert.equal(w.running(), "ab");
  await w.end("a");
  await w.end("b");
  assert.equal(w.running(), "ab");
  const one = workers(createGate({ places: 1, waitMsMax: LONG_MS, refusal: "no" }));
  for (const owner of "xaaabbbc") one.begin(owner);
  await nextTurn();
  let order = "";
  while (one.running() !== "") {
    order += one.running();
    await one.end(one.running());
  }
  assert.equal(order, "xabcabab");
  while (w.running() !== "") await w.end(w.running()[0] ?? "");
});

test("who waits for too long is refused, has begun nothing, and takes no place later", async () => {
  const w = workers(createGate({ places: 1, waitMsMax: 20, refusal: "Too many at the moment" }));
  for (const owner of "aab") w.begin(owner);
  const [first, ...others] = w.outcomes;
  for (const refused of await Promise.allSettled(others)) {
    assert.ok(refused.status === "rejected" && refused.reason instanceof AppError);
    const { code, message, retryAfterSeconds } = refused.reason;
    assert.deepEqual([code, message, retryAfterSeconds], ["storage_unavailable", "Too many at the moment", 1]);
  }
  assert.equal(w.running(), "a");
  await w.end("a");
  await first;
  w.begin("c");
  await nextTurn();
  assert.equal(w.running(), "c");
  await w.end("c");
});

test("work that fails leaves its place, and without a limit nobody waits", async () => {
  const gate = createGate({ places: 1, waitMsMax: LONG_MS, refusal: "no" });
  await assert.rejects(
    gate("a", () => Promise.reject(new Error("failed"))),
    /failed/,
  );
  assert.equal(await gate("a", async () => 1), 1);
  const open = workers(createGate({ places: Number.POSITIVE_INFINITY, waitMsMax: LONG_MS, refusal: "no" }));
  for (const owner of "a".repeat(1_000)) open.begin(owner);
  await nextTurn();
  assert.equal(open.running().length, 1_000);
  while (open.running() !== "") await open.end("a");
});
