import type { Db } from "./db/db.ts";
import type { MembershipRows } from "./membership_rows.ts";
import { GONE_COLUMNS, type GoneRow, type Unconfirmed } from "./unconfirmed.ts";
import type { WorkspaceRows } from "./workspace_rows.ts";

/** A workflow takes up to 64 KiB, an upload a few hundred bytes: deleting one takes as long as deleting this many uploads. */
const UPLOADS_PER_WORKFLOW = 10;

export interface EmptyingParts {
  workspaces: WorkspaceRows;
  memberships: MembershipRows;
  unconfirmed: Unconfirmed;
  now: () => number;
}

/** Removes the contents of deleted workspaces, in steps that stall no one. */
export function createEmptying(db: Db, { workspaces, memberships, unconfirmed, now }: EmptyingParts) {
  const deleteUploads = db.prepare<{ workspaceId: string; limit: number }, GoneRow>(`
    DELETE FROM uploads
     WHERE id IN (SELECT id FROM uploads WHERE workspace_id = :workspaceId ORDER BY id LIMIT :limit)
    RETURNING ${GONE_COLUMNS}`);
  const deleteContexts = db.prepare<{ workspaceId: string; limit: number }>(`
    DELETE FROM contexts
     WHERE id IN (SELECT id FROM contexts WHERE workspace_id = :workspaceId LIMIT :limit)`);

  /**
   * Removes up to `limit` uploads and workflows of a deleted workspace, uploads through the same triggers as any delete, and
   * its members together with the last of them. Resolves with their number; null if every deleted workspace is empty. The
   * progress is in the database: a kill costs nothing.
   */
  async function removeOfDeletedWorkspaces(limit: number): Promise<number | null> {
    const workspaceId = workspaces.findToEmpty();
    if (workspaceId === undefined) return null;
    const { removed, uncounts } = await db.write(() => {
      const gone = deleteUploads.all({ workspaceId, limit });
      const uploads = gone.length;
      const workflowsMax = Math.ceil((limit - uploads) / UPLOADS_PER_WORKFLOW);
      const workflows = deleteContexts.run({ workspaceId, limit: workflowsMax }).changes;
      if (uploads < limit && workflows < workflowsMax) {
        // At most a thousand small rows.
        memberships.removeAll(workspaceId);
        workspaces.setEmptied(workspaceId, now());
      }
      return { removed: uploads + workflows, uncounts: gone.map(unconfirmed.remove) };
    });
    for (const uncount of uncounts) uncount();
    return removed;
  }

  return { removeOfDeletedWorkspaces };
}
