import assert from "node:assert/strict";
import { StoreError } from "../lib/store/objects.ts";

/** The StoreError that a call to a store is rejected with; fails the test where it is not. */
export async function failureOf(work: Promise<unknown>): Promise<StoreError> {
  try {
    await work;
  } catch (error) {
    assert.ok(error instanceof StoreError, `not a StoreError: ${error}`);
    return error;
  }
  assert.fail("It should have been rejected");
}
