import type { Db } from "../db/db.ts";
import { AppError } from "../errors.ts";
import { newId } from "../ids.ts";
import { checkRole, selectedWorkspace } from "./permissions.ts";
import type { Principal } from "./principals.ts";
import { createWorkflowList, type WorkflowFilter } from "./workflow_list.ts";
import type { Workspaces } from "./workspaces.ts";

/** What an upload can be bound to. `playground` and `workspace` are the workspace itself. */
export const CONTEXT_TYPES = ["workflow", "playground", "assistant_session", "workspace"] as const;
export type ContextType = (typeof CONTEXT_TYPES)[number];

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
export function createContexts(db: Db, { workspaces, now }: { workspaces: Workspaces; now: () => number }) {
  const columns = `
    id AS workflowId, user_id AS userId, name, name_source AS nameSource, description, definition_json AS definitionJson,
    created_at_ms AS createdAtMs, updated_at_ms AS updatedAtMs`;
  const insertWorkflow = db.prepare<Workflow & { workspaceId: string }>(`
    INSERT INTO contexts (id, type, workspace_id, user_id, name, name_source, description, definition_json, created_at_ms, updated_at_ms)
    VALUES (:workflowId, 'workflow', :workspaceId, :userId, :name, :nameSource, :description, :definitionJson, :createdAtMs, :updatedAtMs)`);
  const selectWorkflow = db.prepare<{ workflowId: string; workspaceId: string }, Workflow>(`
    SELECT ${columns} FROM contexts
     WHERE id = :workflowId AND workspace_id = :workspaceId AND type = 'workflow' AND deleted_at_ms IS NULL`);
  const selectContext = db.prepare<{ contextId: string; contextType: string }, { workspaceId: string }>(`
    SELECT workspace_id AS workspaceId FROM contexts
     WHERE id = :contextId AND type = :contextType AND deleted_at_ms IS NULL`);
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
     WHERE id = :workflowId AND workspace_id = :workspaceId AND type = 'workflow' AND deleted_at_ms IS NULL
    RETURNING ${columns}`);
  const softDelete = db.prepare<{ workflowId: string; workspaceId: string; nowMs: number }, { workflowId: string }>(`
    UPDATE contexts
       SET deleted_at_ms = :nowMs
     WHERE id = :workflowId AND workspace_id = :workspaceId AND type = 'workflow' AND deleted_at_ms IS NULL
    RETURNING id AS workflowId`);
  const listOfWorkspace = createWorkflowList(db);

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
      definitionJson: JSON.stringify(definition ?? {}),
      createdAtMs: nowMs,
      updatedAtMs: nowMs,
    };
    return db.writeStatement(() => {
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

  /** Changes what is given. Throws `not_found`. */
  async function patchWorkflow(principal: Principal, workflowId: string, patch: NewWorkflow): Promise<Workflow> {
    const workspaceId = selectedWorkspace(principal);
    return db.writeStatement(() => {
      const workflow = updateWorkflow.get({
        workflowId,
        workspaceId,
        name: patch.name ?? null,
        description: patch.description ?? null,
        setDescription: patch.description === undefined ? 0 : 1,
        definitionJson: patch.definition === undefined ? null : JSON.stringify(patch.definition),
        nowMs: now(),
      });
      if (workflow === undefined) throw noWorkflow();
      return workflow;
    });
  }

  /** Hides a workflow; its uploads stay, charged, and can be deleted one by one. Throws `not_found`. */
  async function removeWorkflow(principal: Principal, workflowId: string): Promise<void> {
    const workspaceId = selectedWorkspace(principal);
    return db.writeStatement(() => {
      if (softDelete.get({ workflowId, workspaceId, nowMs: now() }) === undefined) throw noWorkflow();
    });
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

function noWorkflow(): AppError {
  return new AppError("not_found", "There is no such workflow");
}

function noContext(contextType: ContextType): AppError {
  const message =
    contextType === "playground" || contextType === "workspace"
      ? `context_id must be the workspace's own id for the context type "${contextType}"`
      : `context_id names no ${contextType} of this workspace`;
  return new AppError("not_found", message, { details: [{ field: "context_id", message }] });
}
