import assert from "node:assert/strict";
import { test } from "node:test";
import { type Category, fileType } from "../lib/core/file_types.ts";
import { AppError } from "../lib/errors.ts";

/** The refusal of a name; fails where it is accepted. */
function refusal(filename: string, category: Category): AppError {
  try {
    const accepted = fileType(filename, category);
    assert.fail(`${JSON.stringify(filename)} was accepted as ${JSON.stringify(accepted)}`);
  } catch (error) {
    assert.ok(error instanceof AppError, String(error));
    assert.equal(error.code, "validation_error");
    assert.equal(error.details?.[0]?.field, "filename");
    return error;
  }
}

test("a script's or dictionary's type comes from its extension, in any case of letters", () => {
  for (const [category, extension, contentType] of [
    ["script", "txt", "text/plain"],
    ["script", "pdf", "application/pdf"],
    ["script", "srt", "application/x-subrip"],
    ["script", "csv", "text/csv"],
    ["script", "json", "application/json"],
    ["script", "xliff", "application/xliff+xml"],
    ["script", "docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"],
    ["dictionary", "mp3", "audio/mpeg"],
    ["dictionary", "wav", "audio/wav"],
    ["dictionary", "m4a", "audio/mp4"],
    ["dictionary", "ogg", "audio/ogg"],
    ["dictionary", "webm", "audio/webm"],
  ] as const) {
    for (const filename of [`a.${extension}`, `한글 파일.${extension.toUpperCase()}`, `archive.zip.${extension}`]) {
      assert.deepEqual(fileType(filename, category), { filename, contentType, format: extension });
    }
  }
});

test("another extension, or none, is refused with the list of those that are taken", () => {
  for (const filename of [
    "noext",
    "a.exe",
    "a.mp3",
    ".txt",
    "..txt",
    "a.txt.",
    "a.txt..",
    "a.t xt",
    "txt",
    "a.txt.exe",
  ]) {
    const error = refusal(filename, "script");
    assert.match(error.message, /^Invalid filename: .*\.txt, \.pdf, \.srt, \.csv, \.json, \.xliff, \.docx; .*"file"/);
  }
  assert.match(refusal("a.txt", "dictionary").message, /\.mp3, \.wav, \.m4a, \.ogg, \.webm/);
  for (const filename of ["a..txt", " a.txt ", "a .txt", "…txt.txt", "~$a.txt", "a.txt\t"]) {
    assert.equal(fileType(filename, "script").format, "txt", filename);
  }
});

test("a file takes any extension or none; what is not known is an octet stream", () => {
  for (const [filename, contentType, format] of [
    ["a.png", "image/png", "png"],
    ["a.HTML", "text/html", "html"],
    ["a.tar.gz", "application/gzip", "gz"],
    ["a.txt", "text/plain", "txt"],
    ["Makefile", "application/octet-stream", null],
    [".profile", "application/octet-stream", null],
    ["a.", "application/octet-stream", null],
    ["a. b", "application/octet-stream", null],
    ["a.nobodyknows", "application/octet-stream", "nobodyknows"],
    ["a.constructor", "application/octet-stream", "constructor"],
    ["a.__proto__", "application/octet-stream", "__proto__"],
    ["a.한글", "application/octet-stream", "한글"],
  ] as const) {
    assert.deepEqual(fileType(filename, "file"), { filename, contentType, format });
  }
});

test("of a path the last part is kept, with either kind of separator", () => {
  for (const raw of ["../../etc/cron.txt", "C:\\fakepath\\cron.txt", "/cron.txt", "a/b\\cron.txt", "..\\cron.txt"]) {
    assert.equal(fileType(raw, "script").filename, "cron.txt", raw);
  }
  for (const raw of ["a/", "a\\", "/", "\\", "a.txt/", "a/..", "a/.", "./"]) refusal(raw, "file");
});

test("control characters and those that reorder or hide text are taken out", () => {
  for (const raw of [
    "a\0.txt",
    "\u001ba.txt",
    "a\n.txt\r\n",
    "a\u0085.txt",
    "a\u007f.txt",
    "\u202ea.txt",
    "a\u2066.\u2069txt",
    "a\u200e.\u200ftxt",
    "a\u061c.txt",
    "\ufeffa.txt",
    "a\u200b.txt",
    "a\u2028.txt\u2029",
    "a\u00ad.txt",
    "a\u{e0001}.txt",
  ]) {
    assert.equal(fileType(raw, "script").filename, "a.txt", JSON.stringify(raw));
  }
  // What only looked like a script is judged by what it is.
  refusal("a\u202etxt.exe", "script");
  refusal("a.txt\u200b.exe", "script");
});

test("letters, joined words, emoji and spaces inside stay, in composed form", () => {
  for (const filename of [
    "Ünï cödé  ß.txt",
    "می‌خواهم.txt",
    "👩‍👩‍👧‍👦 🇰🇷 ❤️.txt",
    "日本語.txt",
    "a'\"<>|?*:;&$`.txt",
    "%2e%2e%2f.txt",
  ]) {
    assert.equal(fileType(filename, "script").filename, filename.normalize("NFC"));
  }
  const decomposed = "e\u0301\u1112\u1161\u11ab.txt";
  assert.equal(fileType(decomposed, "script").filename, "\u00e9\ud55c.txt");
});

test("a name has 1 to 255 characters, counted as code points, and something to see", () => {
  const longest = `${"👍".repeat(251)}.txt`;
  assert.equal(fileType(longest, "script").filename, longest);
  assert.equal(fileType(`${"e\u0301".repeat(251)}.txt`, "script").filename, `${"é".repeat(251)}.txt`);
  assert.match(refusal(`👍${longest}`, "script").message, /1 to 255 characters/);
  assert.match(refusal("\u0958".repeat(200), "file").message, /1 to 255 characters/, "composing may lengthen");
  for (const raw of [
    "",
    " ",
    "\t\n",
    ".",
    "..",
    "...",
    ". .",
    "\0",
    "\u202e",
    "\u200d",
    "\u00a0",
    "\u3000",
    "\ufeff",
  ]) {
    assert.match(refusal(raw, "file").message, /1 to 255 characters/, JSON.stringify(raw));
  }
  for (const raw of ["\ud800.txt", "a\udc00.txt", "\udc00\ud800.txt"]) {
    assert.match(refusal(raw, "script").message, /surrogate/);
  }
});
