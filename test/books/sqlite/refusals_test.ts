// Goal: a refusal is recognised by its code, whatever its text says, and the schema raises each code that the program knows.
import assert from "node:assert/strict";
import { test } from "node:test";
import Database from "better-sqlite3";
import { readAsset } from "../../../lib/assets.ts";
import { isRefusal, REFUSALS } from "../../../lib/books/sqlite/refusals.ts";

test("the schema raises exactly the codes that the program knows", () => {
  const raised = [...readAsset("schema.sql").matchAll(/RAISE\(ABORT, '([a-z_]+): [^']+'\)/g)].map(([, code]) => code);
  assert.deepEqual(new Set(raised), new Set(REFUSALS));
});

test("a refusal is recognised by its code, whatever its text says", () => {
  const db = new Database(":memory:");
  const errorOf = (text: string): unknown => {
    db.exec(`DROP TABLE IF EXISTS t; CREATE TABLE t (x);
             CREATE TRIGGER refuse BEFORE INSERT ON t BEGIN SELECT RAISE(ABORT, '${text}'); END`);
    try {
      db.exec("INSERT INTO t VALUES (1)");
    } catch (error) {
      return error;
    }
    return assert.fail("the trigger lets it pass");
  };
  for (const code of REFUSALS) {
    assert.equal(isRefusal(errorOf(`${code}: some reason`), code), true);
    assert.equal(isRefusal(errorOf(`${code}: another reason`), code), true);
    for (const text of [`${code}s: some reason`, `not ${code}: some reason`, "some reason"]) {
      assert.equal(isRefusal(errorOf(text), code), false, text);
    }
    // Only a trigger's word counts.
    assert.equal(isRefusal(new Error(`${code}: some reason`), code), false);
  }
  db.close();
});
