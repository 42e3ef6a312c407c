import assert from "node:assert/strict";
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import type Database from "better-sqlite3";

/** An object as it lies in the store, read without going through our own store's code. */
export interface RawObject {
  objectKey: string;
  path: string;
}

/** All files under a data directory's store, from the raw folders. */
export function rawDiskObjects(dataDir: string, installationId: string): RawObject[] {
  const objects: RawObject[] = [];
  for (const place of ["staging", "final"]) {
    const folder = join(dataDir, "objects", place);
    // A service that never started has made none.
    if (!existsSync(folder)) continue;
    for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const [uploadId, random] = entry.name.split(".");
      const path = join(entry.parentPath, entry.name);
      objects.push({ objectKey: `${place}/${installationId}/${uploadId}/${random}`, path });
    }
  }
  return objects;
}

/** The keys of all files under a data directory's store, from the raw folders. */
export async function rawDiskKeys(dataDir: string, installationId: string): Promise<string[]> {
  return rawDiskObjects(dataDir, installationId).map(({ objectKey }) => objectKey);
}

/** The names of half-written files. */
export function rawTemporaryFiles(dataDir: string): string[] {
  const folder = join(dataDir, "objects", "tmp");
  return existsSync(folder) ? readdirSync(folder) : [];
}

/** Where the file of a key lies, worked out by hand: for tests that put one there, or look at its bytes. */
export function rawPathOf(dataDir: string, objectKey: string): string {
  const [place = "", , uploadId = "", random = ""] = objectKey.split("/");
  return join(dataDir, "objects", place, uploadId.slice(0, 5), uploadId.slice(5, 8), `${uploadId}.${random}`);
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
  const unpaired = sql
    .prepare(`
      SELECT e.upload_id, e.kind, u.status, c.bytes AS charged, r.bytes AS released
        FROM storage_events e
        LEFT JOIN uploads u ON u.id = e.upload_id
        LEFT JOIN storage_events c ON c.upload_id = e.upload_id AND c.kind = 'charge'
        LEFT JOIN storage_events r ON r.upload_id = e.upload_id AND r.kind = 'release'
       WHERE e.upload_id IS NOT NULL
         AND (c.seq IS NULL OR (u.id IS NULL) <> (r.seq IS NOT NULL) OR u.status = 'pending' OR c.bytes <> coalesce(-r.bytes, u.size_bytes))`)
    .all();
  assert.deepEqual(unpaired, [], "ONCE: each charge is of a confirmed upload, or has its release");
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

/**
 * Checks what the raw database and the raw files of a data directory say together: BOOKS, ONCE, ROW-FIRST, NO-ORPHAN, and
 * NO-GHOST down to the size and ETag that were charged. Nothing may be under way in the store.
 */
export function checkAll(sql: Database.Database, dataDir: string): void {
  checkBooks(sql);
  const installationId = sql.prepare<[], string>("SELECT id FROM installation").pluck().get() ?? "";
  const objects = rawDiskObjects(dataDir, installationId);
  checkObjects(
    sql,
    objects.map(({ objectKey }) => objectKey),
  );
  const charged = new Map(
    sql
      .prepare<[], { objectKey: string; etag: string }>(
        "SELECT object_key AS objectKey, etag FROM uploads WHERE status = 'uploaded'",
      )
      .all()
      .map(({ objectKey, etag }) => [objectKey, etag]),
  );
  for (const { objectKey, path } of objects) {
    const etag = charged.get(objectKey);
    if (etag === undefined) continue;
    const { size, mtimeNs } = statSync(path, { bigint: true });
    const found = `"${size.toString(16)}-${(mtimeNs / 1000n).toString(16)}"`;
    assert.equal(found, etag, `NO-GHOST: the object of ${objectKey} is the one that was charged`);
  }
}

/** What should be left when nothing is left to do: the files of confirmed uploads, no entry, nothing half-written. */
export function checkDrained(sql: Database.Database, dataDir: string): void {
  checkAll(sql, dataDir);
  const entries = sql.prepare("SELECT object_key, attempts, last_error FROM object_removals").all();
  assert.deepEqual(entries, [], "nothing is left to be removed");
  const installationId = sql.prepare<[], string>("SELECT id FROM installation").pluck().get() ?? "";
  const confirmed = sql.prepare("SELECT object_key FROM uploads WHERE status = 'uploaded' ORDER BY 1").pluck().all();
  const files = rawDiskObjects(dataDir, installationId).map(({ objectKey }) => objectKey);
  const pending = sql.prepare("SELECT object_key FROM uploads WHERE status = 'pending'").pluck().all();
  assert.deepEqual(
    files.filter((key) => !pending.includes(key)).sort(),
    confirmed,
    "the files left are exactly the confirmed ones",
  );
  assert.deepEqual(rawTemporaryFiles(dataDir), [], "nothing half-written is left");
}
