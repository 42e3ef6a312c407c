import { noWorkspace, storageLimitExceeded, type Workspace, type WorkspacePatch } from "../workspaces.ts";
import type { Db } from "./db/db.ts";
import { hasRoleSql } from "./rights_sql.ts";

/** SQLite has no booleans. */
type Row = Omit<Workspace, "routingLlmFit"> & { routingLlmFit: number };

export type WorkspaceRows = ReturnType<typeof createWorkspaceRows>;

/** The table `workspaces` and its only writer (but for the counter, which the schema's triggers move). Used inside transactions. */
export function createWorkspaceRows(db: Db) {
  const columns = `
    id AS workspaceId, name, slug, color_idx AS colorIdx, created_by AS createdBy,
    routing_price_sensitivity AS routingPriceSensitivity, routing_llm_fit AS routingLlmFit,
    storage_bytes_used AS storageBytesUsed, storage_bytes_quota AS storageBytesQuota,
    created_at_ms AS createdAtMs, updated_at_ms AS updatedAtMs`;
  const selectOne = db.prepare<[string], Row>(`
    SELECT ${columns} FROM workspaces WHERE id = ? AND deleted_at_ms IS NULL`);
  const selectOfMember = db.prepare<{ workspaceId: string; userId: string }, Row>(`
    SELECT ${columns} FROM workspaces WHERE id = :workspaceId AND ${hasRoleSql("workspaces.id", "viewer")}`);
  const selectAll = db.prepare<[], Row>(`
    SELECT ${columns} FROM workspaces WHERE deleted_at_ms IS NULL ORDER BY id`);
  const selectAny = db.prepare<[]>("SELECT 1 FROM workspaces WHERE deleted_at_ms IS NULL LIMIT 1");
  const selectSlug = db.prepare<{ slug: string; exceptId: string | null }>(`
    SELECT 1 FROM workspaces WHERE slug = :slug AND deleted_at_ms IS NULL AND id IS NOT :exceptId`);
  // A deleted one counts until it is empty: creating and deleting workspaces is no way around the limit.
  const countOwned = db.prepare<[string], { owned: number }>(`
    SELECT count(*) AS owned FROM workspaces WHERE created_by = ? AND (deleted_at_ms IS NULL OR emptied_at_ms IS NULL)`);
  const insert = db.prepare<{
    workspaceId: string;
    name: string;
    slug: string;
    colorIdx: number;
    userId: string;
    quotaBytes: number;
    nowMs: number;
  }>(`
    INSERT INTO workspaces (id, name, slug, color_idx, created_by, storage_bytes_quota, created_at_ms, updated_at_ms)
    VALUES (:workspaceId, :name, :slug, :colorIdx, :userId, :quotaBytes, :nowMs, :nowMs)`);
  const update = db.prepare<
    {
      workspaceId: string;
      name: string | null;
      slug: string | null;
      colorIdx: number | null;
      routingPriceSensitivity: number | null;
      routingLlmFit: number | null;
      nowMs: number;
    },
    Row
  >(`
    UPDATE workspaces
       SET name = coalesce(:name, name), slug = coalesce(:slug, slug), color_idx = coalesce(:colorIdx, color_idx),
           routing_price_sensitivity = coalesce(:routingPriceSensitivity, routing_price_sensitivity),
           routing_llm_fit = coalesce(:routingLlmFit, routing_llm_fit), updated_at_ms = :nowMs
     WHERE id = :workspaceId AND deleted_at_ms IS NULL
    RETURNING ${columns}`);
  const updateQuota = db.prepare<{ workspaceId: string; quotaBytes: number; nowMs: number }, Row>(`
    UPDATE workspaces
       SET storage_bytes_quota = :quotaBytes, updated_at_ms = :nowMs
     WHERE id = :workspaceId AND deleted_at_ms IS NULL
    RETURNING ${columns}`);
  const deleteSql = `
    UPDATE workspaces
       SET deleted_at_ms = max(:nowMs, coalesce(emptied_at_ms, 0) + 1), updated_at_ms = :nowMs
     WHERE id = :workspaceId AND deleted_at_ms IS NULL`;
  const softDelete = db.prepare<{ workspaceId: string; nowMs: number }>(deleteSql);
  const softDeleteByOwner = db.prepare<{ workspaceId: string; userId: string; nowMs: number }>(
    `${deleteSql} AND created_by = :userId AND ${hasRoleSql("workspaces.id", "viewer")}`,
  );
  const selectToEmpty = db.prepare<[], { workspaceId: string }>(`
    SELECT id AS workspaceId FROM workspaces
     WHERE deleted_at_ms IS NOT NULL AND coalesce(emptied_at_ms < deleted_at_ms, 1)
     ORDER BY deleted_at_ms LIMIT 1`);
  const updateEmptied = db.prepare<{ workspaceId: string; nowMs: number }>(`
    UPDATE workspaces SET emptied_at_ms = max(:nowMs, deleted_at_ms) WHERE id = :workspaceId`);

  function find(workspaceId: string): Workspace | undefined {
    return fromRow(selectOne.get(workspaceId));
  }

  /** Changes what is given; with nothing given, just finds the workspace. */
  function patch(workspaceId: string, changes: WorkspacePatch, nowMs: number): Workspace | undefined {
    if (Object.values(changes).every((value) => value === undefined)) return find(workspaceId);
    const { name = null, slug = null, colorIdx = null, routingPriceSensitivity = null, routingLlmFit } = changes;
    const fit = routingLlmFit === undefined ? null : Number(routingLlmFit);
    return fromRow(
      update.get({ workspaceId, name, slug, colorIdx, routingPriceSensitivity, routingLlmFit: fit, nowMs }),
    );
  }

  /** Throws `storage_limit_exceeded` if so many bytes more would exceed the quota, `not_found`. The schema decides at the charge. */
  function checkRoom(workspaceId: string, sizeBytes: number): void {
    const workspace = find(workspaceId);
    // It was deleted since the caller's credential was checked.
    if (workspace === undefined) throw noWorkspace();
    if (workspace.storageBytesUsed + sizeBytes > workspace.storageBytesQuota) {
      throw storageLimitExceeded(sizeBytes, workspace);
    }
  }

  return {
    find,
    findOfMember: (workspaceId: string, userId: string) => fromRow(selectOfMember.get({ workspaceId, userId })),
    list: (): Workspace[] => selectAll.all().map(withBoolean),
    hasAny: (): boolean => selectAny.get() !== undefined,
    isSlugTaken: (slug: string, exceptId: string | null): boolean => selectSlug.get({ slug, exceptId }) !== undefined,
    countOwned: (userId: string): number => countOwned.get(userId)?.owned ?? 0,
    checkRoom,
    insert: (row: Parameters<typeof insert.run>[0]) => void insert.run(row),
    patch,
    setQuota: (row: Parameters<typeof updateQuota.get>[0]) => fromRow(updateQuota.get(row)),
    /** False if there is no such workspace. */
    softDelete: (workspaceId: string, nowMs: number): boolean => softDelete.run({ workspaceId, nowMs }).changes === 1,
    /** False if the user does not own such a workspace, or is no longer its member. */
    softDeleteByOwner: (row: Parameters<typeof softDeleteByOwner.run>[0]): boolean =>
      softDeleteByOwner.run(row).changes === 1,
    /** A deleted workspace that has something left; undefined if there is none. */
    findToEmpty: (): string | undefined => selectToEmpty.get()?.workspaceId,
    setEmptied: (workspaceId: string, nowMs: number) => void updateEmptied.run({ workspaceId, nowMs }),
  };
}

function fromRow(row: Row | undefined): Workspace | undefined {
  return row && withBoolean(row);
}

function withBoolean(row: Row): Workspace {
  return { ...row, routingLlmFit: row.routingLlmFit === 1 };
}
