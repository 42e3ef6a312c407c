import { AppError } from "../errors.ts";

/** The types of context that an upload can be bound to. `playground` and `workspace` are the workspace itself. */
export const CONTEXT_TYPES = ["workflow", "playground", "assistant_session", "workspace"] as const;
export type ContextType = (typeof CONTEXT_TYPES)[number];

/** Whether the context is the workspace itself: then its id is the workspace's. */
export function isWorkspaceContext(contextType: ContextType): boolean {
  return contextType === "playground" || contextType === "workspace";
}

/** The refusal to bind an upload to a context that the caller cannot see, or that is in another workspace. */
export function noContext(contextType: ContextType): AppError {
  const message = isWorkspaceContext(contextType)
    ? `context_id must be the workspace's own id for the context type "${contextType}"`
    : `context_id names no ${contextType} of this workspace`;
  return new AppError("not_found", message, { details: [{ field: "context_id", message }] });
}
