import { AppError, invalidField } from "../errors.ts";
import type { Manager, Principal } from "./principals.ts";

/** The most characters in a workspace's name. */
export const WORKSPACE_NAME_CHARS_MAX = 200;
/** The highest index into the palette that clients know. */
export const COLOR_IDX_MAX = 6;

export interface Workspace {
  workspaceId: string;
  name: string;
  slug: string;
  colorIdx: number;
  /** The owner's user id. */
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
  /** By default derived from the name. */
  slug?: string | undefined;
  /** 0 by default. */
  colorIdx?: number | undefined;
}

/** The fields to change; absent ones stay as they are. */
export interface WorkspacePatch {
  name?: string | undefined;
  slug?: string | undefined;
  colorIdx?: number | undefined;
  routingPriceSensitivity?: number | undefined;
  routingLlmFit?: boolean | undefined;
}

/** A workspace with its owner and an API key for it. The key itself can be seen only here. */
export interface FirstWorkspace {
  workspaceId: string;
  userId: string;
  apiKeyId: string;
  apiKey: string;
}

/** Workspaces and their quotas. A deleted workspace is gone for every verb here; its row stays, for the ledger. */
export interface Workspaces {
  /**
   * Creates a workspace together with its first admin, the owner. A person becomes the owner themselves, as long as they own
   * fewer workspaces than the setting allows; for an administrator a new user is made, who cannot sign in.
   *
   * Throws `validation_error` for an invalid name, slug or quota, and `workspace_slug_taken`; for a person also
   * `workspace_limit_exceeded`, and `insufficient_storage` if the disk is nearly full.
   */
  create(manager: Manager, workspace: NewWorkspace): Promise<Workspace>;

  /**
   * Creates the first workspace, with an owner and an API key that has every scope; resolves with null, and changes nothing,
   * if there is a workspace already. Throws `validation_error` for an invalid name, slug or quota.
   */
  createFirst(workspace: NewWorkspace): Promise<FirstWorkspace | null>;

  /** Finds a workspace whoever asks: it checks no role. Resolves with undefined if it is unknown or deleted. */
  find(workspaceId: string): Promise<Workspace | undefined>;

  /** Finds a workspace that the caller can see. Throws `not_found`, the same for unknown, deleted and foreign ids. */
  findVisible(principal: Principal, workspaceId: string): Promise<Workspace>;

  /**
   * Lists the workspaces that a session's user is a member of, or an API key's own, in the order of their creation. `total`
   * counts all of them, not just this page. A page begins `offset` workspaces after the one with the id `afterId`, or after
   * the beginning; `nextAfterId` is where the next page begins, or null. Throws `not_found` if an API key's workspace was
   * deleted a moment ago.
   */
  listVisible(
    principal: Principal,
    page: { afterId?: string | undefined; offset: number; limit: number },
  ): Promise<{ workspaces: Workspace[]; total: number; nextAfterId: string | null }>;

  /** Lists every workspace for an administrator, in the order of creation. */
  list(): Promise<Workspace[]>;

  /** Tells whether there is any workspace. */
  hasAny(): Promise<boolean>;

  /**
   * Changes the given fields. Throws `not_found` unless the caller is an admin of the workspace, `validation_error` for an
   * invalid name or slug, `workspace_slug_taken`.
   */
  patch(manager: { userId: string }, workspaceId: string, changes: WorkspacePatch): Promise<Workspace>;

  /**
   * Sets the quota, in bytes. It may be less than what is used: then only further charges are refused. Throws `not_found`,
   * and `validation_error` for an invalid number.
   */
  setQuota(workspaceId: string, quotaBytes: number): Promise<Workspace>;

  /**
   * Deletes a workspace. From the commit on every key, session and charge for it is refused; its uploads, workflows and
   * members are removed in the background, and its row stays for the ledger. Throws `not_found`, for a person also unless
   * they own the workspace and are still a member.
   */
  remove(manager: Manager, workspaceId: string): Promise<void>;
}

/** Returns the name without spaces around it. Throws `validation_error` if it is empty or too long. */
export function checkName(text: string): string {
  const name = text.trim();
  if (name !== "" && name.length <= WORKSPACE_NAME_CHARS_MAX) return name;
  throw invalidField("name", `must have 1 to ${WORKSPACE_NAME_CHARS_MAX} characters`);
}

/** Throws `validation_error` unless the quota is a whole number of bytes. */
export function checkQuota(quotaBytes: number): void {
  if (Number.isSafeInteger(quotaBytes) && quotaBytes >= 0) return;
  throw invalidField("quota", "must be a whole number of bytes, 0 or more");
}

/** For callers of the API: the same whether there is no such workspace or they have no part in it. */
export function noWorkspace(): AppError {
  return new AppError("not_found", "There is no such workspace");
}

/** For administrators: it quotes the id and names a command. */
export function noSuchWorkspace(workspaceId: string): AppError {
  return new AppError("not_found", `There is no workspace "${workspaceId}"`, {
    hint: "`stowage workspaces list` shows the ids",
  });
}

/** For a session that selects a workspace: the same whether there is none or its user is no member. */
export function noSelectedWorkspace(): AppError {
  return new AppError("not_found", "X-Workspace-Id names no workspace of yours");
}

export function slugTaken(slug: string): AppError {
  const message = `Another workspace has the slug ${JSON.stringify(slug)}: choose another`;
  return new AppError("workspace_slug_taken", message, { details: [{ field: "slug", message }] });
}

export function tooManyOwned(ownedMax: number): AppError {
  return new AppError(
    "workspace_limit_exceeded",
    `You own ${ownedMax} workspaces, which is the most allowed: delete one that you no longer need`,
  );
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
