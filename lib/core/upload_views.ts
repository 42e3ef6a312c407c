import type { Db } from "../db/db.ts";
import { AppError } from "../errors.ts";
import { uploadIdOfKey } from "../ids.ts";
import { CHANGES_UPLOAD_SQL, SEES_UPLOAD_SQL, type SessionParams, sessionParams } from "./permissions.ts";
import type { Principal } from "./principals.ts";
import type { Upload } from "./uploads.ts";

/** The columns of an upload, by the names that it has in the program. */
export const UPLOAD_COLUMNS = `
    id AS uploadId, user_id AS userId, workspace_id AS workspaceId, filename, category, content_type AS contentType, format, status,
    stated_size_bytes AS statedSizeBytes, checksum_sha256 AS checksumSha256, size_bytes AS sizeBytes, etag, char_count AS charCount, line_count AS lineCount,
    context_type AS contextType, context_id AS contextId, object_key AS objectKey, url_expires_at_ms AS urlExpiresAtMs,
    expires_at_ms AS expiresAtMs, created_at_ms AS createdAtMs, updated_at_ms AS updatedAtMs`;

/** What a caller sees of uploads. Nothing here writes. */
export function createUploadViews(db: Db) {
  const selectOfWorkspace = db.prepare<{ uploadId: string; workspaceId: string }, Upload>(`
    SELECT ${UPLOAD_COLUMNS} FROM uploads WHERE id = :uploadId AND workspace_id = :workspaceId`);
  const selectSeen = db.prepare<SessionParams & { uploadId: string }, Upload>(`
    SELECT ${UPLOAD_COLUMNS} FROM uploads WHERE id = :uploadId AND ${SEES_UPLOAD_SQL}`);
  const selectChangeable = db.prepare<SessionParams & { uploadId: string }, Upload>(`
    SELECT ${UPLOAD_COLUMNS} FROM uploads WHERE id = :uploadId AND ${CHANGES_UPLOAD_SQL}`);
  // The rows of a deleted workspace go one after the other: until then they name nothing any more.
  const named = `
      FROM uploads
     WHERE id = :uploadId AND object_key = :objectKey
       AND NOT EXISTS (SELECT 1 FROM workspaces WHERE id = uploads.workspace_id AND deleted_at_ms IS NOT NULL)`;
  const selectPendingKey = db.prepare<{ uploadId: string; objectKey: string }, { ownerId: string }>(`
    SELECT coalesce(workspace_id, user_id) AS ownerId ${named} AND status = 'pending'`);
  const selectNamedKey = db.prepare<{ uploadId: string; objectKey: string }, { found: number }>(`
    SELECT 1 AS found ${named}`);

  /** The upload, as far as the caller can see it. Throws `not_found`, alike for unknown, foreign and deleted ids. */
  function find(principal: Principal, uploadId: string): Upload {
    return found(findOrNull(principal, uploadId) ?? undefined);
  }

  function findOrNull(principal: Principal, uploadId: string): Upload | null {
    const upload =
      principal.authKind === "api_key"
        ? selectOfWorkspace.get({ uploadId, workspaceId: principal.workspaceId })
        : selectSeen.get({ uploadId, ...sessionParams(principal) });
    return upload ?? null;
  }

  /** The upload, where the caller may confirm and delete it. Throws `not_found`, also where they may only see it. */
  function findToChange(principal: Principal, uploadId: string): Upload {
    return found(
      principal.authKind === "api_key"
        ? selectOfWorkspace.get({ uploadId, workspaceId: principal.workspaceId })
        : selectChangeable.get({ uploadId, ...sessionParams(principal) }),
    );
  }

  /**
   * The workspace whose pending upload names this staging key, or the person if it is in none; null if none names it. The
   * embedded store asks before it keeps a PUT.
   */
  function ownerOfPendingKey(objectKey: string): string | null {
    return selectPendingKey.get({ uploadId: uploadIdOfKey(objectKey), objectKey })?.ownerId ?? null;
  }

  /** Whether an upload names this key. The embedded store asks before it hands an object out. */
  function isNamedKey(objectKey: string): boolean {
    return selectNamedKey.get({ uploadId: uploadIdOfKey(objectKey), objectKey }) !== undefined;
  }

  return { find, findOrNull, findToChange, ownerOfPendingKey, isNamedKey };
}

function found(upload: Upload | undefined): Upload {
  if (upload === undefined) throw noUpload();
  return upload;
}

/** The same for every upload that the caller cannot see, or may not touch, or that there is not. */
export function noUpload(): AppError {
  return new AppError("not_found", "There is no such upload");
}
