import type Database from "better-sqlite3";
import type { Upload } from "../uploads.ts";
import type { Db } from "./db/db.ts";
import { UPLOAD_COLUMNS } from "./upload_rows.ts";

/** An index entry whose row has to be read costs this many times as much; so does an id that is found by itself. */
const ROW_COST = 8;

/** The uploads that a list is made of. A null filters nothing. */
export interface Scope {
  /** Null for personal uploads. */
  workspaceId: string | null;
  /** The person whose personal uploads these are; null in a workspace. */
  userId: string | null;
  contextId: string | null;
  status: string | null;
  category: string | null;
  filename: string | null;
  filenamePrefix: string | null;
  /** Inclusive. */
  createdFromMs: number | null;
  /** Exclusive. */
  createdBeforeMs: number | null;
}

/** The fields of a scope that filter nothing. */
export const NO_FILTER = {
  ...{ contextId: null, status: null, category: null, filename: null, filenamePrefix: null },
  ...{ createdFromMs: null, createdBeforeMs: null },
} as const;

/** Ids from here, inclusive, up to `beforeId`, exclusive. */
interface Range {
  fromId: string;
  beforeId: string;
}

/** The statements for an index that has the wanted entries in the order of their ids. */
export interface Walk {
  /** The index entries that one statement reads at most. */
  rows: number;
  /** The id at which a step down from `beforeId` ends; undefined if it reaches the end of the list. */
  stepEnd: Database.Statement<[Scope & { beforeId: string; rows: number }], string>;
  count: Database.Statement<[Scope & Range], number>;
  ids: Database.Statement<[Scope & Range & { limit: number }], string>;
}

/** `keySql` leads to the entries by the index; `restSql` filters them. */
function createWalk(db: Db, { keySql, restSql, rows }: { keySql: string; restSql: string; rows: number }): Walk {
  return {
    rows,
    stepEnd: db
      .prepare<Scope & { beforeId: string; rows: number }, string>(`
      SELECT id FROM uploads WHERE ${keySql} AND id < :beforeId ORDER BY id DESC LIMIT 1 OFFSET :rows - 1`)
      .pluck(),
    count: db
      .prepare<Scope & Range, number>(`
      SELECT count(*) FROM uploads WHERE ${keySql} AND id < :beforeId AND id >= :fromId ${restSql}`)
      .pluck(),
    ids: db
      .prepare<Scope & Range & { limit: number }, string>(`
      SELECT id FROM uploads WHERE ${keySql} AND id < :beforeId AND id >= :fromId ${restSql} ORDER BY id DESC LIMIT :limit`)
      .pluck(),
  };
}

/** How lists of uploads are read. `stepRows`: the index entries that one statement reads. */
export function createUploadWalks(db: Db, stepRows: number) {
  const filterSql = `
       AND (:status IS NULL OR status = :status)
       AND (:category IS NULL OR category = :category)
       AND (:filename IS NULL OR filename = :filename)
       AND (:filenamePrefix IS NULL OR substr(filename, 1, length(:filenamePrefix)) = :filenamePrefix)
       AND (:createdFromMs IS NULL OR created_at_ms >= :createdFromMs)
       AND (:createdBeforeMs IS NULL OR created_at_ms < :createdBeforeMs)`;
  const ofWorkspace = createWalk(db, { keySql: "workspace_id = :workspaceId", restSql: filterSql, rows: stepRows });
  const personal = createWalk(db, {
    keySql: "workspace_id IS NULL AND user_id = :userId",
    restSql: filterSql,
    rows: stepRows,
  });
  /** Ids that are read one by one in a step. */
  const stepIds = Math.ceil(stepRows / ROW_COST);
  const ofContext = createWalk(db, {
    keySql: "context_id = :contextId",
    restSql: `AND +workspace_id = :workspaceId ${filterSql}`,
    rows: stepIds,
  });
  const selectContextOwner = db
    .prepare<[string], string | null>(`
    SELECT workspace_id FROM uploads WHERE context_id = ? ORDER BY id DESC LIMIT 1`)
    .pluck();
  const selectRow = db.prepare<Scope & { uploadId: string }, Upload>(`
    SELECT ${UPLOAD_COLUMNS} FROM uploads
     WHERE id = :uploadId AND workspace_id IS :workspaceId AND (:userId IS NULL OR user_id = :userId) ${filterSql}
       AND (:contextId IS NULL OR context_id = :contextId)`);
  const selectNamed = db
    .prepare<{ uploadId: string; workspaceId: string; workflowId: string }, string>(`
    SELECT id FROM uploads
     WHERE id = :uploadId AND workspace_id = :workspaceId AND status = 'uploaded' AND context_id IS NOT :workflowId`)
    .pluck();

  return {
    ofWorkspace,
    personal,
    ofContext,
    stepIds,
    /** The workspace that the uploads of a context belong to; undefined if there are none. */
    workspaceOfContext: (contextId: string): string | null | undefined => selectContextOwner.get(contextId),
    /** A row of the list; undefined if it has gone or does not match. */
    rowOf: (uploadId: string, scope: Scope): Upload | undefined => selectRow.get({ ...scope, uploadId }),
    /** Whether this is a confirmed upload of the workspace that is not bound to the workflow. */
    isNamed: (uploadId: string, of: { workspaceId: string; workflowId: string }): boolean =>
      selectNamed.get({ uploadId, ...of }) !== undefined,
  };
}
