import assert from "node:assert/strict";
import { readFileSync, statSync } from "node:fs";
import type Database from "better-sqlite3";
import type { Owner } from "./_app.ts";
import { checkAll, rawDiskObjects, rawTemporaryFiles } from "./_books.ts";

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

  const all = () => [...uploads.values()];
  const usedBytes = (workspace: ModelWorkspace) =>
    all()
      .filter((upload) => upload.workspace === workspace && upload.status === "uploaded")
      .reduce((sum, { bytes }) => sum + (bytes?.length ?? 0), 0);
  const pendingOf = (workspace: ModelWorkspace) =>
    all().filter((upload) => upload.workspace === workspace && upload.status === "pending").length;

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

  /** Compares the raw database and the raw files with the model: the exact rows, the exact counters, every file. */
  function check(sql: Database.Database, dataDir: string, how: { thoroughly: boolean }): void {
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
    if (how.thoroughly) checkAll(sql, dataDir);

    const installationId = sql.prepare<[], string>("SELECT id FROM installation").pluck().get() ?? "";
    const entered = new Set(sql.prepare("SELECT object_key FROM object_removals").pluck().all());
    const files = new Map(rawDiskObjects(dataDir, installationId).map(({ objectKey, path }) => [objectKey, path]));
    for (const { id, objectKey } of rows) {
      const bytes = uploads.get(id)?.bytes ?? null;
      const path = files.get(objectKey);
      files.delete(objectKey);
      assert.equal(path !== undefined, bytes !== null, `NO-GHOST: the object of ${id} is there exactly if it was PUT`);
      if (path === undefined || bytes === null) continue;
      if (how.thoroughly)
        assert.ok(readFileSync(path).equals(bytes), `the object of ${id} has the bytes that were PUT`);
      else assert.equal(statSync(path).size, bytes.length, `the object of ${id} is whole`);
    }
    const unknown = [...files.keys()].filter((key) => !entered.has(key));
    assert.deepEqual(unknown, [], "NO-ORPHAN: what no row names is entered for removal");
    assert.deepEqual(rawTemporaryFiles(dataDir), [], "nothing half-written is kept");
  }

  return { workspaces, uploads, graves, all, usedBytes, pendingOf, remove, expire, check };
}
