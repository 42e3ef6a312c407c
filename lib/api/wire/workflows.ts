import * as z from "zod";
import type { Workflow, WorkflowPlace } from "../../books/workflows.ts";
import { timestamp } from "../../timestamp.ts";
import { bodyError, id, moment, oneOf, pathId, queryOf, text, time } from "./common.ts";
import { BEGINS_TWICE, beginsOnce, type KeyForm, pageQuery } from "./pages.ts";

export const WorkflowParams = z.object({ workflow_id: pathId });

/** Names the first wrong item alone: a schema for each would make an issue of every one of tens of thousands. */
const objects = z.array(z.unknown(), "must be a list of JSON objects").superRefine((items, context) => {
  const wrong = items.findIndex((item) => typeof item !== "object" || item === null || Array.isArray(item));
  if (wrong >= 0) context.addIssue({ code: "custom", path: [wrong], message: "must be a JSON object" });
});

/** The definition is the client's: whatever else it holds is kept as it is. */
const definition = z.looseObject(
  {
    graph: z.looseObject({ nodes: objects.optional(), edges: objects.optional() }).optional(),
    execution: z.looseObject({}).optional(),
  },
  bodyError,
);

export const CreateWorkflowBody = z
  .object(
    {
      name: text("a name", { min: 1, max: 200 }),
      description: text("a description", { min: 0, max: 5_000 }).nullable(),
      definition,
    },
    bodyError,
  )
  .partial();

export const PatchWorkflowBody = CreateWorkflowBody.refine(
  (body) => Object.values(body).some((value) => value !== undefined),
  "must change at least one of name, description, definition",
);

/** How often a parameter may be repeated: more says nothing more. */
const REPEATED_MAX = 20;

/** A parameter that may be repeated. */
function list<T extends z.ZodType>(item: T) {
  const few = z.array(z.unknown()).max(REPEATED_MAX, `may be given ${REPEATED_MAX} times at most`);
  return z.preprocess((value) => (typeof value === "string" ? [value] : value), few.pipe(z.array(item))).default([]);
}

const truth = oneOf(["true", "false"]).transform((value) => value === "true");
const Place = z.tuple([z.guid(), z.int(), z.string()]);

/** The key of the list of workflows: all that it can be ordered by. */
export const WORKFLOW_KEY: KeyForm<WorkflowPlace> = {
  print: ({ workflowId, updatedAtMs, name }) => JSON.stringify([workflowId, updatedAtMs, name]),
  parse(text) {
    try {
      const [workflowId, updatedAtMs, name] = Place.parse(JSON.parse(text));
      return { workflowId, updatedAtMs, name };
    } catch {
      return null;
    }
  },
};

export const ListWorkflowsQuery = queryOf({
  ...pageQuery(WORKFLOW_KEY),
  search: z.string("must be given once").max(200, "must have at most 200 characters").optional(),
  status: oneOf(["draft", "running", "completed", "failed", "paused", "cancelled", "pending"]).optional(),
  sort: list(oneOf(["name", "updated_at", "runs_count"])),
  order: list(oneOf(["asc", "desc"])),
  last_run_after: moment.optional(),
  last_run_before: moment.optional(),
  has_failed_run: truth.optional(),
  include_definition: truth.optional(),
}).refine(beginsOnce, BEGINS_TWICE);

const head = {
  id,
  user_id: id,
  name: z.string(),
  /** Whether the user chose the name, or nobody has yet. */
  name_source: z.enum(["placeholder", "generated", "user"]),
  description: z.string().nullable(),
};
const none = z.literal(0);
const tail = {
  runs_count: none,
  last_run_at: z.null(),
  last_run_status: z.null(),
  run_status_counts: z.strictObject({
    ...{ pending: none, running: none, completed: none, failed: none, cancelled: none, paused: none },
  }),
  created_at: time,
  updated_at: time,
};

export const WorkflowOut = z.strictObject({ ...head, definition, ...tail });

export const WorkflowList = z.array(
  z.strictObject({
    ...head,
    /** Present if the query asks for it with `include_definition`. */
    definition: definition.optional(),
    ...tail,
  }),
);
type ListedWorkflowOut = z.infer<typeof WorkflowList>[number];

/** Presents a workflow. Nothing runs here, so the figures of its runs are zero. */
export function presentWorkflow(workflow: Workflow): z.infer<typeof WorkflowOut> {
  return { ...presentHead(workflow), definition: definitionOf(workflow), ...presentTail(workflow) };
}

/** Presents a workflow as an item of a list. The definition is left out unless it was requested. */
export function presentListedWorkflow(
  workflow: Workflow,
  { withDefinition }: { withDefinition: boolean },
): ListedWorkflowOut {
  return withDefinition ? presentWorkflow(workflow) : { ...presentHead(workflow), ...presentTail(workflow) };
}

function presentHead(workflow: Workflow): Pick<ListedWorkflowOut, keyof typeof head> {
  return {
    id: workflow.workflowId,
    user_id: workflow.userId,
    name: workflow.name,
    name_source: workflow.nameSource,
    description: workflow.description,
  };
}

/** The definition was accepted at create or patch, so it needs no second check. */
function definitionOf({ definitionJson }: Workflow): z.infer<typeof definition> {
  return JSON.parse(definitionJson);
}

function presentTail(workflow: Workflow): Pick<ListedWorkflowOut, keyof typeof tail> {
  return {
    runs_count: 0,
    last_run_at: null,
    last_run_status: null,
    run_status_counts: { pending: 0, running: 0, completed: 0, failed: 0, cancelled: 0, paused: 0 },
    created_at: timestamp(workflow.createdAtMs),
    updated_at: timestamp(workflow.updatedAtMs),
  };
}
