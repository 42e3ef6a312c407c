import assert from "node:assert/strict";
import { statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import type Database from "better-sqlite3";
import { checkBooks, checkObjects, rawDiskObjects, rawTemporaryFiles } from "./_books.ts";

/** An object as it lies in the store, found and read without our own store's code. */
export interface RawObject {
  objectKey: string;
  sizeBytes: number;
  /** With its quotes, as it is charged. */
  etag: string;
  read: () => Promise<Buffer>;
}

export interface RawStore {
  /** Everything that is there, but for the marker of the ledger. */
  objects: () => Promise<RawObject[]>;
  /** The names of what is half-written. */
  halfWritten: () => string[];
}

export function rawDiskStore(dataDir: string, sql: Database.Database): RawStore {
  const installationId = installationOf(sql);
  return {
    objects: async () =>
      rawDiskObjects(dataDir, installationId).map(({ objectKey, path }) => {
        const { size, mtimeNs } = statSync(path, { bigint: true });
        const etag = `"${size.toString(16)}-${(mtimeNs / 1000n).toString(16)}"`;
        return { objectKey, sizeBytes: Number(size), etag, read: () => readFile(path) };
      }),
    halfWritten: () => rawTemporaryFiles(dataDir),
  };
}

/**
 * Checks what the raw database and the raw store say together: BOOKS, ONCE, ROW-FIRST, NO-ORPHAN, and NO-GHOST down to the
 * size and ETag that were charged. Nothing may be under way in the store. `alone` may stand without a row or an entry.
 */
export async function checkRaw(sql: Database.Database, store: RawStore, alone: readonly string[] = []): Promise<void> {
  checkBooks(sql);
  const standsAlone = new Set(alone);
  const objects = (await store.objects()).filter(({ objectKey }) => !standsAlone.has(objectKey));
  checkObjects(
    sql,
    objects.map(({ objectKey }) => objectKey),
  );
  const found = new Map(objects.map((object) => [object.objectKey, object]));
  for (const { objectKey, sizeBytes, etag } of charged(sql)) {
    const object = found.get(objectKey);
    assert.deepEqual(
      [object?.sizeBytes, object?.etag],
      [sizeBytes, etag],
      `NO-GHOST: the object of ${objectKey} is the one that was charged`,
    );
  }
}

/** What should be left when nothing is left to do: the objects of confirmed uploads, no entry, nothing half-written. */
export async function checkRawDrained(sql: Database.Database, store: RawStore): Promise<void> {
  await checkRaw(sql, store);
  const entries = sql.prepare("SELECT object_key, attempts, last_error FROM object_removals").all();
  assert.deepEqual(entries, [], "nothing is left to be removed");
  const pending = sql.prepare("SELECT object_key FROM uploads WHERE status = 'pending'").pluck().all();
  const keys = (await store.objects()).map(({ objectKey }) => objectKey).filter((key) => !pending.includes(key));
  const confirmed = charged(sql).map(({ objectKey }) => objectKey);
  assert.deepEqual(keys.sort(), confirmed.sort(), "the objects left are exactly the confirmed ones");
  assert.deepEqual(store.halfWritten(), [], "nothing half-written is left");
}

export function installationOf(sql: Database.Database): string {
  return sql.prepare<[], string>("SELECT id FROM installation").pluck().get() ?? assert.fail();
}

function charged(sql: Database.Database) {
  return sql
    .prepare<[], { objectKey: string; sizeBytes: number; etag: string }>(
      "SELECT object_key AS objectKey, size_bytes AS sizeBytes, etag FROM uploads WHERE status = 'uploaded'",
    )
    .all();
}
