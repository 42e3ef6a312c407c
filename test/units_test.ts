import assert from "node:assert/strict";
import { test } from "node:test";
import { formatSize, parseBytesPer10s, parseRatePerMin, parseSeconds, parseSize } from "../lib/units.ts";

test("a size is a number of bytes or has a decimal or binary unit, in any case", () => {
  for (const [text, bytes] of [
    ["0", 0],
    ["1048576", 1_048_576],
    ["12B", 12],
    ["5GB", 5_000_000_000],
    ["5 gb", 5_000_000_000],
    ["10GiB", 10_737_418_240],
    ["1.5KiB", 1_536],
    ["0.1GB", 100_000_000],
    ["2.001 kB", 2_001],
    ["9007199254740991", Number.MAX_SAFE_INTEGER],
    ["8191.999TiB", null],
    ["0.001GiB", null],
    ["9007199254740992", null],
    ["8193TiB", null],
    ["5G", null],
    ["5XB", null],
    ["-1", null],
    ["1e3", null],
    ["1,5GB", null],
    ["GB", null],
    [" 1", null],
    ["", null],
  ] as const) {
    assert.equal(parseSize(text), bytes, text);
  }
});

test("a duration is a number of seconds or has a unit", () => {
  for (const [text, seconds] of [
    ["900", 900],
    ["90s", 90],
    ["15m", 900],
    ["15 min", 900],
    ["1.5h", 5_400],
    ["7d", 604_800],
    ["0.5s", null],
    ["1w", null],
    ["PT15M", null],
    ["", null],
  ] as const) {
    assert.equal(parseSeconds(text), seconds, text);
  }
});

test("a rate is for the setting's own time or names another", () => {
  assert.deepEqual(["600", "600/min", "10/s", "3000/h"].map(parseRatePerMin), [600, 600, 600, 50]);
  assert.deepEqual(["100/h", "10/d", "1.5/s", "", "/s"].map(parseRatePerMin), [null, null, null, null, null]);
  assert.deepEqual(["10240", "1KiB/s", "0"].map(parseBytesPer10s), [10_240, 10_240, 0]);
  assert.deepEqual(["1KiB/h", "/s", "5000TiB/s"].map(parseBytesPer10s), [null, null, null]);
});

test("a size is shown as people read it and as the books count it", () => {
  assert.deepEqual([0, 1_023, 1_024, 1_536, 10_737_418_240, 5_000_000_000].map(formatSize), [
    "0 bytes",
    "1023 bytes",
    "1 KiB (1024 bytes)",
    "1.5 KiB (1536 bytes)",
    "10 GiB (10737418240 bytes)",
    "4.66 GiB (5000000000 bytes)",
  ]);
});
