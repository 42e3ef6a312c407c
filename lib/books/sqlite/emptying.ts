import type { Db } from "./db/db.ts";
import type { MembershipRows } from "./membership_rows.ts";
import type { Unconfirmed } from "./unconfirmed.ts";
import type { UploadRows } from "./upload_rows.ts";
import { createWorkflowEmptying } from "./workflows.ts";
import type { WorkspaceRows } from "./workspace_rows.ts";

/** A workflow takes up to 64 KiB, an upload a few hundred bytes: deleting one takes as long as deleting this many uploads. */
const UPLOADS_PER_WORKFLOW = 10;

export interface EmptyingParts {
  rows: UploadRows;
  workspaces: WorkspaceRows;
  memberships: MembershipRows;
  unconfirmed: Unconfirmed;
  now: () => number;
}

/** `Uploads.removeOfDeletedWorkspaces`. */
export function createEmptying(db: Db, { rows, workspaces, memberships, unconfirmed, now }: EmptyingParts) {
  const contexts = createWorkflowEmptying(db);

  async function removeOfDeletedWorkspaces(limit: number): Promise<number | null> {
    const workspaceId = workspaces.findToEmpty();
    if (workspaceId === undefined) return null;
    const { removed, uncounts } = await db.write(() => {
      const gone = rows.removeOfWorkspace(workspaceId, limit);
      const uploads = gone.length;
      const workflowsMax = Math.ceil((limit - uploads) / UPLOADS_PER_WORKFLOW);
      const workflows = contexts.deleteSome(workspaceId, workflowsMax);
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
