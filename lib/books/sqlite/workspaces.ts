import { newId } from "../../ids.ts";
import { giveWay } from "../../pacer.ts";
import type { Manager, Principal } from "../principals.ts";
import { checkSlug, slugOf, withSuffix } from "../slugs.ts";
import {
  checkName,
  checkQuota,
  type FirstWorkspace,
  type NewWorkspace,
  noSuchWorkspace,
  noWorkspace,
  slugTaken,
  tooManyOwned,
  type Workspace,
  type WorkspacePatch,
  type Workspaces,
} from "../workspaces.ts";
import type { Db } from "./db/db.ts";
import type { KeyRows } from "./key_rows.ts";
import type { MembershipRows } from "./membership_rows.ts";
import type { UserRows } from "./user_rows.ts";
import type { WorkspaceRows } from "./workspace_rows.ts";

/** Memberships that one statement reads: about 1 ms of work. */
const STEP_ROWS = 250;

export interface WorkspacesParts {
  workspaces: WorkspaceRows;
  memberships: MembershipRows;
  users: UserRows;
  keys: KeyRows;
  now: () => number;
  /** Workspaces that one person may own. */
  ownedMax: number;
}

export function createWorkspaces(db: Db, parts: WorkspacesParts): Workspaces {
  const { workspaces, memberships, users, keys, now, ownedMax } = parts;

  async function create(manager: Manager, workspace: NewWorkspace): Promise<Workspace> {
    if (manager === "administrator") return db.write(() => insert(workspace));
    db.checkFreeSpace();
    return db.write(() => {
      if (workspaces.countOwned(manager.userId) >= ownedMax) throw tooManyOwned(ownedMax);
      return insert(workspace, manager.userId);
    });
  }

  function createFirst(workspace: NewWorkspace): Promise<FirstWorkspace | null> {
    return db.write(() => {
      if (workspaces.hasAny()) return null;
      const { workspaceId, createdBy: userId } = insert(workspace);
      return { workspaceId, userId, ...keys.insert({ workspaceId, userId }) };
    });
  }

  /** Inserts a workspace with its owner as the first admin; without `ownerId` the owner is a new user, who cannot sign in. */
  function insert({ name: text, storageBytesQuota, slug, colorIdx = 0 }: NewWorkspace, ownerId?: string): Workspace {
    const name = checkName(text);
    checkQuota(storageBytesQuota);
    const ids = { workspaceId: newId(), userId: ownerId ?? newId() };
    const row = { ...ids, name, slug: slug ?? freeSlug(name), colorIdx, quotaBytes: storageBytesQuota, nowMs: now() };
    checkSlug(row.slug);
    checkSlugIsFree(row.slug, null);
    if (ownerId === undefined) users.insert({ userId: ids.userId, name: `Owner of ${name}`, nowMs: row.nowMs });
    workspaces.insert(row);
    memberships.insert({ ...ids, role: "admin", nowMs: row.nowMs });
    const inserted = workspaces.find(ids.workspaceId);
    if (inserted === undefined) throw new Error("A workspace that was just inserted is not there");
    return inserted;
  }

  function freeSlug(name: string): string {
    const slug = slugOf(name);
    return workspaces.isSlugTaken(slug, null) ? withSuffix(slug) : slug;
  }

  function checkSlugIsFree(slug: string, workspaceId: string | null): void {
    if (workspaces.isSlugTaken(slug, workspaceId)) throw slugTaken(slug);
  }

  async function find(workspaceId: string): Promise<Workspace | undefined> {
    return workspaces.find(workspaceId);
  }

  async function findVisible(principal: Principal, workspaceId: string): Promise<Workspace> {
    const { authKind, userId, workspaceId: own } = principal;
    if (authKind === "api_key" && workspaceId !== own) throw noWorkspace();
    const workspace =
      authKind === "api_key" ? workspaces.find(workspaceId) : workspaces.findOfMember(workspaceId, userId);
    if (workspace === undefined) throw noWorkspace();
    return workspace;
  }

  async function listVisible(
    principal: Principal,
    { afterId, offset, limit }: { afterId?: string | undefined; offset: number; limit: number },
  ): Promise<{ workspaces: Workspace[]; total: number; nextAfterId: string | null }> {
    const isKey = principal.authKind === "api_key";
    const ids = isKey
      ? [(await findVisible(principal, principal.workspaceId)).workspaceId]
      : await listIdsOf(principal.userId);
    const first = afterId === undefined ? 0 : ids.findIndex((id) => id > afterId);
    const start = (first < 0 ? ids.length : first) + offset;
    const end = start + limit;
    const page = ids.slice(start, end).flatMap((id) => workspaces.find(id) ?? []);
    return { workspaces: page, total: ids.length, nextAfterId: (end < ids.length ? ids[end - 1] : undefined) ?? null };
  }

  /** The ids of a member's workspaces, read in short steps: others decide how many there are. */
  async function listIdsOf(userId: string): Promise<string[]> {
    const ids: string[] = [];
    for (let afterId = ""; ; ) {
      const step = memberships.listWorkspaces({ userId, afterId, rows: STEP_ROWS });
      for (const { workspaceId, exists } of step) if (exists === 1) ids.push(workspaceId);
      const last = step.at(-1);
      if (last === undefined || step.length < STEP_ROWS) return ids;
      afterId = last.workspaceId;
      await giveWay(userId);
    }
  }

  async function patch(
    { userId }: { userId: string },
    workspaceId: string,
    changes: WorkspacePatch,
  ): Promise<Workspace> {
    const { name, slug } = changes;
    const checked = name === undefined ? changes : { ...changes, name: checkName(name) };
    if (slug !== undefined) checkSlug(slug);
    return db.write(() => {
      // Only an admin is told which slugs are taken.
      if (memberships.findRole(workspaceId, userId) !== "admin") throw noWorkspace();
      if (slug !== undefined) checkSlugIsFree(slug, workspaceId);
      const workspace = workspaces.patch(workspaceId, checked, now());
      if (workspace === undefined) throw noWorkspace();
      return workspace;
    });
  }

  async function setQuota(workspaceId: string, quotaBytes: number): Promise<Workspace> {
    checkQuota(quotaBytes);
    return db.write(() => {
      const workspace = workspaces.setQuota({ workspaceId, quotaBytes, nowMs: now() });
      if (workspace === undefined) throw noSuchWorkspace(workspaceId);
      return workspace;
    });
  }

  function remove(manager: Manager, workspaceId: string): Promise<void> {
    return db.writeStatement(() => {
      if (manager === "administrator") {
        if (!workspaces.softDelete(workspaceId, now())) throw noSuchWorkspace(workspaceId);
      } else if (!workspaces.softDeleteByOwner({ workspaceId, userId: manager.userId, nowMs: now() })) {
        throw noWorkspace();
      }
    });
  }

  return {
    ...{ create, createFirst, find, findVisible, listVisible, patch, setQuota, remove },
    async list() {
      return workspaces.list();
    },
    async hasAny() {
      return workspaces.hasAny();
    },
  };
}
