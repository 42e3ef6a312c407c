import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import type { Answer, Call, TestAppOptions } from "./_app.ts";
import { type FaultyApp, startFaultyApp } from "./_faulty_app.ts";

export const UPLOADS = "/api/v1/uploads";
/** What a create asks for. */
export const FILE = { filename: "file.bin", category: "file" };
/** Why a key that came with another request is refused. */
export const OTHER_REQUEST = /it came with another request before: send a new key/;

export interface KeyedApp extends FaultyApp {
  /** Sends a request with an Idempotency-Key. */
  keyed: (idempotencyKey: string, method: string, path: string, call?: Call) => Promise<Answer>;
  create: (idempotencyKey: string, body?: unknown) => Promise<Answer>;
  /** Confirms into the workspace itself. */
  confirmAs: (idempotencyKey: string, id: string) => Promise<Answer>;
  deleteAs: (idempotencyKey: string, id: string) => Promise<Answer>;
  count: (table: "uploads" | "idempotency_keys" | "storage_events") => unknown;
}

/** A real service, and the three requests that may be repeated. */
export async function startKeyedApp(t: TestContext, options: TestAppOptions = {}): Promise<KeyedApp> {
  const its = await startFaultyApp(t, options);
  const keyed: KeyedApp["keyed"] = (idempotencyKey, method, path, call = {}) =>
    its.call(method, path, { ...call, headers: { ...call.headers, "Idempotency-Key": idempotencyKey } });
  return {
    ...its,
    keyed,
    create: (idempotencyKey, body = FILE) => keyed(idempotencyKey, "POST", UPLOADS, { body }),
    confirmAs: (idempotencyKey, id) =>
      keyed(idempotencyKey, "POST", `${UPLOADS}/${id}`, {
        body: { context_type: "workspace", context_id: its.owner.workspaceId },
      }),
    deleteAs: (idempotencyKey, id) => keyed(idempotencyKey, "DELETE", `${UPLOADS}/${id}`),
    count: (table) => its.sql.prepare(`SELECT count(*) FROM ${table}`).pluck().get(),
  };
}

/** Asserts that a request was refused for its key alone. */
export function assertKeyRefused(answer: Answer, message: RegExp): void {
  assert.equal(answer.status, 422, answer.text);
  assert.equal(answer.json.error.code, "VALIDATION_ERROR");
  assert.equal(answer.json.error.details[0].field, "Idempotency-Key");
  assert.match(answer.json.error.message, /^Invalid Idempotency-Key: /);
  assert.match(answer.json.error.message, message);
}
