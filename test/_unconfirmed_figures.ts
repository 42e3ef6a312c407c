import assert from "node:assert/strict";
import type Database from "better-sqlite3";
import type { App } from "../lib/app.ts";

/** What lies in the tables for an owner, by plain SQL and apart from the service's own counting. */
function tableFigures(sql: Database.Database, ownerId: string) {
  const one = (query: string): unknown => sql.prepare(query).pluck().get({ ownerId });
  const pending =
    "FROM uploads WHERE status = 'pending' AND iif(workspace_id IS NULL, user_id, workspace_id) = :ownerId";
  const entries = "FROM object_removals WHERE owner_id = :ownerId";
  return {
    uploads: one(`SELECT count(*) ${pending}`),
    bytes: one(
      `SELECT total(CASE WHEN ifnull(staged_size_bytes, -1) > ifnull(stated_size_bytes, -1) THEN staged_size_bytes ELSE stated_size_bytes END) ${pending}`,
    ),
    stagedBytes: one(`SELECT total(staged_size_bytes) ${pending}`),
    heldUploads: one(`SELECT count(*) - count(stated_size_bytes) ${entries}`),
    heldBytes: one(`SELECT total(stated_size_bytes) ${entries}`),
  };
}

/** Asserts that what the service remembers of an owner is what lies in the tables. */
export async function checkUnconfirmed(
  { core }: App,
  sql: Database.Database,
  { ownerId, onS3 }: { ownerId: string; onS3: boolean },
): Promise<void> {
  await core.unconfirmed.flushNotes();
  const { uploads, bytes, stagedBytes, heldUploads, heldBytes } = core.unconfirmed.figuresOf(ownerId);
  const tables = tableFigures(sql, ownerId);
  const remembered = { uploads, bytes, stagedBytes, heldUploads, heldBytes };
  // The embedded store refuses a PUT whose upload is gone: nothing is held.
  assert.deepEqual(remembered, onS3 ? tables : { ...tables, heldUploads: 0, heldBytes: 0 });
}
