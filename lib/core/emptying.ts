import type { Db } from "../db/db.ts";
import { GONE_COLUMNS, type GoneRow, type Unconfirmed } from "./unconfirmed.ts";

/** Workflows have up to 64 KiB, uploads a few hundred bytes: deleting one takes as long as deleting this many uploads. */
const UPLOADS_PER_WORKFLOW = 10;

/** Gives up what deleted workspaces have, in steps that stall no one. */
export function createEmptying(db: Db, { unconfirmed, now }: { unconfirmed: Unconfirmed; now: () => number }) {
  const selectWorkspaceToEmpty = db.prepare<[], { workspaceId: string }>(`
    SELECT id AS workspaceId FROM workspaces
     WHERE deleted_at_ms IS NOT NULL AND coalesce(emptied_at_ms < deleted_at_ms, 1)
     ORDER BY deleted_at_ms LIMIT 1`);
  const deleteUploads = db.prepare<{ workspaceId: string; limit: number }, GoneRow>(`
    DELETE FROM uploads
     WHERE id IN (SELECT id FROM uploads WHERE workspace_id = :workspaceId ORDER BY id LIMIT :limit)
    RETURNING ${GONE_COLUMNS}`);
  const deleteContexts = db.prepare<{ workspaceId: string; limit: number }>(`
    DELETE FROM contexts
     WHERE id IN (SELECT id FROM contexts WHERE workspace_id = :workspaceId LIMIT :limit)`);
  const deleteMemberships = db.prepare<[string]>("DELETE FROM memberships WHERE workspace_id = ?");
  const noteEmptied = db.prepare<{ workspaceId: string; nowMs: number }>(`
    UPDATE workspaces SET emptied_at_ms = max(:nowMs, deleted_at_ms) WHERE id = :workspaceId`);

  /**
   * Removes up to `limit` uploads and workflows of a deleted workspace, uploads through the same triggers as any delete, and
   * its members with the last of them. Resolves with their number; null if no deleted workspace is left that has any. Where
   * to go on is in the database: a kill costs nothing.
   */
  async function removeOfDeletedWorkspaces(limit: number): Promise<number | null> {
    const workspaceId = selectWorkspaceToEmpty.get()?.workspaceId;
    if (workspaceId === undefined) return null;
    const { removed, uncounts } = await db.write(() => {
      const gone = deleteUploads.all({ workspaceId, limit });
      const uploads = gone.length;
      const workflowsMax = Math.ceil((limit - uploads) / UPLOADS_PER_WORKFLOW);
      const workflows = deleteContexts.run({ workspaceId, limit: workflowsMax }).changes;
      if (uploads < limit && workflows < workflowsMax) {
        // At most a thousand, and small.
        deleteMemberships.run(workspaceId);
        noteEmptied.run({ workspaceId, nowMs: now() });
      }
      return { removed: uploads + workflows, uncounts: gone.map(unconfirmed.remove) };
    });
    for (const uncount of uncounts) uncount();
    return removed;
  }

  return { removeOfDeletedWorkspaces };
}
