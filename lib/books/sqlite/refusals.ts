import { isSqliteError } from "../../sqlite/sqlite_errors.ts";

/** The texts by which triggers of the schema refuse what callers of the API can run into. A test compares them with it. */
export const REFUSALS = {
  storageLimitExceeded: "storage_limit_exceeded",
  workspaceDeleted: "a deleted workspace takes no uploads",
} as const;

/** Whether a trigger of the schema has refused a statement for this reason. */
export function isRefusal(error: unknown, reason: keyof typeof REFUSALS): boolean {
  return isSqliteError(error, "SQLITE_CONSTRAINT_TRIGGER") && error.message === REFUSALS[reason];
}
