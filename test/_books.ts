import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type Database from "better-sqlite3";

/** An object as it lies in the store, read without going through our own store's code. */
export interface RawObject {
  objectKey: string;
  sizeBytes: number;
}

/** The keys of all files under a data directory's store, from the raw folders. */
export async function rawDiskKeys(dataDir: string, installationId: string): Promise<string[]> {
  const keys: string[] = [];
  for (const place of ["staging", "final"]) {
    for (const entry of await readdir(join(dataDir, "objects", place), { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const [uploadId, random] = entry.name.split(".");
      keys.push(`${place}/${installationId}/${uploadId}/${random}`);
    }
  }
  return keys;
}

/**
 * Checks the invariants that the database alone can show, by hand: BOOKS, ONCE, ROW-FIRST. `sql` is a connection of its
 * own, so what it reads is committed.
 */
export function checkBooks(sql: Database.Database): void {
  const drifted = sql
    .prepare(`
      SELECT w.id, w.storage_bytes_used AS used, w.storage_bytes_quota AS quota,
             (SELECT coalesce(sum(bytes), 0) FROM storage_events e WHERE e.workspace_id = w.id) AS ledger,
             (SELECT coalesce(sum(size_bytes), 0) FROM uploads u WHERE u.workspace_id = w.id AND u.status = 'uploaded') AS confirmed,
             (SELECT balance_bytes FROM storage_events e WHERE e.workspace_id = w.id ORDER BY seq DESC LIMIT 1) AS balance
        FROM workspaces w
       WHERE used <> ledger OR used <> confirmed OR used < 0 OR used <> coalesce(balance, 0)`)
    .all();
  assert.deepEqual(drifted, [], "BOOKS: counter, ledger and confirmed uploads agree");
  const repeated = sql
    .prepare(
      "SELECT upload_id, kind, count(*) AS times FROM storage_events WHERE upload_id IS NOT NULL GROUP BY 1, 2 HAVING times > 1",
    )
    .all();
  assert.deepEqual(repeated, [], "ONCE: no upload is charged or released twice");
  const named = sql
    .prepare("SELECT r.object_key FROM object_removals r JOIN uploads u ON u.object_key = r.object_key")
    .all();
  assert.deepEqual(named, [], "ROW-FIRST: nothing that a row names is to be removed");
}

/** Checks NO-ORPHAN and NO-GHOST: `keys` are all objects that are really there. */
export function checkObjects(sql: Database.Database, keys: readonly string[]): void {
  const held = new Set(keys);
  const known = new Set(
    sql.prepare("SELECT object_key FROM uploads UNION ALL SELECT object_key FROM object_removals").pluck().all(),
  );
  assert.deepEqual(
    keys.filter((key) => !known.has(key)),
    [],
    "NO-ORPHAN: every object is named by a row or entered for removal",
  );
  const confirmed = sql.prepare<[], string>("SELECT object_key FROM uploads WHERE status = 'uploaded'").pluck().all();
  assert.deepEqual(
    confirmed.filter((key) => !held.has(String(key))),
    [],
    "NO-GHOST: every confirmed upload has its object",
  );
}
