import type { Db } from "../db/db.ts";
import { AppError } from "../errors.ts";
import { newId } from "../ids.ts";
import { checkRole, PERMISSIONS, selectedWorkspace } from "./permissions.ts";
import { createPlaces } from "./places.ts";
import type { Principal } from "./principals.ts";
import type { Rights } from "./rights.ts";
import { createWorkflowList, type WorkflowFilter } from "./workflow_list.ts";
import type { Workspaces } from "./workspaces.ts";

/** What an upload can be bound to. `playground` and `workspace` are the workspace itself. */
export const CONTEXT_TYPES = ["workflow", "playground", "assistant_session", "workspace"] as const;
export type ContextType = (typeof CONTEXT_TYPES)[number];

/** Characters of a workflow's definition as it is stored. */
const DEFINITION_CHARS_MAX = 64 * 1024;
/** The name of a workflow that was made without one. */
const PLACEHOLDER_NAME = "Untitled workflow";

export interface Workflow {
  workflowId: string;
  userId: string;
  name: string;
  nameSource: string;
  description: string | null;
  definitionJson: string;
  createdAtMs: number;
  updatedAtMs: number;
}

export interface NewWorkflow {
  name?: string | undefined;
  description?: string | null | undefined;
  definition?: unknown;
}

/** What a confirm names, and where the upload lies. */
export interface ContextToBind {
  contextType: ContextType;
  contextId: string;
  uploadWorkspaceId: string | null;
}

export type Contexts = ReturnType<typeof createContexts>;

/** Workflows and sessions: what uploads are bound to when they are confirmed. */
export function createContexts(
  db: Db,
  {
    workspaces,
    rights,
    now,
    workflowsMax,
  }: {
    workspaces: Workspaces;
    rights: Rights;
    now: () => number;
    /** How many workflows a workspace may have. No quota counts them, so their number is bounded. */
    workflowsMax: number;
  },
) {
  const columns = `
    id AS workflowId, user_id AS userId, name, name_source AS nameSource, description, definition_json AS definitionJson,
    created_at_ms AS createdAtMs, updated_at_ms AS updatedAtMs`;
  const insertWorkflow = db.prepare<Workflow & { workspaceId: string }>(`
    INSERT INTO contexts (id, type, workspace_id, user_id, name, name_source, description, definition_json, created_at_ms, updated_at_ms)
    VALUES (:workflowId, 'workflow', :workspaceId, :userId, :name, :nameSource, :description, :definitionJson, :createdAtMs, :updatedAtMs)`);
  const selectWorkflow = db.prepare<{ workflowId: string; workspaceId: string }, Workflow>(`
    SELECT ${columns} FROM contexts
     WHERE id = :workflowId AND workspace_id = :workspaceId AND type = 'workflow'`);
  const selectContext = db.prepare<{ contextId: string; contextType: string }, { workspaceId: string }>(`
    SELECT workspace_id AS workspaceId FROM contexts
     WHERE id = :contextId AND type = :contextType`);
  const updateWorkflow = db.prepare<
    {
      workflowId: string;
      workspaceId: string;
      name: string | null;
      description: string | null;
      setDescription: number;
      definitionJson: string | null;
      nowMs: number;
    },
    Workflow
  >(`
    UPDATE contexts
       SET name = coalesce(:name, name),
           name_source = CASE WHEN :name IS NULL THEN name_source ELSE 'user' END,
           description = CASE WHEN :setDescription THEN :description ELSE description END,
           definition_json = coalesce(:definitionJson, definition_json),
           updated_at_ms = :nowMs
     WHERE id = :workflowId AND workspace_id = :workspaceId AND type = 'workflow'
    RETURNING ${columns}`);
  const deleteWorkflow = db.prepare<{ workflowId: string; workspaceId: string }, { workflowId: string }>(`
    DELETE FROM contexts
     WHERE id = :workflowId AND workspace_id = :workspaceId AND type = 'workflow'
    RETURNING id AS workflowId`);
  const countAll = db.prepare<[string], { workflows: number }>(`
    SELECT count(*) AS workflows FROM contexts WHERE workspace_id = ? AND type = 'workflow'`);
  const places = createPlaces({ max: workflowsMax, count: (id) => countAll.get(id)?.workflows ?? 0, now });
  const listOfWorkspace = createWorkflowList(db);

  /** Throws `storage_limit_exceeded` if the workspace has as many as it may have, `insufficient_storage`. */
  async function createWorkflow(
    principal: Principal,
    { name, description, definition }: NewWorkflow,
  ): Promise<Workflow> {
    const nowMs = now();
    const workspaceId = selectedWorkspace(principal);
    const workflow: Workflow = {
      workflowId: newId(),
      userId: principal.userId,
      name: name ?? PLACEHOLDER_NAME,
      nameSource: name === undefined ? "placeholder" : "user",
      description: description ?? null,
      definitionJson: definitionText(definition ?? {}),
      createdAtMs: nowMs,
      updatedAtMs: nowMs,
    };
    db.checkFreeSpace();
    return db.writeStatement(() => {
      rights.checkIfStale(principal, PERMISSIONS.writeWorkflows);
      if (!places.take(workspaceId)) throw tooManyWorkflows(workflowsMax);
      insertWorkflow.run({ ...workflow, workspaceId });
      return workflow;
    });
  }

  /** Throws `not_found`, alike for unknown, deleted and foreign ids. */
  function findWorkflow(principal: Principal, workflowId: string): Workflow {
    const workflow = selectWorkflow.get({ workflowId, workspaceId: selectedWorkspace(principal) });
    if (workflow === undefined) throw noWorkflow();
    return workflow;
  }

  function listWorkflows(
    principal: Principal,
    filter: WorkflowFilter,
  ): Promise<{ workflows: Workflow[]; total: number }> {
    return listOfWorkspace(selectedWorkspace(principal), filter);
  }

  /** Changes what is given. Throws `not_found`, `insufficient_storage`. */
  async function patchWorkflow(principal: Principal, workflowId: string, patch: NewWorkflow): Promise<Workflow> {
    const workspaceId = selectedWorkspace(principal);
    db.checkFreeSpace();
    return db.writeStatement(() => {
      rights.checkIfStale(principal, PERMISSIONS.writeWorkflows);
      const workflow = updateWorkflow.get({
        workflowId,
        workspaceId,
        name: patch.name ?? null,
        description: patch.description ?? null,
        setDescription: patch.description === undefined ? 0 : 1,
        definitionJson: patch.definition === undefined ? null : definitionText(patch.definition),
        nowMs: now(),
      });
      if (workflow === undefined) throw noWorkflow();
      return workflow;
    });
  }

  /**
   * Deletes a workflow. Its uploads stay, charged, with its id as their `context_id`, and can be deleted one by one. Throws
   * `not_found`.
   */
  async function removeWorkflow(principal: Principal, workflowId: string): Promise<void> {
    const workspaceId = selectedWorkspace(principal);
    await db.writeStatement(() => {
      rights.checkIfStale(principal, PERMISSIONS.writeWorkflows);
      if (deleteWorkflow.get({ workflowId, workspaceId }) === undefined) throw noWorkflow();
    });
    places.forget(workspaceId);
  }

  /**
   * The workspace that an upload is charged to when it is bound to a context. `uploadWorkspaceId`: the one that it belongs
   * to already, if any. Throws `not_found`, naming `context_id`, where the caller cannot see the context or where it lies
   * in another workspace than the upload or the selected one; `forbidden` for a session with too low a role.
   */
  function workspaceToBind(
    { userId, workspaceId: selectedId, authKind }: Principal,
    { contextType, contextId, uploadWorkspaceId }: ContextToBind,
  ): string {
    const isWorkspace = contextType === "playground" || contextType === "workspace";
    const workspaceId = isWorkspace ? contextId : selectContext.get({ contextId, contextType })?.workspaceId;
    const isElsewhere = [selectedId, uploadWorkspaceId].some((id) => id !== null && id !== workspaceId);
    if (workspaceId === undefined || isElsewhere) throw noContext(contextType);
    if (authKind === "api_key") return workspaceId;
    const role = workspaces.roleOf(workspaceId, userId);
    if (role === undefined) throw noContext(contextType);
    checkRole(role, "editor");
    return workspaceId;
  }

  return { createWorkflow, findWorkflow, listWorkflows, patchWorkflow, removeWorkflow, workspaceToBind };
}

/** The text of a definition. It may be longer than what was sent: `1e20` is written out. Throws `payload_too_large`. */
function definitionText(definition: unknown): string {
  const text = JSON.stringify(definition);
  if (text.length <= DEFINITION_CHARS_MAX) return text;
  throw new AppError(
    "payload_too_large",
    `The definition has ${text.length} characters as JSON: ${DEFINITION_CHARS_MAX} are allowed. Numbers in exponent form are written out`,
  );
}

function noWorkflow(): AppError {
  return new AppError("not_found", "There is no such workflow");
}

function tooManyWorkflows(workflowsMax: number): AppError {
  return new AppError(
    "storage_limit_exceeded",
    `The workspace has ${workflowsMax} workflows, which is the most allowed: delete one to make room for another`,
  );
}

function noContext(contextType: ContextType): AppError {
  const message =
    contextType === "playground" || contextType === "workspace"
      ? `context_id must be the workspace's own id for the context type "${contextType}"`
      : `context_id names no ${contextType} of this workspace`;
  return new AppError("not_found", message, { details: [{ field: "context_id", message }] });
}
