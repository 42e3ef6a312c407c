import assert from "node:assert/strict";
import { test } from "node:test";
import * as z from "zod";
import { describeRoutes } from "../../lib/api/table.ts";
import { bodySchemaOf, ErrorEnvelope } from "../../lib/api/wire/envelope.ts";
import { startTestApp } from "../help/app.ts";
import { createResponseCheck } from "../help/response_check.ts";

// Goal: the route table is true, and a document can be printed from it.
// Method: every response of the tests' clients is checked against it (test/help/response_check.ts); here the check itself is
// given responses that break it, and each schema is made a JSON schema.

const ROWS = describeRoutes({ maxUploadBytes: 1_000, store: "disk", metricsPort: null });

test("every row has a name of its own, a summary, and no error twice", () => {
  const ids = ROWS.map(({ operationId }) => operationId);
  assert.equal(new Set(ids).size, ids.length);
  for (const { operationId, summary, errors } of ROWS) {
    assert.match(operationId, /^[a-z][A-Za-z]+$/);
    assert.match(summary, /^[A-Z].*[^.]$/);
    assert.equal(new Set(errors).size, errors.length, operationId);
  }
});

test("only what changes an upload is repeatable with an Idempotency-Key", () => {
  const repeatable = ROWS.flatMap((row) => (row.kind === "json" && row.isRepeatable ? [row.operationId] : []));
  assert.deepEqual(repeatable, ["createUpload", "confirmUpload", "deleteUpload"]);
});

test("every schema can be printed as a JSON schema, and no response takes unknown fields", () => {
  const printed = (schema: z.ZodType, io: "input" | "output") => z.toJSONSchema(schema, { io, unrepresentable: "any" });
  for (const row of ROWS) {
    if (row.kind === "raw") continue;
    for (const input of [row.params, row.query, row.body]) if (input !== undefined) printed(input, "input");
    assert.equal(printed(bodySchemaOf(row), "output").additionalProperties, false, row.operationId);
  }
  assert.equal(printed(ErrorEnvelope, "output").additionalProperties, false);
});

test("the check sees a missing field, an unknown one, a wrong status, and a code that the row does not list", async (t) => {
  const { call, createUpload } = await startTestApp(t);
  const { id } = await createUpload();
  const target = `/api/v1/uploads/${id}`;
  const shown = await call("GET", target);
  const missing = await call("GET", `/api/v1/uploads/${crypto.randomUUID()}`);
  const check = createResponseCheck({ store: "disk", metricsPort: null });
  const given = (json: object, status: number, method = "GET") => {
    const contentType = "application/json; charset=utf-8";
    return () => check({ method, target, status, contentType, text: JSON.stringify(json) });
  };
  given(shown.json, 200)();
  given(missing.json, 404)();

  const { filename: _, ...incomplete } = shown.json.data;
  assert.throws(given({ ...shown.json, data: incomplete }, 200), /filename/);
  assert.throws(given({ ...shown.json, data: { ...shown.json.data, etag: "x" } }, 200), /etag/);
  assert.throws(given({ ...shown.json, more: 1 }, 200), /more/);
  assert.throws(given(shown.json, 201), /201/);
  assert.throws(given(missing.json, 403), /the status of NOT_FOUND/);
  const failure = (code: string) => ({ ...missing.json, error: { ...missing.json.error, code } });
  assert.throws(given(failure("CONFLICT"), 409), /does not list conflict/);
  assert.throws(given(failure("NO_SUCH_CODE"), 404), /NO_SUCH_CODE|code/);
  assert.throws(given({ error: missing.json.error }, 404), /meta/);
});
