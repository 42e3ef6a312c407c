// Goal: no text from outside holds the event loop for long, however it is made.
// Method: each regular expression in lib/ and each parser meets long texts that make a search go back and forth. What
// takes time in proportion to the text is a thousand times below the bound; what takes its square is far above.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { fileType } from "../lib/core/file_types.ts";
import { slugOf } from "../lib/core/slugs.ts";
import { codeOf } from "../lib/doctor/request.ts";
import { toStoreError } from "../lib/store/s3/errors.ts";
import { childText, parseXml } from "../lib/store/s3/xml.ts";

const LIB = fileURLToPath(new URL("../lib", import.meta.url));
/** Other work on the machine may hold up one run, or two. */
const RUNS_MAX = 5;

/** Patterns that are not linear, and why it does not matter: they meet no long text from outside. */
const EXEMPT: Record<string, string> = {
  "/\\/+$/": "settings: an administrator's own URL",
  "/-+$/": "slugs: the text was cut to 50 characters",
};

/** A regular expression's literal, where an expression can begin. */
const LITERAL = /(?<=[(,=:!&|?[{;]\s*)\/(?![*/])((?:[^/\\\n[]|\\.|\[(?:[^\]\\\n]|\\.)*\])+)\/([a-z]*)/g;

/** The shortest of a few runs, ended by the first that is within the bound. */
function fastestMs(work: () => unknown, boundMs: number): number {
  let bestMs = Number.POSITIVE_INFINITY;
  for (let run = 0; run < RUNS_MAX && bestMs > boundMs; run++) {
    const startedAtMs = performance.now();
    try {
      work();
    } catch {
      // A refusal is as good an end as any.
    }
    bestMs = Math.min(bestMs, performance.now() - startedAtMs);
  }
  return bestMs;
}

function patternsIn(folder: string): Map<string, { pattern: RegExp; file: string }> {
  const found = new Map<string, { pattern: RegExp; file: string }>();
  for (const file of readdirSync(folder, { recursive: true, encoding: "utf8" })) {
    if (!file.endsWith(".ts")) continue;
    const code = readFileSync(join(folder, file), "utf8")
      .split("\n")
      .filter((line) => !/^\s*(\*|\/\*|\/\/)/.test(line))
      .join("\n");
    for (const [, source = "", flags = ""] of code.matchAll(LITERAL)) {
      const pattern = new RegExp(source, flags);
      found.set(String(pattern), { pattern, file });
    }
  }
  return found;
}

test("no regular expression takes more than linear time on a long text", () => {
  const patterns = patternsIn(LIB);
  assert.ok(patterns.size > 40, `${patterns.size} patterns were found`);
  assert.ok(patterns.has("/^bearer +([^\\s]+) *$/i"));
  const chars = 20_000;
  const begins = ["", "a", "1", "bearer ", "bearer a", "https://", "https://a", "bytes=", "bytes=1", "application/a"];
  begins.push("application/", 'charset="', "a@", "[", "&", "a.", "<Code>", '"code":"', "op_live_", "attachment");
  const pumps = [..." a0A-./\\\"'<>&;:=@+*?#_%[](){},\t\né", "a.", ". ", "a-", "-a", "a b", "&a", "<C", "//", "a@"];
  for (const [name, { pattern, file }] of patterns) {
    if (EXEMPT[name] !== undefined) continue;
    for (const begin of begins) {
      for (const pump of pumps) {
        for (const end of ["\u0000", "\n!"]) {
          const text = begin + pump.repeat(chars / pump.length) + end;
          const ms = fastestMs(() => (pattern.global ? text.replace(pattern, "") : pattern.test(text)), 60);
          const what = `${name} in ${file} on ${JSON.stringify(begin)}, ${JSON.stringify(pump)} again and again`;
          assert.ok(ms <= 60, `${what}: ${Math.round(ms)} ms`);
        }
      }
    }
  }
});

const LONG = 200_000;

/** A piece again and again, until the text has `LONG` characters. */
function long(piece: string): string {
  return piece.repeat(Math.ceil(LONG / piece.length));
}

const XML_PIECES = [
  ...[
    " ",
    "a",
    "<",
    ">",
    "<a",
    "<a ",
    "<a b=",
    "<a/",
    "</",
    "</a",
    "<a:",
    "<!--",
    "<!-- -",
    "<![CDATA[",
    "<![CDATA[]]",
    "<?",
  ],
  ...[
    "&",
    "&a",
    "&#",
    "&#x",
    "&amp;",
    "&#38;",
    "]]>",
    "-->",
    "<a/>",
    "<a></a>",
    "<!---->",
    "<![CDATA[]]>",
    "<??>",
    "/",
    ":",
  ],
];

test("an XML answer is read, or refused, in linear time, whatever it holds", () => {
  const begins = ["", "<Error", "<Error ", "<Error><Code>", "<Error><!--", "<Error><![CDATA[", "<?", "</", "&"];
  for (const begin of begins) {
    for (const piece of XML_PIECES) {
      for (const end of ["", ">", "</Error>", "/>"]) {
        const text = begin + long(piece) + end;
        const ms = fastestMs(() => parseXml(text), 1_000);
        assert.ok(ms <= 1_000, `${begin}, ${piece} again and again, ${end}: ${Math.round(ms)} ms`);
      }
    }
  }
});

test("what is read from clients and stores takes linear time", () => {
  const marks = `a${"\u0301\u0323".repeat(LONG / 2)}`;
  const children = parseXml(`<r>${long("<a/>")}</r>`);
  const cases: [string, () => unknown][] = [
    ["a file's name of combining marks", () => fileType(marks, "file")],
    ["a file's name of dots", () => fileType(`${long(".")} `, "file")],
    ["a file's name of dots, as long as one may be", () => fileType(`${"a.".repeat(127)} `, "file")],
    ["a slug of a name of hyphens", () => slugOf(`${"-a".repeat(100)}!`)],
    ["a store's message", () => toStoreError("look", new Error(long(" \t")))],
    ["an answer without a code", () => codeOf(long("<Code>a"))],
    ["a child that is not there", () => childText(children, "b")],
    ["a listing's time", () => Date.parse(long("2026-01-01T00:00:00Z"))],
  ];
  for (const [what, work] of cases) {
    const ms = fastestMs(work, 1_000);
    assert.ok(ms <= 1_000, `${what}: ${Math.round(ms)} ms`);
  }
});
