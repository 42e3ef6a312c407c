import assert from "node:assert/strict";
import { test } from "node:test";
import { childText, escapeXml, parseXml } from "../lib/store/s3/xml.ts";

const ANSWER = `<?xml version="1.0" encoding="UTF-8"?>
<DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
  <Deleted><Key>final/a&amp;b&#34;&#x6e2c;</Key></Deleted>
  <!-- a comment with <tags> --><Error><Key>00123</Key><Code>AccessDenied</Code><Message/></Error>
</DeleteResult>
`;

test("an answer is read with its entities, and what looks like a number stays text", () => {
  const root = parseXml(ANSWER);
  assert.equal(root.name, "DeleteResult");
  const [deleted, error] = root.children;
  assert.ok(deleted && error);
  assert.equal(childText(deleted, "Key"), 'final/a&b"測');
  assert.equal(childText(error, "Key"), "00123");
  assert.equal(childText(error, "Message"), "");
  assert.equal(childText(error, "VersionId"), null);
});

test("an answer that is cut short at any character is refused", () => {
  const whole = ANSWER.trimEnd();
  for (let length = 0; length < whole.length; length++) {
    assert.throws(() => parseXml(whole.slice(0, length)), `cut after ${length} characters`);
  }
});

test("what is no document, or more than one, is refused", () => {
  for (const text of [
    "",
    "  \n",
    "OK",
    "{}",
    '{"deleted":[]}',
    "<html><body><p>502 Bad Gateway<br></body></html>",
    "<!DOCTYPE html><html></html>",
    '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>',
    "<a></a><b></b>",
    "<a></a>trailing",
    "<a><b></a></b>",
    "</a>",
    "<a>&unknown;</a>",
    "<a>&#x110000;</a>",
    "<a>a & b</a>",
    "<a",
    "<>",
    "<a>".repeat(1_000) + "</a>".repeat(1_000),
  ]) {
    assert.throws(() => parseXml(text), JSON.stringify(text.slice(0, 40)));
  }
});

test("namespaces, empty elements, CDATA and a byte order mark are understood", () => {
  const root = parseXml("\ufeff<s3:R xmlns:s3=\"u\" a='x'><s3:E/><E ></E ><T><![CDATA[a<b&c]]>d</T></s3:R>");
  assert.deepEqual(
    root.children.map(({ name, text }) => [name, text]),
    [
      ["E", ""],
      ["E", ""],
      ["T", "a<b&cd"],
    ],
  );
});

test("escaped text comes back as it was", () => {
  const text = `a<b>&"c'&amp;]]>測`;
  assert.equal(parseXml(`<K>${escapeXml(text)}</K>`).text, text);
});
