import { giveWay } from "../../pacer.ts";
import type { Workflow, WorkflowFilter, WorkflowPage, WorkflowPlace } from "../workflows.ts";
import type { Db } from "./db/db.ts";

/** Index entries that one statement reads, in about 0.5 ms. */
const STEP_ROWS_MAX = 500;
/** Whole rows that one step reads. SQLite has to pass over a row's definition to reach the columns behind it. */
const PAGE_STEP_ROWS = 20;
const DEFINITIONS_STEP_ROWS = 4;

/**
 * Lists a workspace's workflows. Either of two columns may come first in their order, and a search has to see every name, so
 * the whole index is read, in short steps, and sorted here. Only the rows of the page are read.
 */
export function createWorkflowList(db: Db, { stepRows = STEP_ROWS_MAX }: { stepRows?: number } = {}) {
  const selectEntries = db.prepare<
    { workspaceId: string; afterMs: number; afterId: string; search: string | null; rows: number },
    WorkflowPlace & { isMatch: number }
  >(`
    SELECT id AS workflowId, updated_at_ms AS updatedAtMs, name,
           :search IS NULL OR instr(lower(name), lower(:search)) > 0 AS isMatch
      FROM contexts
     WHERE workspace_id = :workspaceId AND type = 'workflow'
       AND (updated_at_ms, id) > (:afterMs, :afterId)
     ORDER BY updated_at_ms, id LIMIT :rows`);
  const selectRow = db.prepare<{ workflowId: string; workspaceId: string; withDefinition: number }, Workflow>(`
    SELECT id AS workflowId, user_id AS userId, name, name_source AS nameSource, description,
           CASE WHEN :withDefinition THEN definition_json ELSE '{}' END AS definitionJson,
           created_at_ms AS createdAtMs, updated_at_ms AS updatedAtMs
      FROM contexts
     WHERE id = :workflowId AND workspace_id = :workspaceId AND type = 'workflow'`);

  return async (workspaceId: string, filter: WorkflowFilter): Promise<WorkflowPage> => {
    const { after, offset, limit, withDefinitions } = filter;
    const compare = comparison(filter.order);
    const entries = await entriesOf(workspaceId, filter.search, compare);
    const first = after === undefined ? 0 : entries.findIndex((entry) => compare(entry, after) > 0);
    const start = (first < 0 ? entries.length : first) + offset;
    const end = start + limit;
    const pageStepRows = withDefinitions ? DEFINITIONS_STEP_ROWS : PAGE_STEP_ROWS;
    const workflows: Workflow[] = [];
    for (const [i, { workflowId }] of entries.slice(start, end).entries()) {
      if (i % pageStepRows === pageStepRows - 1) await giveWay(workspaceId);
      const workflow = selectRow.get({ workflowId, workspaceId, withDefinition: Number(withDefinitions) });
      // It is undefined if it was deleted a moment ago.
      if (workflow !== undefined) workflows.push(workflow);
    }
    const last = end < entries.length ? entries[end - 1] : undefined;
    return { workflows, total: entries.length, nextAfter: last ?? null };
  };

  /** All workflows that match, in order. */
  async function entriesOf(
    workspaceId: string,
    search: string | undefined,
    compare: (a: WorkflowPlace, b: WorkflowPlace) => number,
  ): Promise<WorkflowPlace[]> {
    // By id, because a workflow that changes meanwhile moves to the end and is met a second time.
    const matches = new Map<string, WorkflowPlace>();
    let [afterMs, afterId] = [-1, ""];
    for (;;) {
      const rows = selectEntries.all({ workspaceId, afterMs, afterId, search: search ?? null, rows: stepRows });
      // Each step is sorted by itself, so that the last sort has only runs to merge.
      for (const row of rows.toSorted(compare)) {
        if (row.isMatch === 1) matches.set(row.workflowId, row);
        else matches.delete(row.workflowId);
      }
      const last = rows.at(-1);
      if (last === undefined || rows.length < stepRows) break;
      [afterMs, afterId] = [last.updatedAtMs, last.workflowId];
      await giveWay(workspaceId);
    }
    return [...matches.values()].sort(compare);
  }
}

function comparison(order: WorkflowFilter["order"]): (a: WorkflowPlace, b: WorkflowPlace) => number {
  return (a, b) => {
    for (const { by, direction } of order) {
      const difference = by === "name" ? textOrder(a.name, b.name) : a.updatedAtMs - b.updatedAtMs;
      if (difference !== 0) return direction === "asc" ? difference : -difference;
    }
    return textOrder(b.workflowId, a.workflowId);
  };
}

function textOrder(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
