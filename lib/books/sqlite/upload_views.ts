import { CHANGES_UPLOAD_SQL, SEES_UPLOAD_SQL, type SessionParams, sessionParams } from "../permissions.ts";
import type { Principal } from "../principals.ts";
import type { Upload } from "../uploads.ts";
import type { Db } from "./db/db.ts";
import { UPLOAD_COLUMNS } from "./upload_rows.ts";

export type UploadViews = ReturnType<typeof createUploadViews>;

/** One upload, as far as a caller may see or change it. Nothing here writes. */
export function createUploadViews(db: Db) {
  const selectOfWorkspace = db.prepare<{ uploadId: string; workspaceId: string }, Upload>(`
    SELECT ${UPLOAD_COLUMNS} FROM uploads WHERE id = :uploadId AND workspace_id = :workspaceId`);
  const selectSeen = db.prepare<SessionParams & { uploadId: string }, Upload>(`
    SELECT ${UPLOAD_COLUMNS} FROM uploads WHERE id = :uploadId AND ${SEES_UPLOAD_SQL}`);
  const selectChangeable = db.prepare<SessionParams & { uploadId: string }, Upload>(`
    SELECT ${UPLOAD_COLUMNS} FROM uploads WHERE id = :uploadId AND ${CHANGES_UPLOAD_SQL}`);

  return {
    /** Undefined if the caller may not see it, or it does not exist. */
    find: (principal: Principal, uploadId: string): Upload | undefined =>
      principal.authKind === "api_key"
        ? selectOfWorkspace.get({ uploadId, workspaceId: principal.workspaceId })
        : selectSeen.get({ uploadId, ...sessionParams(principal) }),
    /** Undefined if the caller may not confirm and delete it, even if they may see it. */
    findToChange: (principal: Principal, uploadId: string): Upload | undefined =>
      principal.authKind === "api_key"
        ? selectOfWorkspace.get({ uploadId, workspaceId: principal.workspaceId })
        : selectChangeable.get({ uploadId, ...sessionParams(principal) }),
  };
}
