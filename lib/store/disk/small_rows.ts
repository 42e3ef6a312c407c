import type Database from "better-sqlite3";
import type { PartMark } from "../objects.ts";
import type { SmallFile } from "./small_file.ts";

/** A small object without its bytes. */
export interface Row {
  bodyId: number;
  sizeBytes: number;
  stampUs: number;
  fileBeside: number;
}

/** A listed row. */
export interface PageRow {
  objectKey: string;
  sizeBytes: number;
  stampUs: number;
}

/** The open file of small objects with the statements on its rows. */
export interface OpenRows {
  file: SmallFile;
  /** The store that the file is marked for, as last read; null if it is not marked. */
  ownerId: string | null;
  readMark: Database.Statement<[], PartMark>;
  writeMark: Database.Statement<PartMark>;
  find: Database.Statement<[string], Row>;
  read: Database.Statement<[string], { sizeBytes: number; stampUs: number; bytes: Buffer }>;
  page: Database.Statement<{ after: string; end: string; limit: number }, PageRow>;
  insertBody: Database.Statement<[Buffer]>;
  copyBody: Database.Statement<[number]>;
  deleteBody: Database.Statement<[number]>;
  upsert: Database.Statement<Omit<Row, "bodyId"> & { objectKey: string; bodyId: number | bigint }>;
  noteFile: Database.Statement<[string]>;
  rename: Database.Statement<{ stagingKey: string; finalKey: string }>;
  remove: Database.Statement<[string], Row>;
}

/** Prepares the statements. */
export function openRows(file: SmallFile): OpenRows {
  const { sqlite } = file;
  const columns = "body_id AS bodyId, size_bytes AS sizeBytes, stamp_us AS stampUs, file_beside AS fileBeside";
  const readMark = sqlite.prepare<[], PartMark>(`
    SELECT store_id AS storeId, generation, ledger_seq AS ledgerSeq FROM store_mark`);
  return {
    file,
    ownerId: readMark.get()?.storeId ?? null,
    readMark,
    // A row that has lost its bytes is no object. To see that they are there costs one more step in an index.
    find: sqlite.prepare<[string], Row>(`
      SELECT ${columns} FROM objects WHERE object_key = ? AND EXISTS (SELECT 1 FROM bodies WHERE id = body_id)`),
    read: sqlite.prepare<[string], { sizeBytes: number; stampUs: number; bytes: Buffer }>(`
      SELECT size_bytes AS sizeBytes, stamp_us AS stampUs, bytes FROM objects JOIN bodies ON id = body_id WHERE object_key = ?`),
    insertBody: sqlite.prepare<[Buffer]>("INSERT INTO bodies (bytes) VALUES (?)"),
    copyBody: sqlite.prepare<[number]>("INSERT INTO bodies (bytes) SELECT bytes FROM bodies WHERE id = ?"),
    deleteBody: sqlite.prepare<[number]>("DELETE FROM bodies WHERE id = ?"),
    upsert: sqlite.prepare<Omit<Row, "bodyId"> & { objectKey: string; bodyId: number | bigint }>(`
      INSERT OR REPLACE INTO objects (object_key, body_id, size_bytes, stamp_us, file_beside)
      VALUES (:objectKey, :bodyId, :sizeBytes, :stampUs, :fileBeside)`),
    noteFile: sqlite.prepare<[string]>("UPDATE objects SET file_beside = 1 WHERE object_key = ?"),
    writeMark: sqlite.prepare<PartMark>(`
      INSERT OR REPLACE INTO store_mark (id, store_id, generation, ledger_seq)
      VALUES (1, :storeId, :generation, :ledgerSeq)`),
    rename: sqlite.prepare<{ stagingKey: string; finalKey: string }>(`
      UPDATE OR IGNORE objects SET object_key = :finalKey WHERE object_key = :stagingKey`),
    remove: sqlite.prepare<[string], Row>(`DELETE FROM objects WHERE object_key = ? RETURNING ${columns}`),
    page: sqlite.prepare<{ after: string; end: string; limit: number }, PageRow>(`
      SELECT object_key AS objectKey, size_bytes AS sizeBytes, stamp_us AS stampUs
        FROM objects
       WHERE object_key > :after AND object_key < :end AND EXISTS (SELECT 1 FROM bodies WHERE id = body_id)
       ORDER BY object_key LIMIT :limit`),
  };
}
