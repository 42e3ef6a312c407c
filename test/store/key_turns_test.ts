import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { createKeyTurns } from "../../lib/store/disk/key_turns.ts";

test("what is done under one key happens one after the other, also after a failure; other keys do not wait", async () => {
  const inTurn = createKeyTurns();
  const done: string[] = [];
  const gates = new Map<string, PromiseWithResolvers<void>>();

  function start(key: string, name: string): Promise<string> {
    const gate = Promise.withResolvers<void>();
    gates.set(name, gate);
    return inTurn(key, async () => {
      done.push(`${name} begins`);
      await gate.promise;
      done.push(`${name} ends`);
      return name;
    });
  }

  const [first, second, third] = [start("a", "1"), start("a", "2"), start("a", "3")];
  const other = start("b", "4");
  await turn();
  assert.deepEqual(done, ["1 begins", "4 begins"], "the first under each key begins at once");
  gates.get("4")?.resolve();
  gates.get("3")?.resolve();
  assert.equal(await other, "4");
  gates.get("1")?.reject(new Error("1 fails"));
  await assert.rejects(first, /1 fails/);
  gates.get("2")?.resolve();
  assert.equal(await second, "2");
  assert.equal(await third, "3");
  assert.deepEqual(done, ["1 begins", "4 begins", "4 ends", "2 begins", "2 ends", "3 begins", "3 ends"]);
});
