import assert from "node:assert/strict";
import { test } from "node:test";
import { countText, type TextCounts } from "../lib/core/text_counts.ts";

async function* inChunks(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let i = 0; i < bytes.length; i += size) yield bytes.subarray(i, i + size);
}

function count(text: string | Uint8Array, chunkBytes = 64 * 1024): Promise<TextCounts | null> {
  return countText(inChunks(typeof text === "string" ? Buffer.from(text) : text, chunkBytes));
}

/** The contract's definition, word by word, with the whole text in memory. */
function countWhole(text: string): TextCounts {
  const lines = text
    .replace(/^\ufeff/, "")
    .split(/\r\n|\r|\n/)
    .map((line) => line.replace(/^\p{White_Space}+|\p{White_Space}+$/gu, ""))
    .filter((line) => line !== "");
  return { charCount: lines.reduce((sum, line) => sum + [...line].length, 0), lineCount: lines.length };
}

test("the contract's example counts 10 characters in 2 lines", async () => {
  assert.deepEqual(await count("  hello \n\n wörld\r\n"), { charCount: 10, lineCount: 2 });
});

test("code points count, of trimmed lines; blank lines and line ends count nothing", async () => {
  for (const [text, charCount, lineCount] of [
    ["", 0, 0],
    ["\n\r\n \t \n", 0, 0],
    ["a", 1, 1],
    ["a\rb\nc\r\nd", 4, 4],
    ["\ufeff", 0, 0],
    ["\ufeffa b\n", 3, 1],
    ["👍🏽", 2, 1],
    ["e\u0301", 2, 1],
    ["a\0b", 3, 1],
    ["\u3000 全角 \u00a0", 2, 1],
    ["a \u2003 b", 5, 1],
    ["\u0085a\u0085", 1, 1],
    ["a\u000b\u000c", 1, 1],
  ] as const) {
    assert.deepEqual(await count(text), { charCount, lineCount }, JSON.stringify(text));
  }
});

test("however the bytes are cut, the counts are those of the whole text", async () => {
  const alphabet = [
    "a",
    " ",
    "\n",
    "\r",
    "\t",
    "\u00a0",
    "\u0085",
    "\u3000",
    "\u2028",
    "\ufeff",
    "é",
    "한",
    "👍",
    "\u200d",
    "\0",
  ];
  // A small generator of its own: the texts are the same in every run.
  let state = 12_345;
  const random = (below: number): number => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
    return Math.floor((state / 2 ** 31) * below);
  };
  for (let round = 0; round < 150; round++) {
    const text = Array.from({ length: random(40) }, () => alphabet[random(alphabet.length)]).join("");
    const expected = countWhole(text);
    for (const chunkBytes of [1, 2, 3, 7, 1_000]) {
      assert.deepEqual(await count(text, chunkBytes), expected, JSON.stringify(text));
    }
  }
});

test("every space of Unicode is trimmed and no other character is", async () => {
  const chars = Array.from({ length: 0xffff }, (_, i) => String.fromCharCode(i + 1)).filter(
    (char) => char.isWellFormed() && char !== "\n" && char !== "\r",
  );
  const isSpace = (char: string): boolean => /\p{White_Space}/u.test(char);
  const counted = (some: string[]) => count(`\n${some.map((char) => `${char}x${char}`).join("\n")}`);
  const [spaces, others] = [chars.filter(isSpace), chars.filter((char) => !isSpace(char))];
  assert.deepEqual(await counted(spaces), { charCount: spaces.length, lineCount: spaces.length });
  assert.deepEqual(await counted(others), { charCount: 3 * others.length, lineCount: others.length });
});

test("what is not UTF-8 has no counts, and is no error", async () => {
  for (const bytes of [
    [0xff],
    [0x61, 0x0a, 0xc3],
    [0xed, 0xa0, 0x80],
    [0xc0, 0x80],
    [...Buffer.from("\ufeffhello", "utf16le")],
    [...Buffer.from("na\xefve", "latin1")],
  ]) {
    for (const chunkBytes of [1, 100]) assert.equal(await count(Uint8Array.from(bytes), chunkBytes), null);
  }
});

test("a stream that fails rejects: its counts are not taken for the file's", async () => {
  async function* failing(): AsyncGenerator<Uint8Array> {
    yield Buffer.from("abc");
    throw new Error("the disk is gone");
  }
  await assert.rejects(countText(failing()), /the disk is gone/);
});

test("a line of any length is counted without being held", async () => {
  async function* oneLine(): AsyncGenerator<Uint8Array> {
    const spaces = Buffer.alloc(1024 * 1024, " ");
    for (let i = 0; i < 16; i++) yield spaces;
    yield Buffer.from("x");
    for (let i = 0; i < 16; i++) yield spaces;
    yield Buffer.from("y");
  }
  assert.deepEqual(await countText(oneLine()), { charCount: 16 * 1024 * 1024 + 2, lineCount: 1 });
});
