import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { createFairGate } from "../lib/store/disk/fair_gate.ts";

/** Work that runs until it is told to end, and the order in which it began. */
function watchedWork() {
  const begun: string[] = [];
  const ends = new Map<string, () => void>();
  const work = (name: string) => (): Promise<void> => {
    begun.push(name);
    return new Promise((resolve) => ends.set(name, resolve));
  };
  async function end(name: string): Promise<void> {
    ends.get(name)?.();
    await turn();
  }
  return { begun, work, end };
}

test("an owner with many pieces of work waiting lets another's single one go next", async () => {
  const gate = createFairGate(2);
  const { begun, work, end } = watchedWork();
  for (let i = 0; i < 100; i++) void gate("many", work(`many ${i}`));
  void gate("few", work("few 0"));
  void gate("few", work("few 1"));
  void gate("one", work("one 0"));
  await turn();
  assert.deepEqual(begun, ["many 0", "many 1"]);
  for (const name of ["many 0", "many 1", "many 2", "few 0"]) await end(name);
  assert.deepEqual(begun.slice(2), ["many 2", "few 0", "one 0", "many 3"]);
  await end("one 0");
  assert.deepEqual(begun.slice(6), ["few 1"]);
});

test("work that fails gives its place back and tells why", async () => {
  const gate = createFairGate(1);
  await assert.rejects(
    gate("a", () => Promise.reject(new Error("broken"))),
    /broken/,
  );
  assert.equal(await gate("b", async () => "done"), "done");
  assert.equal(await gate("a", async () => "done"), "done");
});
