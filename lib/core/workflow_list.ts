import type { Db } from "../db/db.ts";
import { giveWay } from "../pacer.ts";
import type { Workflow } from "./contexts.ts";

/** Index entries that one statement reads: 0.5 ms or so. */
const STEP_ROWS_MAX = 500;
/** Whole rows that are read in one step; SQLite passes over a row's definition to come to what follows it. */
const PAGE_STEP_ROWS = 20;
const DEFINITIONS_STEP_ROWS = 4;

export interface WorkflowFilter {
  search?: string | undefined;
  /** Column and direction, the most important first; ties are broken by id. */
  order: readonly { by: "name" | "updated_at"; direction: "asc" | "desc" }[];
  offset: number;
  limit: number;
  /** Without it the definitions are left out: they are most of what there is to read. */
  withDefinitions: boolean;
}

/** What a workflow is ordered by. */
interface Entry {
  workflowId: string;
  updatedAtMs: number;
  name: string;
}

/**
 * Lists a workspace's workflows. Either of two columns may come first in their order, and a search looks at every name: so
 * the whole index is read, in short steps, and sorted here; of the rows only the page's are read.
 */
export function createWorkflowList(db: Db, { stepRows = STEP_ROWS_MAX }: { stepRows?: number } = {}) {
  const selectEntries = db.prepare<
    { workspaceId: string; afterMs: number; afterId: string; search: string | null; rows: number },
    Entry & { isFound: number }
  >(`
    SELECT id AS workflowId, updated_at_ms AS updatedAtMs, name,
           :search IS NULL OR instr(lower(name), lower(:search)) > 0 AS isFound
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

  return async (workspaceId: string, filter: WorkflowFilter): Promise<{ workflows: Workflow[]; total: number }> => {
    const { offset, limit, withDefinitions } = filter;
    const entries = await entriesOf(workspaceId, filter);
    const pageStepRows = withDefinitions ? DEFINITIONS_STEP_ROWS : PAGE_STEP_ROWS;
    const workflows: Workflow[] = [];
    for (const [i, { workflowId }] of entries.slice(offset, offset + limit).entries()) {
      if (i % pageStepRows === pageStepRows - 1) await giveWay(workspaceId);
      const workflow = selectRow.get({ workflowId, workspaceId, withDefinition: Number(withDefinitions) });
      // Undefined if it was deleted a moment ago.
      if (workflow !== undefined) workflows.push(workflow);
    }
    return { workflows, total: entries.length };
  };

  /** All workflows that are found, in order. */
  async function entriesOf(workspaceId: string, { search, order }: WorkflowFilter): Promise<Entry[]> {
    const compare = comparison(order);
    // By id: what is changed meanwhile moves to the end and is met once more.
    const found = new Map<string, Entry>();
    let [afterMs, afterId] = [-1, ""];
    for (;;) {
      const rows = selectEntries.all({ workspaceId, afterMs, afterId, search: search ?? null, rows: stepRows });
      // Each step's in order already: the whole is then soon sorted, because runs are merged.
      for (const row of rows.toSorted(compare)) {
        if (row.isFound === 1) found.set(row.workflowId, row);
        else found.delete(row.workflowId);
      }
      const last = rows.at(-1);
      if (last === undefined || rows.length < stepRows) break;
      [afterMs, afterId] = [last.updatedAtMs, last.workflowId];
      await giveWay(workspaceId);
    }
    return [...found.values()].sort(compare);
  }
}

function comparison(order: WorkflowFilter["order"]): (a: Entry, b: Entry) => number {
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
