import Database from "better-sqlite3";
import { newId } from "../../lib/ids.ts";

/** Bytes that each seeded upload is charged with. */
export const UPLOAD_BYTES = 1_000;
/** Rows in one transaction while seeding. */
const BATCH_ROWS = 10_000;
const DAY_MS = 86_400_000;

/** An upload that can be deleted, and whose it is. */
export interface Row {
  id: string;
  workspaceId: string;
}

interface RowOptions {
  etag?: string;
  workflowId?: string | null;
}

/**
 * A second connection to a measured database: makes rows, picks those to delete, and evens out what a run left. All of it
 * through the schema's triggers, as an administrator's SQL would.
 */
export function openBenchDatabase(path: string) {
  const db = new Database(path, { timeout: 30_000 });
  // Nothing here is measured and nothing must survive a power loss. But NORMAL, not OFF: a checkpoint then syncs the file,
  // and does not leave that to the server that is measured next.
  db.pragma("synchronous = NORMAL");
  const installation = String(db.prepare("SELECT id FROM installation").pluck().get());
  const userId = String(db.prepare("SELECT id FROM users LIMIT 1").pluck().get());
  const insert = db.prepare(`
    INSERT INTO uploads (id, user_id, workspace_id, filename, category, content_type, status, object_key,
                         url_expires_at_ms, expires_at_ms, created_at_ms, updated_at_ms)
    VALUES (:id, :userId, :workspaceId, 'file.bin', 'file', 'application/octet-stream', 'pending', :stagingKey, 0, :expiresAtMs, :nowMs, :nowMs)`);
  const confirm = db.prepare(`
    UPDATE uploads
       SET status = 'uploaded', size_bytes = ${UPLOAD_BYTES}, etag = :etag, object_key = :finalKey,
           context_type = iif(:workflowId IS NULL, 'workspace', 'workflow'),
           context_id = coalesce(:workflowId, workspace_id)
     WHERE id = :id`);
  const forgetObjects = db.prepare("DELETE FROM object_removals WHERE due_at_ms = 0 AND taken_at_ms IS NULL");
  const selectOldest = db.prepare<[number], Row>(
    "SELECT id, workspace_id AS workspaceId FROM uploads WHERE status = 'uploaded' ORDER BY id LIMIT ?",
  );
  const selectRandom = db.prepare<[number], Row>(
    "SELECT id, workspace_id AS workspaceId FROM uploads WHERE status = 'uploaded' ORDER BY random() LIMIT ?",
  );
  const deleteOne = db.prepare<[string]>("DELETE FROM uploads WHERE id = ?");
  const countRemovals = db.prepare("SELECT count(*) FROM object_removals WHERE due_at_ms = 0").pluck();

  /** New ids for confirmed uploads, in the order of creation, spread evenly over the workspaces. */
  function plan(count: number, workspaceIds: readonly string[]): Row[] {
    return Array.from({ length: count }, (_, i) => ({
      id: newId(),
      workspaceId: workspaceIds[i % workspaceIds.length] ?? "",
    }));
  }

  /**
   * Makes confirmed uploads, of their workspace or of one of its workflows. They have no files: removing one that is gone
   * is a success. Whoever gives them files states the ETag that those have.
   */
  function addRows(rows: readonly Row[], { etag = "bench", workflowId = null }: RowOptions = {}): void {
    const nowMs = Date.now();
    for (let start = 0; start < rows.length; start += BATCH_ROWS) {
      db.transaction(() => {
        for (const row of rows.slice(start, start + BATCH_ROWS)) {
          insertRow(row, nowMs);
          confirm.run({ id: row.id, finalKey: finalKeyOf(row), etag, workflowId });
        }
        // The staging objects that these confirms gave up never were.
        forgetObjects.run();
      })();
      db.pragma("wal_checkpoint(PASSIVE)");
    }
    db.pragma("wal_checkpoint(TRUNCATE)");
  }

  /** The key of a confirmed upload that `addRows` makes. */
  function finalKeyOf({ id }: Row): string {
    return `final/${installation}/${id}/${tailOf(id)}`;
  }

  /** Makes uploads that were not confirmed yet. */
  function addPending(rows: readonly Row[]): void {
    const nowMs = Date.now();
    db.transaction(() => {
      for (const { id, workspaceId } of rows) insertRow({ id, workspaceId }, nowMs);
    })();
  }

  function insertRow({ id, workspaceId }: Row, nowMs: number): void {
    const stagingKey = `staging/${installation}/${id}/${tailOf(id)}`;
    insert.run({ id, userId, workspaceId, stagingKey, expiresAtMs: nowMs + DAY_MS, nowMs });
  }

  /**
   * Puts new rows in the place of those of a run, so that the next one finds the same in every database: deletes what it
   * did not get to, and empties the outbox, because no cleaner runs here, or it was not told of these rows and would sleep on.
   */
  function replaceRows(rows: readonly Row[], workspaces: readonly { workspaceId: string }[]): void {
    db.transaction(() => {
      for (const { id } of rows) deleteOne.run(id);
    })();
    forgetObjects.run();
    const workspaceIds = workspaces.map(({ workspaceId }) => workspaceId);
    addRows(plan(rows.length, workspaceIds));
  }

  return {
    plan,
    addRows,
    finalKeyOf,
    addPending,
    replaceRows,
    pick: (order: "in order" | "shuffled", count: number) =>
      (order === "in order" ? selectOldest : selectRandom).all(count),
    /** Objects that the cleaner has still to remove. */
    backlog: () => Number(countRemovals.get()),
    sqliteVersion: () => String(db.prepare("SELECT sqlite_version()").pluck().get()),
    close: () => void db.close(),
  };
}

export type BenchDatabase = ReturnType<typeof openBenchDatabase>;

/** The part of a key that is random elsewhere: 32 hex digits, here the id's. */
function tailOf(id: string): string {
  return id.replaceAll("-", "");
}
