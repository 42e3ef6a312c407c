import { type ContextType, isWorkspaceContext, noContext } from "../contexts.ts";
import { checkRole } from "../permissions.ts";
import type { Principal } from "../principals.ts";
import type { Db } from "./db/db.ts";
import type { MembershipRows } from "./membership_rows.ts";

/** The context that a confirm names, and the workspace that its upload is in. */
export interface ContextToBind {
  contextType: ContextType;
  contextId: string;
  /** Null if the upload is in no workspace yet. */
  uploadWorkspaceId: string | null;
}

export type Contexts = ReturnType<typeof createContexts>;

/** The contexts that confirms bind uploads to. To be checked before the confirm, and again inside its transaction. */
export function createContexts(db: Db, { memberships }: { memberships: Pick<MembershipRows, "findRole"> }) {
  const selectContext = db.prepare<{ contextId: string; contextType: string }, { workspaceId: string }>(`
    SELECT workspace_id AS workspaceId FROM contexts
     WHERE id = :contextId AND type = :contextType`);

  /**
   * The workspace that an upload is charged to when it is bound to this context. Throws `not_found`, naming `context_id`, if
   * the caller cannot see the context, or if it is in another workspace than the upload or the selected one; `forbidden` if
   * a session's role there is too low.
   */
  function workspaceToBind(
    { userId, workspaceId: selectedId, authKind }: Principal,
    { contextType, contextId, uploadWorkspaceId }: ContextToBind,
  ): string {
    const workspaceId = isWorkspaceContext(contextType)
      ? contextId
      : selectContext.get({ contextId, contextType })?.workspaceId;
    const isElsewhere = [selectedId, uploadWorkspaceId].some((id) => id !== null && id !== workspaceId);
    if (workspaceId === undefined || isElsewhere) throw noContext(contextType);
    if (authKind === "api_key") return workspaceId;
    const role = memberships.findRole(workspaceId, userId);
    if (role === undefined) throw noContext(contextType);
    checkRole(role, "editor");
    return workspaceId;
  }

  return { workspaceToBind };
}
