import type { Db } from "./db.ts";
import { AppError, invalidField } from "./errors.ts";
import { newId } from "./ids.ts";

/** Characters of a workspace's name. */
export const WORKSPACE_NAME_CHARS_MAX = 200;

export interface Workspace {
  workspaceId: string;
  name: string;
  storageBytesUsed: number;
  storageBytesQuota: number;
  createdAtMs: number;
}

export interface NewWorkspace {
  name: string;
  storageBytesQuota: number;
  /** The user who becomes its admin; a new one is made where it is left out. */
  userId?: string;
}

export type Workspaces = ReturnType<typeof createWorkspaces>;

/** Workspaces, their quotas and their members. */
export function createWorkspaces(db: Db, now: () => number) {
  const selectInstallation = db.prepare<[], { id: string }>("SELECT id FROM installation");
  const probe = db.prepare<[number]>("UPDATE installation SET probed_at_ms = ?");
  const insertUser = db.prepare<{ userId: string; name: string; nowMs: number }>(
    "INSERT INTO users (id, name, created_at_ms) VALUES (:userId, :name, :nowMs)",
  );
  const insertWorkspace = db.prepare<{
    workspaceId: string;
    name: string;
    userId: string;
    quota: number;
    nowMs: number;
  }>(`
    INSERT INTO workspaces (id, name, created_by, storage_bytes_quota, created_at_ms, updated_at_ms)
    VALUES (:workspaceId, :name, :userId, :quota, :nowMs, :nowMs)`);
  const insertAdmin = db.prepare<{ workspaceId: string; userId: string; nowMs: number }>(`
    INSERT INTO memberships (workspace_id, user_id, role, created_at_ms)
    VALUES (:workspaceId, :userId, 'admin', :nowMs)`);
  const columns = `
    id AS workspaceId, name, storage_bytes_used AS storageBytesUsed, storage_bytes_quota AS storageBytesQuota,
    created_at_ms AS createdAtMs`;
  const selectOne = db.prepare<[string], Workspace>(`
    SELECT ${columns} FROM workspaces WHERE id = ? AND deleted_at_ms IS NULL`);
  const selectAll = db.prepare<[], Workspace>(`
    SELECT ${columns} FROM workspaces WHERE deleted_at_ms IS NULL ORDER BY id`);
  const updateQuota = db.prepare<{ workspaceId: string; quota: number; nowMs: number }, { workspaceId: string }>(`
    UPDATE workspaces
       SET storage_bytes_quota = :quota, updated_at_ms = :nowMs
     WHERE id = :workspaceId AND deleted_at_ms IS NULL
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
   * Makes a workspace with its first admin. Runs inside a write. Throws `validation_error` for a name or quota that
   * cannot be.
   */
  function insert(workspace: NewWorkspace): { workspaceId: string; userId: string } {
    const { storageBytesQuota, userId } = workspace;
    const name = workspace.name.trim();
    if (name === "" || name.length > WORKSPACE_NAME_CHARS_MAX) {
      throw invalidField("name", `must have 1 to ${WORKSPACE_NAME_CHARS_MAX} characters`);
    }
    checkQuota(storageBytesQuota);
    const nowMs = now();
    const made = { workspaceId: newId(), userId: userId ?? newId() };
    if (userId === undefined) insertUser.run({ userId: made.userId, name: `Owner of ${name}`, nowMs });
    insertWorkspace.run({ workspaceId: made.workspaceId, name, userId: made.userId, quota: storageBytesQuota, nowMs });
    insertAdmin.run({ ...made, nowMs });
    return made;
  }

  /** Makes a workspace with its first admin. Throws `validation_error` for a name or quota that cannot be. */
  function create(workspace: NewWorkspace): Promise<{ workspaceId: string; userId: string }> {
    return db.write(() => insert(workspace));
  }

  function find(workspaceId: string): Workspace | undefined {
    return selectOne.get(workspaceId);
  }

  /** Throws `storage_limit_exceeded` where this many bytes more would exceed the quota. The schema asks again at the charge. */
  function checkRoom(workspaceId: string, sizeBytes: number): void {
    const workspace = find(workspaceId);
    if (workspace === undefined || workspace.storageBytesUsed + sizeBytes > workspace.storageBytesQuota) {
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

  return { installationId, checkWritable, insert, create, find, list: () => selectAll.all(), checkRoom, setQuota };
}

function checkQuota(quota: number): void {
  if (!Number.isSafeInteger(quota) || quota < 0)
    throw invalidField("quota", "must be a whole number of bytes, 0 or more");
}

/** For administrators: it quotes the id and names a command. */
export function noSuchWorkspace(workspaceId: string): AppError {
  return new AppError("not_found", `There is no workspace "${workspaceId}"`, {
    hint: "`stowage workspaces list` shows the ids",
  });
}

/** The refusal of a charge, with the figures that a person needs to act. */
export function storageLimitExceeded(sizeBytes: number, workspace: Workspace | undefined): AppError {
  const left = workspace === undefined ? 0 : Math.max(0, workspace.storageBytesQuota - workspace.storageBytesUsed);
  return new AppError(
    "storage_limit_exceeded",
    `Cannot store ${sizeBytes} bytes: the workspace has ${left} bytes left of its quota of ${workspace?.storageBytesQuota ?? 0}. ` +
      "Delete other uploads or raise the quota; to give this one up, delete it",
  );
}
