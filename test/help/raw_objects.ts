import assert from "node:assert/strict";
import { existsSync, linkSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, utimesSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";

// The embedded store's objects as they lie on the disk, read and changed without our own store's code: rows in small.db,
// and files. Paths, tables and ETags are written down here a second time.

export interface RawDiskObject {
  objectKey: string;
  sizeBytes: number;
  /** With its quotes, as it is charged. */
  etag: string;
  read: () => Promise<Buffer>;
}

interface RawRow {
  objectKey: string;
  sizeBytes: number;
  stampUs: number;
  fileBeside: number;
  bytes: Buffer;
}

/**
 * Everything that lies in a data directory's store, but for the marker. A row counts before a file under the same key. A
 * sealed object that still has its staging key has the final key that its upload, or its entry for removal, names.
 */
export function rawDiskObjects(
  dataDir: string,
  installationId: string,
  books?: Database.Database | undefined,
): RawDiskObject[] {
  const objectsDir = join(dataDir, "objects");
  const finals = books === undefined ? inFile(join(dataDir, "stowage.db"), finalKeys) : finalKeys(books);
  const rows = rawRows(objectsDir).map((row) => {
    const finalKey = row.objectKey.replace(/^staging/, "final");
    return finals.has(finalKey) ? { ...row, objectKey: finalKey } : row;
  });
  const files = rawFiles(objectsDir, installationId);
  for (const { objectKey, fileBeside } of rows) {
    if (files.some((file) => file.objectKey === objectKey)) {
      assert.ok(objectKey.startsWith("staging/"), `the final object ${objectKey} lies in one place only`);
      assert.equal(fileBeside, 1, `the row of ${objectKey} knows of the file beside it`);
    }
  }
  const keys = new Set(rows.map(({ objectKey }) => objectKey));
  return [
    ...rows.map(({ objectKey, sizeBytes, stampUs, bytes }) => {
      assert.equal(bytes.length, sizeBytes, `the row of ${objectKey} has its bytes`);
      return { objectKey, sizeBytes, etag: etagOf(sizeBytes, stampUs), read: async () => bytes };
    }),
    ...files
      .filter(({ objectKey }) => !keys.has(objectKey))
      .map(({ objectKey, path }) => {
        const { size, mtimeNs } = statSync(path, { bigint: true });
        const etag = etagOf(size, mtimeNs / 1000n);
        return { objectKey, sizeBytes: Number(size), etag, read: async () => readFileSync(path) };
      }),
  ];
}

/** The keys of all objects in a data directory's store. */
export async function rawDiskKeys(dataDir: string, installationId: string): Promise<string[]> {
  return rawDiskObjects(dataDir, installationId).map(({ objectKey }) => objectKey);
}

/** The final keys that a row names, or that are entered for removal. */
function finalKeys(books: Database.Database): Set<string> {
  const select = books.prepare<[], string>(`
    SELECT object_key FROM uploads WHERE status = 'uploaded'
     UNION SELECT object_key FROM object_removals WHERE object_key LIKE 'final/%'`);
  return new Set(select.pluck().all());
}

/** The rows of a store's folder. */
export function rawRows(objectsDir: string): RawRow[] {
  const path = join(objectsDir, "small.db");
  if (!existsSync(path)) return [];
  return inFile(path, (sql) => {
    const rows = sql
      .prepare<[], RawRow>(`
        SELECT object_key AS objectKey, size_bytes AS sizeBytes, stamp_us AS stampUs, file_beside AS fileBeside, bytes
          FROM objects LEFT JOIN bodies ON id = body_id ORDER BY object_key`)
      .all();
    const bodies = sql.prepare("SELECT count(*) FROM bodies").pluck().get();
    assert.equal(bodies, rows.length, "no bytes are kept that no key names");
    return rows;
  });
}

function rawFiles(objectsDir: string, installationId: string): { objectKey: string; path: string }[] {
  const found: { objectKey: string; path: string }[] = [];
  for (const place of ["staging", "final"]) {
    const folder = join(objectsDir, place);
    // A service that never started has made none.
    if (!existsSync(folder)) continue;
    for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const [uploadId, random] = entry.name.split(".");
      const path = join(entry.parentPath, entry.name);
      found.push({ objectKey: `${place}/${installationId}/${uploadId}/${random}`, path });
    }
  }
  return found;
}

/** The names of half-written files. */
export function rawTemporaryFiles(dataDir: string): string[] {
  const folder = join(dataDir, "objects", "tmp");
  return existsSync(folder) ? readdirSync(folder) : [];
}

/** Where the file of a key lies, worked out by hand: for tests that put one there. */
export function rawPathOf(dataDir: string, objectKey: string): string {
  return rawPathIn(join(dataDir, "objects"), objectKey);
}

export function rawPathIn(objectsDir: string, objectKey: string): string {
  const [place = "", , uploadId = "", random = ""] = objectKey.split("/");
  return join(objectsDir, place, uploadId.slice(0, 5), uploadId.slice(5, 8), `${uploadId}.${random}`);
}

/** The bytes of an object; null where there is none. */
export function rawBytesOf(dataDir: string, objectKey: string): Buffer | null {
  const keys = heldKeys(objectKey);
  const row = rawRows(join(dataDir, "objects")).find((each) => keys.includes(each.objectKey));
  if (row !== undefined) return row.bytes;
  const path = rawPathOf(dataDir, objectKey);
  return existsSync(path) ? readFileSync(path) : null;
}

/** Makes an object as old as if it had been stored at this time; its ETag changes with it. */
export function rawStamp(dataDir: string, objectKey: string, atMs: number): void {
  const changed = change(dataDir, (sql) =>
    sql.prepare("UPDATE objects SET stamp_us = ? WHERE object_key IN (?, ?)").run(atMs * 1_000, ...heldKeys(objectKey)),
  );
  if (!changed) utimesSync(rawPathOf(dataDir, objectKey), atMs / 1_000, atMs / 1_000);
}

/** Takes an object away. */
export function rawRemove(dataDir: string, objectKey: string): void {
  const removed = change(dataDir, (sql) => {
    const keys = heldKeys(objectKey);
    sql.prepare("DELETE FROM bodies WHERE id = (SELECT body_id FROM objects WHERE object_key IN (?, ?))").run(...keys);
    return sql.prepare("DELETE FROM objects WHERE object_key IN (?, ?)").run(...keys);
  });
  if (!removed) rmSync(rawPathOf(dataDir, objectKey));
}

/** Cuts an object short. */
export function rawTruncate(dataDir: string, objectKey: string, bytes: number): void {
  const cut = change(dataDir, (sql) => {
    sql
      .prepare(
        "UPDATE bodies SET bytes = substr(bytes, 1, ?) WHERE id = (SELECT body_id FROM objects WHERE object_key IN (?, ?))",
      )
      .run(bytes, ...heldKeys(objectKey));
    return sql
      .prepare("UPDATE objects SET size_bytes = ? WHERE object_key IN (?, ?)")
      .run(bytes, ...heldKeys(objectKey));
  });
  if (!cut) truncateSync(rawPathOf(dataDir, objectKey), bytes);
}

/** Puts an object under a second key, with the same bytes and the same time. */
export function rawCopy(dataDir: string, fromKey: string, toKey: string): void {
  const copied = change(dataDir, (sql) => {
    sql
      .prepare("INSERT INTO bodies (bytes) SELECT bytes FROM bodies JOIN objects ON body_id = id WHERE object_key = ?")
      .run(fromKey);
    return sql
      .prepare(`
        INSERT INTO objects SELECT ?, (SELECT max(id) FROM bodies), size_bytes, stamp_us, 0 FROM objects WHERE object_key = ?`)
      .run(toKey, fromKey);
  });
  if (!copied) linkSync(rawPathOf(dataDir, fromKey), rawPathOf(dataDir, toKey));
}

/** The keys that a small object may have in its file: a sealed one is renamed a moment after its confirm. */
function heldKeys(objectKey: string): [string, string] {
  return [objectKey, objectKey.replace(/^final/, "staging")];
}

/** Changes rows by hand; false where none is concerned. */
function change(dataDir: string, work: (sql: Database.Database) => Database.RunResult): boolean {
  const path = join(dataDir, "objects", "small.db");
  return existsSync(path) && inFile(path, (sql) => sql.transaction(() => work(sql)).immediate()).changes > 0;
}

function inFile<T>(path: string, work: (sql: Database.Database) => T): T {
  const sql = new Database(path, { timeout: 5_000 });
  try {
    return work(sql);
  } finally {
    sql.close();
  }
}

function etagOf(sizeBytes: number | bigint, stampUs: number | bigint): string {
  return `"${sizeBytes.toString(16)}-${stampUs.toString(16)}"`;
}
