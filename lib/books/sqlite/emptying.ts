import type { Db } from "./db/db.ts";
import type { Unconfirmed } from "./unconfirmed.ts";
import type { UploadRows } from "./upload_rows.ts";

/** Workflows have up to 64 KiB, uploads a few hundred bytes: deleting one takes as long as deleting this many uploads. */
const UPLOADS_PER_WORKFLOW = 10;

/** `Uploads.removeOfDeletedWorkspaces`. */
export function createEmptying(
  db: Db,
  { rows, unconfirmed, now }: { rows: UploadRows; unconfirmed: Unconfirmed; now: () => number },
) {
  const selectWorkspaceToEmpty = db.prepare<[], { workspaceId: string }>(`
    SELECT id AS workspaceId FROM workspaces
     WHERE deleted_at_ms IS NOT NULL AND coalesce(emptied_at_ms < deleted_at_ms, 1)
     ORDER BY deleted_at_ms LIMIT 1`);
  const deleteContexts = db.prepare<{ workspaceId: string; limit: number }>(`
    DELETE FROM contexts
     WHERE id IN (SELECT id FROM contexts WHERE workspace_id = :workspaceId LIMIT :limit)`);
  const deleteMemberships = db.prepare<[string]>("DELETE FROM memberships WHERE workspace_id = ?");
  const noteEmptied = db.prepare<{ workspaceId: string; nowMs: number }>(`
    UPDATE workspaces SET emptied_at_ms = max(:nowMs, deleted_at_ms) WHERE id = :workspaceId`);

  async function removeOfDeletedWorkspaces(limit: number): Promise<number | null> {
    const workspaceId = selectWorkspaceToEmpty.get()?.workspaceId;
    if (workspaceId === undefined) return null;
    const { removed, uncounts } = await db.write(() => {
      const gone = rows.removeOfWorkspace(workspaceId, limit);
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
