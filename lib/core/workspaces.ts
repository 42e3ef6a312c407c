import type { Db } from "../db/db.ts";
import { AppError, invalidField } from "../errors.ts";
import { newId } from "../ids.ts";
import { giveWay } from "../pacer.ts";
import { hasRoleSql } from "./permissions.ts";
import type { Principal, Role } from "./principals.ts";
import { checkSlug, slugOf, withSuffix } from "./slugs.ts";

/** Characters of a workspace's name. */
export const WORKSPACE_NAME_CHARS_MAX = 200;
/** Colours of the palette that clients know. */
export const COLOR_IDX_MAX = 6;

/** Memberships that one statement looks at: 1 ms or so. */
const MEMBERSHIPS_STEP_ROWS = 250;

export interface Workspace {
  workspaceId: string;
  name: string;
  slug: string;
  colorIdx: number;
  /** The owner. */
  createdBy: string;
  routingPriceSensitivity: number;
  routingLlmFit: boolean;
  storageBytesUsed: number;
  storageBytesQuota: number;
  createdAtMs: number;
  updatedAtMs: number;
}

export interface NewWorkspace {
  name: string;
  storageBytesQuota: number;
  /** The user who becomes its owner and admin; a new one is made where it is left out. */
  userId?: string;
  /** Made of the name where it is left out. */
  slug?: string | undefined;
  colorIdx?: number | undefined;
}

/** What can be changed; what is left out stays. */
export interface WorkspacePatch {
  name?: string | undefined;
  slug?: string | undefined;
  colorIdx?: number | undefined;
  routingPriceSensitivity?: number | undefined;
  routingLlmFit?: boolean | undefined;
}

/** SQLite has no booleans. */
type WorkspaceRow = Omit<Workspace, "routingLlmFit"> & { routingLlmFit: number };

export type Workspaces = ReturnType<typeof createWorkspaces>;

/** Workspaces and their quotas. */
export function createWorkspaces(db: Db, now: () => number) {
  const selectInstallation = db.prepare<[], { id: string }>("SELECT id FROM installation");
  const probe = db.prepare<[number]>("UPDATE installation SET probed_at_ms = ?");
  const insertUser = db.prepare<{ userId: string; name: string; nowMs: number }>(
    "INSERT INTO users (id, name, created_at_ms) VALUES (:userId, :name, :nowMs)",
  );
  const insertWorkspace = db.prepare<{
    workspaceId: string;
    name: string;
    slug: string;
    colorIdx: number;
    userId: string;
    quota: number;
    nowMs: number;
  }>(`
    INSERT INTO workspaces (id, name, slug, color_idx, created_by, storage_bytes_quota, created_at_ms, updated_at_ms)
    VALUES (:workspaceId, :name, :slug, :colorIdx, :userId, :quota, :nowMs, :nowMs)`);
  const insertAdmin = db.prepare<{ workspaceId: string; userId: string; nowMs: number }>(`
    INSERT INTO memberships (workspace_id, user_id, role, created_at_ms)
    VALUES (:workspaceId, :userId, 'admin', :nowMs)`);
  const selectSlug = db.prepare<{ slug: string; workspaceId: string | null }, { taken: number }>(`
    SELECT 1 AS taken FROM workspaces WHERE slug = :slug AND deleted_at_ms IS NULL AND id IS NOT :workspaceId`);
  // A deleted one counts until what it had is gone: making and deleting them is no way around the limit.
  const countOwned = db.prepare<[string], { owned: number }>(`
    SELECT count(*) AS owned FROM workspaces WHERE created_by = ? AND (deleted_at_ms IS NULL OR emptied_at_ms IS NULL)`);
  const columns = `
    id AS workspaceId, name, slug, color_idx AS colorIdx, created_by AS createdBy,
    routing_price_sensitivity AS routingPriceSensitivity, routing_llm_fit AS routingLlmFit,
    storage_bytes_used AS storageBytesUsed, storage_bytes_quota AS storageBytesQuota,
    created_at_ms AS createdAtMs, updated_at_ms AS updatedAtMs`;
  const selectOne = db.prepare<[string], WorkspaceRow>(`
    SELECT ${columns} FROM workspaces WHERE id = ? AND deleted_at_ms IS NULL`);
  const selectAny = db.prepare<[]>("SELECT 1 FROM workspaces WHERE deleted_at_ms IS NULL LIMIT 1");
  const selectAll = db.prepare<[], WorkspaceRow>(`
    SELECT ${columns} FROM workspaces WHERE deleted_at_ms IS NULL ORDER BY id`);
  const selectOfMember = db.prepare<{ workspaceId: string; userId: string }, WorkspaceRow>(`
    SELECT ${columns} FROM workspaces WHERE id = :workspaceId AND ${hasRoleSql("workspaces.id", "viewer")}`);
  const selectMemberships = db.prepare<
    { userId: string; afterId: string; rows: number },
    { workspaceId: string; isThere: number }
  >(`
    SELECT workspace_id AS workspaceId,
           (SELECT deleted_at_ms IS NULL FROM workspaces WHERE id = m.workspace_id) AS isThere
      FROM memberships m
     WHERE user_id = :userId AND workspace_id > :afterId ORDER BY workspace_id LIMIT :rows`);
  const selectRole = db.prepare<{ workspaceId: string; userId: string }, { role: Role }>(`
    SELECT role FROM memberships m
     WHERE workspace_id = :workspaceId AND user_id = :userId
       AND (SELECT deleted_at_ms IS NULL FROM workspaces WHERE id = m.workspace_id)`);
  const updateFields = db.prepare<
    {
      workspaceId: string;
      name: string | null;
      slug: string | null;
      colorIdx: number | null;
      routingPriceSensitivity: number | null;
      routingLlmFit: number | null;
      nowMs: number;
    },
    WorkspaceRow
  >(`
    UPDATE workspaces
       SET name = coalesce(:name, name), slug = coalesce(:slug, slug), color_idx = coalesce(:colorIdx, color_idx),
           routing_price_sensitivity = coalesce(:routingPriceSensitivity, routing_price_sensitivity),
           routing_llm_fit = coalesce(:routingLlmFit, routing_llm_fit), updated_at_ms = :nowMs
     WHERE id = :workspaceId AND deleted_at_ms IS NULL
    RETURNING ${columns}`);
  const updateQuota = db.prepare<{ workspaceId: string; quota: number; nowMs: number }, { workspaceId: string }>(`
    UPDATE workspaces
       SET storage_bytes_quota = :quota, updated_at_ms = :nowMs
     WHERE id = :workspaceId AND deleted_at_ms IS NULL
    RETURNING id AS workspaceId`);
  const deletedSql = `
    UPDATE workspaces
       SET deleted_at_ms = max(:nowMs, coalesce(emptied_at_ms, 0) + 1), updated_at_ms = :nowMs
     WHERE id = :workspaceId AND deleted_at_ms IS NULL`;
  const softDelete = db.prepare<{ workspaceId: string; nowMs: number }, { workspaceId: string }>(
    `${deletedSql} RETURNING id AS workspaceId`,
  );
  const softDeleteByOwner = db.prepare<
    { workspaceId: string; userId: string; nowMs: number },
    { workspaceId: string }
  >(`
    ${deletedSql} AND created_by = :userId AND ${hasRoleSql("workspaces.id", "viewer")}
    RETURNING id AS workspaceId`);

  /** The id that is part of every object key of this installation. */
  function installationId(): string {
    const row = selectInstallation.get();
    if (row === undefined) throw new Error("The database has no installation row");
    return row.id;
  }

  /** Resolves where the database can be written; `/ready` asks. */
  function checkWritable(): Promise<void> {
    return db.writeStatement(() => void probe.run(now()));
  }

  /**
   * Makes a workspace with its first admin. Runs inside a write. Throws `validation_error` for a name, slug or quota that
   * cannot be, `workspace_slug_taken`.
   */
  function insert(workspace: NewWorkspace): { workspaceId: string; userId: string } {
    const { storageBytesQuota, userId, colorIdx = 0 } = workspace;
    const name = checkedName(workspace.name);
    checkQuota(storageBytesQuota);
    const slug = workspace.slug ?? freeSlug(name);
    checkSlug(slug);
    checkSlugFree(slug, null);
    const nowMs = now();
    const made = { workspaceId: newId(), userId: userId ?? newId() };
    if (userId === undefined) insertUser.run({ userId: made.userId, name: `Owner of ${name}`, nowMs });
    insertWorkspace.run({ ...made, name, slug, colorIdx, quota: storageBytesQuota, nowMs });
    insertAdmin.run({ ...made, nowMs });
    return made;
  }

  function freeSlug(name: string): string {
    const slug = slugOf(name);
    return selectSlug.get({ slug, workspaceId: null }) === undefined ? slug : withSuffix(slug);
  }

  function checkSlugFree(slug: string, workspaceId: string | null): void {
    if (selectSlug.get({ slug, workspaceId }) === undefined) return;
    const message = `Another workspace has the slug ${JSON.stringify(slug)}: choose another`;
    throw new AppError("workspace_slug_taken", message, { details: [{ field: "slug", message }] });
  }

  /** Makes a workspace with its first admin. Throws `validation_error` for a name or quota that cannot be. */
  function create(workspace: NewWorkspace): Promise<{ workspaceId: string; userId: string }> {
    return db.write(() => insert(workspace));
  }

  /** Makes a workspace that its maker owns. Throws as `insert` does, `workspace_limit_exceeded` where they own too many, `insufficient_storage`. */
  async function createOwned(workspace: NewWorkspace & { userId: string }, ownedMax: number): Promise<Workspace> {
    db.checkFreeSpace();
    return db.write(() => {
      if ((countOwned.get(workspace.userId)?.owned ?? 0) >= ownedMax) {
        throw new AppError(
          "workspace_limit_exceeded",
          `You own ${ownedMax} workspaces, which is the most allowed: delete one that you no longer need`,
        );
      }
      const made = find(insert(workspace).workspaceId);
      if (made === undefined) throw new Error("A workspace that was just made is not there");
      return made;
    });
  }

  /** For the service itself and for administrators: it asks nobody's role. */
  function find(workspaceId: string): Workspace | undefined {
    const row = selectOne.get(workspaceId);
    return row && fromRow(row);
  }

  /** A workspace as far as the caller can see it. Throws `not_found`, alike for unknown, deleted and foreign ids. */
  function findVisible({ authKind, userId, workspaceId: own }: Principal, workspaceId: string): Workspace {
    if (authKind === "api_key" && workspaceId !== own) throw noWorkspace();
    const row = authKind === "api_key" ? selectOne.get(workspaceId) : selectOfMember.get({ workspaceId, userId });
    if (row === undefined) throw noWorkspace();
    return fromRow(row);
  }

  /** A session's memberships, or an API key's own workspace. In the order in which they were made. */
  async function listVisible(
    principal: Principal,
    { offset, limit }: { offset: number; limit: number },
  ): Promise<{ workspaces: Workspace[]; total: number }> {
    if (principal.authKind === "api_key") {
      const own = [findVisible(principal, principal.workspaceId)];
      return { workspaces: own.slice(offset, offset + limit), total: own.length };
    }
    const ids = await workspacesOf(principal.userId);
    const rows = ids.slice(offset, offset + limit).flatMap((id) => selectOne.get(id) ?? []);
    return { workspaces: rows.map(fromRow), total: ids.length };
  }

  /** The ids of a member's workspaces, read in short steps: others decide how many there are. */
  async function workspacesOf(userId: string): Promise<string[]> {
    const ids: string[] = [];
    for (let afterId = ""; ; ) {
      const step = selectMemberships.all({ userId, afterId, rows: MEMBERSHIPS_STEP_ROWS });
      for (const { workspaceId, isThere } of step) if (isThere === 1) ids.push(workspaceId);
      const last = step.at(-1);
      if (last === undefined || step.length < MEMBERSHIPS_STEP_ROWS) return ids;
      afterId = last.workspaceId;
      await giveWay(userId);
    }
  }

  /** Undefined where the user is no member, or the workspace is deleted. */
  function roleOf(workspaceId: string, userId: string): Role | undefined {
    return selectRole.get({ workspaceId, userId })?.role;
  }

  /** Changes what is given. Throws `not_found` for everyone but admins, `validation_error`, `workspace_slug_taken`. */
  async function patch({ userId }: Principal, workspaceId: string, changes: WorkspacePatch): Promise<Workspace> {
    const { slug, colorIdx, routingPriceSensitivity, routingLlmFit } = changes;
    const name = changes.name === undefined ? undefined : checkedName(changes.name);
    if (slug !== undefined) checkSlug(slug);
    return db.write(() => {
      // Only an admin is told which slugs are taken.
      if (roleOf(workspaceId, userId) !== "admin") throw noWorkspace();
      if (slug !== undefined) checkSlugFree(slug, workspaceId);
      const isChanged = Object.values(changes).some((value) => value !== undefined);
      const row = !isChanged
        ? selectOne.get(workspaceId)
        : updateFields.get({
            workspaceId,
            name: name ?? null,
            slug: slug ?? null,
            colorIdx: colorIdx ?? null,
            routingPriceSensitivity: routingPriceSensitivity ?? null,
            routingLlmFit: routingLlmFit === undefined ? null : Number(routingLlmFit),
            nowMs: now(),
          });
      if (row === undefined) throw noWorkspace();
      return fromRow(row);
    });
  }

  /** Throws `storage_limit_exceeded` where this many bytes more would exceed the quota, `not_found`. The schema asks again at the charge. */
  function checkRoom(workspaceId: string, sizeBytes: number): void {
    const workspace = find(workspaceId);
    // Deleted since the caller's credential was looked at.
    if (workspace === undefined) throw noWorkspace();
    if (workspace.storageBytesUsed + sizeBytes > workspace.storageBytesQuota) {
      throw storageLimitExceeded(sizeBytes, workspace);
    }
  }

  /** Sets the quota; below what is used only further charges are refused. Throws `not_found`. */
  async function setQuota(workspaceId: string, quota: number): Promise<Workspace> {
    checkQuota(quota);
    return db.write(() => {
      const updated = updateQuota.get({ workspaceId, quota, nowMs: now() });
      const workspace = updated && find(updated.workspaceId);
      if (workspace === undefined) throw noSuchWorkspace(workspaceId);
      return workspace;
    });
  }

  /**
   * Deletes a workspace for its owner: from now on every key, session and charge is refused; its uploads are removed in the
   * background, and the row stays for the ledger. Throws `not_found` for everyone else.
   */
  function remove({ userId }: Principal, workspaceId: string): Promise<void> {
    return db.writeStatement(() => {
      if (softDeleteByOwner.get({ workspaceId, userId, nowMs: now() }) === undefined) throw noWorkspace();
    });
  }

  /** The same for an administrator. Throws `not_found`. */
  function removeAny(workspaceId: string): Promise<void> {
    return db.writeStatement(() => {
      if (softDelete.get({ workspaceId, nowMs: now() }) === undefined) throw noSuchWorkspace(workspaceId);
    });
  }

  return {
    ...{ installationId, checkWritable, insert, create, createOwned, find, findVisible, listVisible, roleOf, patch },
    /** Whether there is a workspace at all. */
    hasAny: () => selectAny.get() !== undefined,
    list: () => selectAll.all().map(fromRow),
    ...{ checkRoom, setQuota, remove, removeAny },
  };
}

function fromRow(row: WorkspaceRow): Workspace {
  return { ...row, routingLlmFit: row.routingLlmFit === 1 };
}

function checkedName(text: string): string {
  const name = text.trim();
  if (name !== "" && name.length <= WORKSPACE_NAME_CHARS_MAX) return name;
  throw invalidField("name", `must have 1 to ${WORKSPACE_NAME_CHARS_MAX} characters`);
}

function checkQuota(quota: number): void {
  if (!Number.isSafeInteger(quota) || quota < 0)
    throw invalidField("quota", "must be a whole number of bytes, 0 or more");
}

/** For callers of the API: alike whether there is no such workspace or they have no part in it. */
export function noWorkspace(): AppError {
  return new AppError("not_found", "There is no such workspace");
}

/** For administrators: it quotes the id and names a command. */
export function noSuchWorkspace(workspaceId: string): AppError {
  return new AppError("not_found", `There is no workspace "${workspaceId}"`, {
    hint: "`stowage workspaces list` shows the ids",
  });
}

/** The refusal of a charge, with the figures that a person needs to act. */
export function storageLimitExceeded(sizeBytes: number, workspace: Workspace): AppError {
  const left = Math.max(0, workspace.storageBytesQuota - workspace.storageBytesUsed);
  return new AppError(
    "storage_limit_exceeded",
    `Cannot store ${sizeBytes} bytes: the workspace has ${left} bytes left of its quota of ${workspace.storageBytesQuota}. ` +
      "Delete other uploads or raise the quota; to give this one up, delete it",
  );
}
