import { isSqliteError } from "../../sqlite/sqlite_errors.ts";

/**
 * The refusals of the schema that callers of the API can run into. SQLite has one result code for all triggers, so the text
 * of such a RAISE begins with a code of its own and a colon. The rest of the text is for people and may change.
 */
export const REFUSALS = ["over_quota", "workspace_deleted"] as const;

/** Whether a trigger of the schema has refused a statement with this code. */
export function isRefusal(error: unknown, code: (typeof REFUSALS)[number]): boolean {
  return isSqliteError(error, "SQLITE_CONSTRAINT_TRIGGER") && error.message.startsWith(`${code}: `);
}
