import { newId } from "../../ids.ts";
import { PERMISSIONS, selectedWorkspace } from "../permissions.ts";
import {
  definitionText,
  noWorkflow,
  PLACEHOLDER_NAME,
  tooManyWorkflows,
  type Workflow,
  type Workflows,
} from "../workflows.ts";
import type { Db } from "./db/db.ts";
import { createPlaces } from "./places.ts";
import type { Rights } from "./rights.ts";
import { createWorkflowList } from "./workflow_list.ts";

export interface WorkflowsParts {
  rights: Rights;
  now: () => number;
  /** How many workflows a workspace may have. */
  workflowsMax: number;
  /** Characters that a definition may have as JSON. */
  definitionCharsMax: number;
}

export function createWorkflows(db: Db, { rights, now, workflowsMax, definitionCharsMax }: WorkflowsParts): Workflows {
  const columns = `
    id AS workflowId, user_id AS userId, name, name_source AS nameSource, description, definition_json AS definitionJson,
    created_at_ms AS createdAtMs, updated_at_ms AS updatedAtMs`;
  const insertWorkflow = db.prepare<Workflow & { workspaceId: string }>(`
    INSERT INTO contexts (id, type, workspace_id, user_id, name, name_source, description, definition_json, created_at_ms, updated_at_ms)
    VALUES (:workflowId, 'workflow', :workspaceId, :userId, :name, :nameSource, :description, :definitionJson, :createdAtMs, :updatedAtMs)`);
  const selectWorkflow = db.prepare<{ workflowId: string; workspaceId: string }, Workflow>(`
    SELECT ${columns} FROM contexts
     WHERE id = :workflowId AND workspace_id = :workspaceId AND type = 'workflow'`);
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

  return {
    async create(principal, { name, description, definition }) {
      const nowMs = now();
      const workspaceId = selectedWorkspace(principal);
      const workflow: Workflow = {
        workflowId: newId(),
        userId: principal.userId,
        name: name ?? PLACEHOLDER_NAME,
        nameSource: name === undefined ? "placeholder" : "user",
        description: description ?? null,
        definitionJson: definitionText(definition ?? {}, definitionCharsMax),
        createdAtMs: nowMs,
        updatedAtMs: nowMs,
      };
      db.checkFreeSpace();
      return await db.writeStatement(() => {
        rights.checkIfStale(principal, PERMISSIONS.writeWorkflows);
        if (!places.take(workspaceId)) throw tooManyWorkflows(workflowsMax);
        insertWorkflow.run({ ...workflow, workspaceId });
        return workflow;
      });
    },

    async find(principal, workflowId) {
      const workflow = selectWorkflow.get({ workflowId, workspaceId: selectedWorkspace(principal) });
      if (workflow === undefined) throw noWorkflow();
      return workflow;
    },

    async list(principal, filter) {
      return await listOfWorkspace(selectedWorkspace(principal), filter);
    },

    async patch(principal, workflowId, { name, description, definition }) {
      const workspaceId = selectedWorkspace(principal);
      db.checkFreeSpace();
      return await db.writeStatement(() => {
        rights.checkIfStale(principal, PERMISSIONS.writeWorkflows);
        const workflow = updateWorkflow.get({
          workflowId,
          workspaceId,
          name: name ?? null,
          description: description ?? null,
          setDescription: description === undefined ? 0 : 1,
          definitionJson: definition === undefined ? null : definitionText(definition, definitionCharsMax),
          nowMs: now(),
        });
        if (workflow === undefined) throw noWorkflow();
        return workflow;
      });
    },

    async remove(principal, workflowId) {
      const workspaceId = selectedWorkspace(principal);
      await db.writeStatement(() => {
        rights.checkIfStale(principal, PERMISSIONS.writeWorkflows);
        if (deleteWorkflow.get({ workflowId, workspaceId }) === undefined) throw noWorkflow();
      });
      places.forget(workspaceId);
    },
  };
}

/** For the transactions that empty deleted workspaces. */
export function createWorkflowEmptying(db: Db) {
  const deleteSome = db.prepare<{ workspaceId: string; limit: number }>(`
    DELETE FROM contexts
     WHERE id IN (SELECT id FROM contexts WHERE workspace_id = :workspaceId LIMIT :limit)`);

  return {
    /** Deletes up to `limit` contexts of a workspace, of whatever type, and returns their number. */
    deleteSome: (workspaceId: string, limit: number): number => deleteSome.run({ workspaceId, limit }).changes,
  };
}
