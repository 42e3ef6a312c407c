import { checkKeyHolds } from "../keys.ts";
import { authorize, type Permission } from "../permissions.ts";
import type { Principal } from "../principals.ts";
import { noSelectedWorkspace, noWorkspace } from "../workspaces.ts";
import type { KeyRows } from "./key_rows.ts";
import type { MembershipRows } from "./membership_rows.ts";

/** Rights that were checked this recently are not checked again: nearly every write runs within a few milliseconds. */
const FRESH_MS = 50;

export interface RightsParts {
  keys: KeyRows;
  memberships: MembershipRows;
  now: () => number;
}

export type Rights = ReturnType<typeof createRights>;

/**
 * Checks once more, inside a write, whether a caller may do what the request was admitted for. Seconds may lie between the
 * two: a store that copies, or another process that holds the database. Meanwhile a key may be revoked, a member removed.
 */
export function createRights({ keys, memberships, now }: RightsParts) {
  /**
   * Throws `invalid_api_key` for a key that was revoked or has expired, `not_found` if its workspace was deleted, or if a
   * session's user is no longer a member of the selected one, `forbidden` if the role there no longer suffices. Rules that
   * depend on the row (whose upload it is, what it is bound to) are not checked here.
   */
  function check(principal: Principal, permission: Permission): void {
    if (principal.authKind === "api_key") {
      const key = keys.findState(principal.apiKeyId);
      checkKeyHolds(key, now());
      if (key.isOfWorkspace === 0) throw noWorkspace();
      return;
    }
    const { userId, workspaceId } = principal;
    if (workspaceId === null) return;
    const role = memberships.findRole(workspaceId, userId);
    if (role === undefined) throw noSelectedWorkspace();
    authorize({ ...principal, role }, permission);
  }

  /** The same for a caller who may have waited; free if they have not. */
  function checkIfStale(principal: Principal, permission: Permission): void {
    if (performance.now() - principal.checkedAtMs > FRESH_MS) check(principal, permission);
  }

  return { check, checkIfStale };
}
