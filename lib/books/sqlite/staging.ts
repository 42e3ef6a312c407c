import { uploadIdOfKey } from "../object_keys.ts";
import { noPendingUpload, type Staging } from "../staging.ts";
import type { Db } from "./db/db.ts";
import type { Unconfirmed } from "./unconfirmed.ts";

interface NamedKey {
  /** Null if the key is no object key: then it names no row. */
  uploadId: string | null;
  objectKey: string;
}

export function createStaging(db: Db, unconfirmed: Unconfirmed): Staging {
  // The rows of a deleted workspace go one after the other. Until then they name nothing any more.
  const namedSql = `
      FROM uploads
     WHERE id = :uploadId AND object_key = :objectKey
       AND NOT EXISTS (SELECT 1 FROM workspaces WHERE id = uploads.workspace_id AND deleted_at_ms IS NOT NULL)`;
  const selectPendingKey = db.prepare<NamedKey, { ownerId: string }>(`
    SELECT coalesce(workspace_id, user_id) AS ownerId ${namedSql} AND status = 'pending'`);
  const selectNamedKey = db.prepare<NamedKey, { found: number }>(`SELECT 1 AS found ${namedSql}`);
  const selectStatus = db.prepare<NamedKey, { status: "pending" | "uploaded" }>(`
    SELECT status FROM uploads WHERE id = :uploadId AND object_key = :objectKey`);

  function ownerOf(objectKey: string): string {
    const row = selectPendingKey.get({ uploadId: uploadIdOfKey(objectKey), objectKey });
    if (row === undefined) throw noPendingUpload();
    return row.ownerId;
  }

  return {
    findOwner: async (objectKey) => ownerOf(objectKey),
    async whilePending(objectKey, place) {
      // No await between the two: one turn of the event loop, in which this process writes nothing else.
      ownerOf(objectKey);
      return place();
    },
    isNamed: async (objectKey) => selectNamedKey.get({ uploadId: uploadIdOfKey(objectKey), objectKey }) !== undefined,
    checkPending: (objectKey) => void ownerOf(objectKey),
    statusOf: (objectKey) => selectStatus.get({ uploadId: uploadIdOfKey(objectKey), objectKey })?.status ?? null,
    async beginPut(objectKey, announcedBytes) {
      const put = unconfirmed.beginPut(objectKey, announcedBytes);
      return { growTo: async (bytes) => put.growTo(bytes), stored: put.stored, end: put.end };
    },
    stagedBytes: (ownerId) => unconfirmed.figuresOf(ownerId).stagedBytes,
    noteStaged: async (objectKey, sizeBytes) => unconfirmed.noteStaged(objectKey, sizeBytes),
    flush: unconfirmed.flushNotes,
  };
}
