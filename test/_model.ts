import assert from "node:assert/strict";
import type Database from "better-sqlite3";
import type { Owner } from "./_app.ts";
import { checkRaw, type RawStore } from "./_raw_store.ts";

/** What the service should know of an upload. */
export interface ModelUpload {
  id: string;
  workspace: ModelWorkspace;
  uploadUrl: string;
  urlExpiresAtMs: number;
  expiresAtMs: number;
  statedSizeBytes: number | null;
  /** A script in plain text is read once more at its confirm. */
  isText: boolean;
  status: "pending" | "uploaded";
  /** What was last PUT, or what was confirmed. */
  bytes: Buffer | null;
}

export interface ModelWorkspace {
  owner: Owner;
  revokedKeys: string[];
  quotaBytes: number;
  workflows: string[];
  deletedWorkflows: string[];
}

/** Uploads that are gone and are tried again now and then. */
const GRAVES_MAX = 30;

export type Model = ReturnType<typeof createModel>;

/** The whole service in a few lines of memory: what random operations should have made of it. */
export function createModel(workspaces: ModelWorkspace[]) {
  const uploads = new Map<string, ModelUpload>();
  const graves: ModelUpload[] = [];
  /** Staging keys to which something was PUT after their upload was gone: S3 servers take it, and nothing may name it yet. */
  const strays = new Set<string>();

  const all = () => [...uploads.values()];
  const usedBytes = (workspace: ModelWorkspace) =>
    all()
      .filter((upload) => upload.workspace === workspace && upload.status === "uploaded")
      .reduce((sum, { bytes }) => sum + (bytes?.length ?? 0), 0);
  const pendingOf = (workspace: ModelWorkspace) =>
    all().filter((upload) => upload.workspace === workspace && upload.status === "pending").length;

  const stagedBytes = (workspace: ModelWorkspace) =>
    all()
      .filter((upload) => upload.workspace === workspace && upload.status === "pending")
      .reduce((sum, { bytes }) => sum + (bytes?.length ?? 0), 0);

  function remove(upload: ModelUpload): void {
    if (!uploads.delete(upload.id)) return;
    graves.push(upload);
    if (graves.length > GRAVES_MAX) graves.shift();
  }

  function expire(nowMs: number): number {
    const over = all().filter(({ status, expiresAtMs }) => status === "pending" && expiresAtMs <= nowMs);
    for (const upload of over) remove(upload);
    return over.length;
  }

  /** Compares the raw database and the raw store with the model: the exact rows, the exact counters, every object. */
  async function check(sql: Database.Database, raw: RawStore, how: { thoroughly: boolean }): Promise<void> {
    const rows = sql
      .prepare<[], { id: string; workspaceId: string; status: string; sizeBytes: number | null; objectKey: string }>(
        `SELECT id, workspace_id AS workspaceId, status, size_bytes AS sizeBytes, object_key AS objectKey FROM uploads ORDER BY id`,
      )
      .all();
    assert.deepEqual(
      rows.map(({ objectKey, ...row }) => row),
      all()
        .map(({ id, workspace, status, bytes }) => ({
          id,
          workspaceId: workspace.owner.workspaceId,
          status,
          sizeBytes: status === "pending" ? null : (bytes?.length ?? null),
        }))
        .sort((a, b) => (a.id < b.id ? -1 : 1)),
      "the rows are exactly the model's",
    );
    const used = sql
      .prepare<[], [string, number]>("SELECT id, storage_bytes_used FROM workspaces ORDER BY id")
      .raw()
      .all();
    assert.deepEqual(
      used,
      workspaces
        .map((workspace) => [workspace.owner.workspaceId, usedBytes(workspace)] as const)
        .sort(([a], [b]) => (a < b ? -1 : 1)),
      "BOOKS: every counter is exactly the model's",
    );
    if (how.thoroughly) await checkRaw(sql, raw, [...strays]);

    const entered = new Set(sql.prepare("SELECT object_key FROM object_removals").pluck().all());
    const objects = new Map((await raw.objects()).map((object) => [object.objectKey, object]));
    for (const { id, objectKey } of rows) {
      const bytes = uploads.get(id)?.bytes ?? null;
      const object = objects.get(objectKey);
      objects.delete(objectKey);
      assert.equal(
        object !== undefined,
        bytes !== null,
        `NO-GHOST: the object of ${id} is there exactly if it was PUT`,
      );
      if (object === undefined || bytes === null) continue;
      if (how.thoroughly)
        assert.ok((await object.read()).equals(bytes), `the object of ${id} has the bytes that were PUT`);
      else assert.equal(object.sizeBytes, bytes.length, `the object of ${id} is whole`);
    }
    const unknown = [...objects.keys()].filter((key) => !entered.has(key) && !strays.has(key));
    assert.deepEqual(unknown, [], "NO-ORPHAN: what no row names is entered for removal");
    assert.deepEqual(raw.halfWritten(), [], "nothing half-written is kept");
  }

  return { workspaces, uploads, graves, strays, all, usedBytes, pendingOf, stagedBytes, remove, expire, check };
}
