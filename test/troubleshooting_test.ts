// Goal: the page "When something went wrong" takes an operator from a symptom to its cure.
// Method: for each block of commands on the page an installation of the real program is broken in that way, the block is
// run as it stands, and the service must then do what the page says. A block without a case here fails.
import assert from "node:assert/strict";
import { test } from "node:test";
import { blocksOfPage, casesOfPage, cureOf } from "./_troubleshooting.ts";
import { BOOKS_CASES } from "./_troubleshooting_books.ts";
import { STORE_CASES } from "./_troubleshooting_store.ts";

const CASES = [...BOOKS_CASES, ...STORE_CASES];

test("each block of commands on the page is a case that is played here, and each case is on the page", () => {
  const setupBlocks = 1;
  assert.equal(casesOfPage().length + setupBlocks, blocksOfPage(), "each block has its `<!-- case: NAME -->`");
  assert.deepEqual(CASES.map(({ name }) => name).sort(), casesOfPage().sort());
});

for (const { name, play } of CASES) {
  test(`the page's commands work as they stand: ${name}`, async (t) => {
    const cure = cureOf(name);
    await play(t, cure);
    // A case that was skipped loudly has not come so far.
    assert.ok(cure.wasRun() || process.getuid?.() !== 0, "its commands were run");
  });
}
