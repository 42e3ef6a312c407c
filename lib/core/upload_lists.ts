import type { Db } from "../db/db.ts";
import { giveWay } from "../pacer.ts";
import type { Category } from "./file_types.ts";
import { type Counted, createKeptCounts, type KeptCountsOptions } from "./kept_counts.ts";
import { selectedWorkspace } from "./permissions.ts";
import type { Principal } from "./principals.ts";
import { UPLOAD_COLUMNS } from "./upload_views.ts";
import type { Upload } from "./uploads.ts";

/** Index entries that one statement reads: 0.5 ms or so. */
const STEP_ROWS_MAX = 2_000;
/** An entry whose row has to be looked at costs this many times as much; an id that is looked up by itself as well. */
const LOOK_COST = 8;
/** Ids are made of hexadecimal digits and hyphens: none comes after this. */
const AFTER_ALL_IDS = "g";
const ID_FORM = /^[0-9a-f-]{36}$/;

export interface UploadFilter {
  status?: "pending" | "uploaded" | undefined;
  category?: Category | undefined;
  contextId?: string | undefined;
}

/** Where a page begins, in the order of the list: after this many uploads, of those with ids below `beforeId`. */
export interface PageStart {
  beforeId?: string | undefined;
  offset: number;
  limit: number;
}

export interface UploadPage {
  uploads: Upload[];
  total: number;
  /** Where the next page begins; null if there is none. */
  nextBeforeId: string | null;
}

interface UploadListsOptions extends KeptCountsOptions {
  stepRows?: number;
}

/** The uploads that a list is made of. A null filters nothing. */
interface Scope {
  /** Null for personal uploads. */
  workspaceId: string | null;
  /** Whose personal uploads; null in a workspace. */
  userId: string | null;
  contextId: string | null;
  status: string | null;
  category: string | null;
}

/**
 * Lists of uploads, newest first: in the order of their ids, which is the order in which they were made. An index is read
 * in short steps, between which requests are answered: neither a place far down a long list nor a filter that few rows
 * match stalls anyone. Rows that come or go meanwhile are seen or not; a page's rows are read in its last step.
 */
export function createUploadLists(db: Db, { stepRows = STEP_ROWS_MAX, ...options }: UploadListsOptions = {}) {
  const filterSql = `
       AND (:status IS NULL OR status = :status)
       AND (:category IS NULL OR category = :category)`;
  /** The statements for an index that has the wanted entries in the order of ids. */
  const walk = (keySql: string, restSql: string, rows: number) => ({
    rows,
    stepEnd: db
      .prepare<Scope & { beforeId: string; rows: number }, string>(`
      SELECT id FROM uploads WHERE ${keySql} AND id < :beforeId ORDER BY id DESC LIMIT 1 OFFSET :rows - 1`)
      .pluck(),
    count: db
      .prepare<Scope & Range, number>(`
      SELECT count(*) FROM uploads WHERE ${keySql} AND id < :beforeId AND id >= :fromId ${restSql}`)
      .pluck(),
    ids: db
      .prepare<Scope & Range & { limit: number }, string>(`
      SELECT id FROM uploads WHERE ${keySql} AND id < :beforeId AND id >= :fromId ${restSql} ORDER BY id DESC LIMIT :limit`)
      .pluck(),
  });
  type Walk = ReturnType<typeof walk>;
  const ofWorkspace = walk("workspace_id = :workspaceId", filterSql, stepRows);
  const personal = walk("workspace_id IS NULL AND user_id = :userId", filterSql, stepRows);
  const ofContext = walk(
    "context_id = :contextId",
    `AND +workspace_id = :workspaceId ${filterSql}`,
    Math.ceil(stepRows / LOOK_COST),
  );
  const selectContextOwner = db
    .prepare<[string], string | null>(`
    SELECT workspace_id FROM uploads WHERE context_id = ? ORDER BY id DESC LIMIT 1`)
    .pluck();
  const selectRow = db.prepare<Scope & { uploadId: string }, Upload>(`
    SELECT ${UPLOAD_COLUMNS} FROM uploads
     WHERE id = :uploadId AND workspace_id IS :workspaceId AND (:userId IS NULL OR user_id = :userId) ${filterSql}
       AND (:contextId IS NULL OR context_id = :contextId)`);
  const selectNamed = db
    .prepare<{ uploadId: string; workspaceId: string; workflowId: string }, string>(`
    SELECT id FROM uploads
     WHERE id = :uploadId AND workspace_id = :workspaceId AND status = 'uploaded' AND context_id IS NOT :workflowId`)
    .pluck();
  const counts = createKeptCounts(options);

  /** The uploads of the selected workspace, newest first; if none is selected, the caller's personal ones. */
  async function list({ workspaceId, userId }: Principal, filter: UploadFilter, start: PageStart): Promise<UploadPage> {
    const scope: Scope = {
      workspaceId,
      userId: workspaceId === null ? userId : null,
      contextId: filter.contextId ?? null,
      status: filter.status ?? null,
      category: filter.category ?? null,
    };
    const from = walkOf(scope);
    if (from === null) return { uploads: [], total: 0, nextBeforeId: null };
    const { ids, nextBeforeId } = await pageOfIds(from, scope, start);
    const uploads = rowsOf(ids, scope);
    return { uploads, total: await totalOf(from, scope), nextBeforeId };
  }

  /**
   * The confirmed uploads of a workflow, newest first: those that are bound to it, and those of the workspace that its
   * definition names by id although they are bound to another context.
   */
  async function listOfWorkflow(
    principal: Principal,
    { workflowId, definitionJson }: { workflowId: string; definitionJson: string },
    start: PageStart,
  ): Promise<UploadPage> {
    const workspaceId = selectedWorkspace(principal);
    const scope: Scope = { workspaceId, userId: null, contextId: workflowId, status: "uploaded", category: null };
    const named = await namedUploads(definitionJson, { workspaceId, workflowId });
    const { ids, nextBeforeId } = await pageOfIds(ofContext, scope, start, named);
    const uploads = rowsOf(ids, { ...scope, contextId: null });
    return { uploads, total: (await totalOf(ofContext, scope)) + named.length, nextBeforeId };
  }

  /** The index that leads to a scope's uploads; null if there are none. */
  function walkOf({ workspaceId, contextId }: Scope): Walk | null {
    if (contextId === null) return workspaceId === null ? personal : ofWorkspace;
    // All uploads of a context belong to its workspace. So one row tells whether any is the caller's, and a million of
    // another workspace's take no longer than none.
    return workspaceId !== null && selectContextOwner.get(contextId) === workspaceId ? ofContext : null;
  }

  /** The ids of a page. `extraIds`, newest first, belong to the list as well; the walk does not come to them. */
  async function pageOfIds(
    from: Walk,
    scope: Scope,
    { beforeId: startId = AFTER_ALL_IDS, offset, limit }: PageStart,
    extraIds: readonly string[] = [],
  ): Promise<{ ids: string[]; nextBeforeId: string | null }> {
    // One more than asked for tells whether another page follows.
    const ids: string[] = [];
    let skip = offset;
    for (let beforeId = startId; ; ) {
      const fromId = from.stepEnd.get({ ...scope, beforeId, rows: from.rows }) ?? "";
      const range = { ...scope, beforeId, fromId };
      const extras = extraIds.filter((id) => id < beforeId && id >= fromId);
      const entries = skip === 0 ? 0 : (from.count.get(range) ?? 0) + extras.length;
      if (skip > 0 && entries <= skip) skip -= entries;
      else {
        const wanted = skip + limit + 1 - ids.length;
        const found = from.ids.all({ ...range, limit: wanted });
        ids.push(...(extras.length === 0 ? found : newestFirst([...found, ...extras])).slice(skip, wanted));
        skip = 0;
      }
      if (ids.length > limit) return { ids: ids.slice(0, limit), nextBeforeId: ids[limit - 1] ?? null };
      if (fromId === "") return { ids, nextBeforeId: null };
      beforeId = fromId;
      await giveWay(ownerOf(scope));
    }
  }

  /** The rows of ids, without those that have gone or no longer match since their ids were read. */
  function rowsOf(ids: readonly string[], scope: Scope): Upload[] {
    return ids.flatMap((uploadId) => selectRow.get({ ...scope, uploadId }) ?? []);
  }

  function totalOf(from: Walk, scope: Scope): Promise<number> {
    return counts.get(JSON.stringify(scope), () => countAll(from, scope));
  }

  async function countAll(from: Walk, scope: Scope): Promise<Counted> {
    const counted = { total: 0, steps: 0, workMs: 0 };
    for (let beforeId = AFTER_ALL_IDS; ; ) {
      const startedMs = performance.now();
      const fromId = from.stepEnd.get({ ...scope, beforeId, rows: from.rows }) ?? "";
      counted.total += from.count.get({ ...scope, beforeId, fromId }) ?? 0;
      counted.steps++;
      counted.workMs += performance.now() - startedMs;
      if (fromId === "") return counted;
      beforeId = fromId;
      await giveWay(ownerOf(scope));
    }
  }

  /** The uploads that a workflow's definition names and that are not bound to it, newest first. */
  async function namedUploads(
    definitionJson: string,
    { workspaceId, workflowId }: { workspaceId: string; workflowId: string },
  ): Promise<string[]> {
    const stepIds = Math.ceil(stepRows / LOOK_COST);
    const found: string[] = [];
    const ids = idsNamedIn(definitionJson);
    for (let start = 0; start < ids.length; start += stepIds) {
      // Before the first ones too: a definition may have taken a millisecond to parse.
      await giveWay(workspaceId);
      for (const uploadId of ids.slice(start, start + stepIds)) {
        if (selectNamed.get({ uploadId, workspaceId, workflowId }) !== undefined) found.push(uploadId);
      }
    }
    return newestFirst(found);
  }

  return { list, listOfWorkflow };
}

/** Who waits for their turn at a long read. */
function ownerOf({ workspaceId, userId }: Scope): string {
  return workspaceId ?? userId ?? "";
}

/** Ids from here, inclusive, up to `beforeId`, exclusive. */
interface Range {
  fromId: string;
  beforeId: string;
}

/** Every text in a JSON document that has the form of an id, each once. Names of members are no texts of it. */
function idsNamedIn(json: string): string[] {
  const ids = new Set<string>();
  const rest: unknown[] = [JSON.parse(json)];
  while (rest.length > 0) {
    const value = rest.pop();
    if (typeof value === "string" && ID_FORM.test(value)) ids.add(value);
    if (typeof value === "object" && value !== null) for (const part of Object.values(value)) rest.push(part);
  }
  return [...ids];
}

function newestFirst(ids: readonly string[]): string[] {
  return ids.toSorted().reverse();
}
