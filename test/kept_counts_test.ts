import assert from "node:assert/strict";
import { test } from "node:test";
import { type Counted, createKeptCounts } from "../lib/core/kept_counts.ts";

const SHORT = { steps: 8, workMs: 5 };
const LONG = { steps: 9, workMs: 5 };

/** Counts from 1 on each time that it is asked. */
function counter(cost: Pick<Counted, "steps" | "workMs">): () => Promise<Counted> {
  let total = 0;
  return async () => ({ total: ++total, ...cost });
}

test("those who ask at once share one count; a short one is made anew, a long one is kept", async () => {
  const counts = createKeptCounts({ keptFactor: 1e6 });
  const [short, long] = [counter(SHORT), counter(LONG)];
  assert.deepEqual(
    await Promise.all([counts.get("s", short), counts.get("s", short), counts.get("l", long)]),
    [1, 1, 1],
  );
  assert.deepEqual(await Promise.all([counts.get("s", short), counts.get("l", long)]), [2, 1]);
  assert.equal(await counts.get("other", long), 2);
});

test("a long count is made anew after a time in proportion to its work", async () => {
  const counts = createKeptCounts({ keptFactor: 0 });
  const long = counter(LONG);
  assert.equal(await counts.get("l", long), 1);
  assert.equal(await counts.get("l", long), 2);
});

test("a count that failed is not kept", async () => {
  const counts = createKeptCounts({ keptFactor: 1e6 });
  await assert.rejects(
    counts.get("l", () => Promise.reject(new Error("no"))),
    /no/,
  );
  assert.equal(await counts.get("l", counter(LONG)), 1);
});

test("only so many counts are kept: of more the oldest goes", async () => {
  const counts = createKeptCounts({ keptFactor: 1e6, countsMax: 3 });
  const long = counter(LONG);
  for (const name of ["a", "b", "c", "d"]) await counts.get(name, long);
  assert.equal(counts.size(), 3);
  assert.equal(await counts.get("d", long), 4);
  assert.equal(await counts.get("b", long), 2);
  assert.equal(await counts.get("a", long), 5);
});
