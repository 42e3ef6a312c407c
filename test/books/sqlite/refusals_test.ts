// Goal: the texts by which the program recognises a refusal are those that the schema's triggers raise.
import assert from "node:assert/strict";
import { test } from "node:test";
import { readAsset } from "../../../lib/assets.ts";
import { REFUSALS } from "../../../lib/books/sqlite/refusals.ts";

test("each refusal that the program recognises is raised by the schema", () => {
  const raised = [...readAsset("schema.sql").matchAll(/RAISE\(ABORT, '([^']+)'\)/g)].map(([, text]) => text);
  for (const text of Object.values(REFUSALS)) assert.ok(raised.includes(text), text);
});
