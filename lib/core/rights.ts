import type { Db } from "../db/db.ts";
import { AppError } from "../errors.ts";
import { checkKeyHolds } from "./keys.ts";
import { authorize, type Permission } from "./permissions.ts";
import type { Principal } from "./principals.ts";
import { noWorkspace, type Workspaces } from "./workspaces.ts";

/** Rights that were asked for so lately are not asked for again: nearly every write runs within a few milliseconds. */
const FRESH_MS = 50;

export type Rights = ReturnType<typeof createRights>;

/**
 * Asks again whether a caller may do what the request was let in for. Between that and the write there may be seconds: a
 * store that copies, or another process that holds the database. Meanwhile a key may be revoked, a member removed.
 */
export function createRights(db: Db, { workspaces, now }: { workspaces: Workspaces; now: () => number }) {
  const selectKey = db.prepare<
    [string],
    { expiresAtMs: number | null; revokedAtMs: number | null; isOfWorkspace: number }
  >(`
    SELECT expires_at_ms AS expiresAtMs, revoked_at_ms AS revokedAtMs,
           (SELECT deleted_at_ms IS NULL FROM workspaces WHERE id = k.workspace_id) AS isOfWorkspace
      FROM api_keys k WHERE k.id = ?`);

  /**
   * Throws `invalid_api_key` for a key that was revoked or has expired, `not_found` if its workspace was deleted, or if a
   * session's user is no longer a member of the selected one, `forbidden` if the role there no longer suffices. What is
   * decided by the row (whose upload it is, what it is bound to) is not asked here.
   */
  function check(principal: Principal, permission: Permission): void {
    if (principal.authKind === "api_key") {
      const key = selectKey.get(principal.apiKeyId);
      checkKeyHolds(key, now());
      if (key.isOfWorkspace === 0) throw noWorkspace();
      return;
    }
    const { userId, workspaceId } = principal;
    if (workspaceId === null) return;
    const role = workspaces.roleOf(workspaceId, userId);
    if (role === undefined) throw notOfYours();
    authorize({ ...principal, role }, permission);
  }

  /** The same for what may have waited; free if it has not. To be called inside the write. */
  function checkIfStale(principal: Principal, permission: Permission): void {
    if (performance.now() - principal.checkedAtMs > FRESH_MS) check(principal, permission);
  }

  return { check, checkIfStale };
}

/** For a session that selects a workspace: alike whether there is none or the user is no member. */
export function notOfYours(): AppError {
  return new AppError("not_found", "X-Workspace-Id names no workspace of yours");
}
