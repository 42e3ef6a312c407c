import { AppError } from "../errors.ts";
import type { Principal } from "./principals.ts";

/** The name of a workflow that was created without one. */
export const PLACEHOLDER_NAME = "Untitled workflow";

export interface Workflow {
  workflowId: string;
  /** The user who created it. */
  userId: string;
  name: string;
  /** `placeholder` until a person names it, then `user`. */
  /** The origin of the name; `placeholder` if nobody has chosen one yet. */
  nameSource: "placeholder" | "generated" | "user";
  description: string | null;
  definitionJson: string;
  createdAtMs: number;
  updatedAtMs: number;
}

/** The fields of a new workflow, or those of an old one that change. */
export interface WorkflowFields {
  name?: string | undefined;
  description?: string | null | undefined;
  /** Any JSON value; `{}` by default. */
  definition?: unknown;
}

/** The place of a workflow in every order of the list. The workflow itself may be gone. */
export interface WorkflowPlace {
  workflowId: string;
  updatedAtMs: number;
  name: string;
}

export interface WorkflowPage {
  workflows: Workflow[];
  /** The number of workflows in the whole list. */
  total: number;
  /** Where the next page begins; null if there is none. */
  nextAfter: WorkflowPlace | null;
}

export interface WorkflowFilter {
  /** Part of the name; ASCII letters match in either case. */
  search?: string | undefined;
  /** Columns and directions, the most important first; ties are broken by id. */
  order: readonly { by: "name" | "updated_at"; direction: "asc" | "desc" }[];
  /** The page begins `offset` workflows after this place; by default after the beginning of the list. */
  after?: WorkflowPlace | undefined;
  offset: number;
  limit: number;
  /** Without it each definition is `{}`, because definitions are most of the bytes to read. */
  withDefinitions: boolean;
}

/**
 * Workflows, which uploads are bound to. They are never run here. A workspace may have only so many, because no
 * quota counts them.
 *
 * Each verb is about the workspace that the caller has selected and throws `bad_request` if a session has selected none.
 * Those that write check the caller's rights again if the request had to wait, and throw `invalid_api_key`, `forbidden` or
 * `not_found` if they were lost meanwhile.
 */
export interface Workflows {
  /**
   * Creates a workflow. Throws `storage_limit_exceeded` if the workspace has as many as it may have, `payload_too_large` if
   * the definition is too long, `insufficient_storage` if the disk is nearly full.
   */
  create(principal: Principal, fields: WorkflowFields): Promise<Workflow>;

  /** Finds a workflow. Throws `not_found`, the same for unknown, deleted and foreign ids. */
  find(principal: Principal, workflowId: string): Promise<Workflow>;

  /**
   * Lists one page of the workflows that match. `total` counts all that match, not just this page. The rows are read in
   * short steps, between which other requests have their turn: a workflow that changes meanwhile is listed as it was before
   * or as it is after.
   */
  list(principal: Principal, filter: WorkflowFilter): Promise<WorkflowPage>;

  /**
   * Changes the given fields. Throws `not_found`, `payload_too_large` if the definition is too long, and
   * `insufficient_storage` if the disk is nearly full.
   */
  patch(principal: Principal, workflowId: string, fields: WorkflowFields): Promise<Workflow>;

  /**
   * Deletes a workflow. Its uploads stay, charged, with its id as their `context_id`, and can be deleted one by one. Throws
   * `not_found`.
   */
  remove(principal: Principal, workflowId: string): Promise<void>;
}

/**
 * The text of a definition as it is stored. It may be longer than what the client sent, because `1e20` is written out.
 * Throws `payload_too_large` if it has more than `charsMax` characters.
 */
export function definitionText(definition: unknown, charsMax: number): string {
  const text = JSON.stringify(definition);
  if (text.length <= charsMax) return text;
  throw new AppError(
    "payload_too_large",
    `The definition has ${text.length} characters as JSON: ${charsMax} are allowed. Numbers in exponent form are written out`,
  );
}

export function noWorkflow(): AppError {
  return new AppError("not_found", "There is no such workflow");
}

export function tooManyWorkflows(workflowsMax: number): AppError {
  return new AppError(
    "storage_limit_exceeded",
    `The workspace has ${workflowsMax} workflows, which is the most allowed: delete one to make room for another`,
  );
}
