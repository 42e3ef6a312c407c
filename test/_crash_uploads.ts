import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import type Database from "better-sqlite3";
import type { Owner } from "./_app.ts";
import type { RawObject } from "./_raw_store.ts";

/** An upload as the answers tell it. What was asked for and not answered may have been done or not. */
export interface Tracked {
  id: string;
  owner: Owner;
  uploadUrl: string;
  state: "pending" | "uploaded" | "deleted";
  /** The numbers of the bodies that it may have: one, as far as answers tell. */
  bodies: number[];
  /** Whether it may have none: no PUT was ever answered. */
  mayBeEmpty: boolean;
  mayBeConfirmed: boolean;
  mayBeDeleted: boolean;
}

export function newlyTracked(id: string, owner: Owner, uploadUrl: string): Tracked {
  const unasked = { bodies: [], mayBeEmpty: true, mayBeConfirmed: false, mayBeDeleted: false };
  return { id, owner, uploadUrl, state: "pending", ...unasked };
}

const HEADER_BYTES = 8;
const SIZES = [8, 9, 200, 200, 1_000, 5_000, 20_000, 150_000] as const;

/** A body that can be told from every other by its first bytes, and compared to the last. */
export function bodyOf(number: number): Buffer {
  const size = SIZES[number % SIZES.length] ?? HEADER_BYTES;
  const body = createHash("shake256", { outputLength: size }).update(String(number)).digest();
  body.writeBigUInt64BE(BigInt(number));
  return body;
}

/** The number of the body that an object holds. Fails where it is not whole. */
function bodyIn(bytes: Buffer, what: string): number {
  assert.ok(bytes.length >= HEADER_BYTES, `${what} is cut off`);
  const number = Number(bytes.readBigUInt64BE());
  assert.ok(bytes.equals(bodyOf(number)), `${what} is not whole`);
  return number;
}

interface Row {
  id: string;
  status: "pending" | "uploaded";
  sizeBytes: number | null;
  objectKey: string;
}

export function readRows(sql: Database.Database): Map<string, Row> {
  const rows = sql
    .prepare<[], Row>("SELECT id, status, size_bytes AS sizeBytes, object_key AS objectKey FROM uploads")
    .all();
  return new Map(rows.map((row) => [row.id, row]));
}

/**
 * Checks one upload against the raw database and store (NO-LOSS, NO-GHOST), and takes over what is true now where no
 * answer had told. Returns whether that was so.
 */
export async function judge(
  upload: Tracked,
  row: Row | undefined,
  objects: ReadonlyMap<string, RawObject>,
): Promise<boolean> {
  const { id, state, bodies } = upload;
  if (row === undefined) {
    assert.ok(state === "deleted" || upload.mayBeDeleted, `NO-LOSS: ${id} is gone, and nobody had asked for that`);
    return settle(upload, "deleted", null);
  }
  assert.notEqual(state, "deleted", `NO-LOSS: ${id} is back after its delete was answered`);
  const object = objects.get(row.objectKey);
  const isThere = object !== undefined;
  if (row.status === "pending") {
    assert.equal(state, "pending", `NO-LOSS: ${id} is pending again after its confirm was answered`);
    assert.ok(isThere || upload.mayBeEmpty, `NO-LOSS: what was PUT to ${id}, and answered, is gone`);
  } else {
    assert.ok(state === "uploaded" || upload.mayBeConfirmed, `${id} is confirmed, and nobody had asked for that`);
    assert.ok(isThere, `NO-GHOST: the object of ${id} is not there`);
  }
  const body = isThere ? bodyIn(await object.read(), `the object of ${id}`) : null;
  assert.ok(body === null || bodies.includes(body), `${id} has body ${body}, not one of ${bodies.join(", ")}`);
  if (row.status === "uploaded")
    assert.equal(row.sizeBytes, bodyOf(body ?? 0).length, `BOOKS: ${id} is charged its size`);
  return settle(upload, row.status, body);
}

function settle(upload: Tracked, state: Tracked["state"], body: number | null): boolean {
  const isNews = upload.state !== state || (state === "pending" && upload.bodies.length > 1);
  upload.state = state;
  upload.bodies = body === null ? [] : [body];
  upload.mayBeEmpty = body === null;
  upload.mayBeConfirmed = false;
  upload.mayBeDeleted = false;
  return isNews;
}
