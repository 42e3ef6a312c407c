import { giveWay } from "../../pacer.ts";
import { selectedWorkspace } from "../permissions.ts";
import type { Principal } from "../principals.ts";
import type { PageStart, Upload, UploadFilter, UploadPage, Uploads } from "../uploads.ts";
import type { Db } from "./db/db.ts";
import { createSharedReadings, type Reading, type SharedReadingOptions } from "./shared_reading.ts";
import { createUploadWalks, NO_FILTER, type Scope, type Walk } from "./upload_walks.ts";

/** Index entries that one statement reads: 0.5 ms or so. */
const STEP_ROWS_MAX = 2_000;
/** Ids are made of hexadecimal digits and hyphens: none comes after this. */
const AFTER_ALL_IDS = "g";
const ID_FORM = /^[0-9a-f-]{36}$/;

/** No total is kept for longer, whatever it cost. */
const TOTAL_KEPT_MS_MAX = 60_000;

interface UploadListsOptions extends SharedReadingOptions {
  stepRows?: number;
}

/**
 * Lists of uploads, newest first: in the order of their ids, which is the order in which they were made. An index is read
 * in short steps, between which requests are served: neither a place far down a long list nor a filter that few rows match
 * stalls anyone. Rows that come or go meanwhile are seen or not; a page's rows are read in its last step.
 */
export function createUploadLists(
  db: Db,
  { stepRows = STEP_ROWS_MAX, ...options }: UploadListsOptions = {},
): Pick<Uploads, "list" | "listOfWorkflow"> {
  const walks = createUploadWalks(db, stepRows);
  const counts = createSharedReadings<number>({ keptMsMax: TOTAL_KEPT_MS_MAX, ...options });

  async function list({ workspaceId, userId }: Principal, filter: UploadFilter, start: PageStart): Promise<UploadPage> {
    const scope: Scope = {
      workspaceId,
      userId: workspaceId === null ? userId : null,
      contextId: filter.contextId ?? null,
      status: filter.status ?? null,
      category: filter.category ?? null,
      filename: filter.filename ?? null,
      filenamePrefix: filter.filenamePrefix ?? null,
      createdFromMs: filter.createdFromMs ?? null,
      createdBeforeMs: filter.createdBeforeMs ?? null,
    };
    const from = walkOf(scope);
    if (from === null) return { uploads: [], total: 0, nextBeforeId: null };
    const { ids, nextBeforeId } = await pageOfIds(from, scope, start);
    const uploads = rowsOf(ids, scope);
    return { uploads, total: await totalOf(from, scope), nextBeforeId };
  }

  async function listOfWorkflow(
    principal: Principal,
    { workflowId, definitionJson }: { workflowId: string; definitionJson: string },
    start: PageStart,
  ): Promise<UploadPage> {
    const workspaceId = selectedWorkspace(principal);
    const scope: Scope = { ...NO_FILTER, workspaceId, userId: null, contextId: workflowId, status: "uploaded" };
    const named = await namedUploads(definitionJson, { workspaceId, workflowId });
    const { ids, nextBeforeId } = await pageOfIds(walks.ofContext, scope, start, named);
    const uploads = rowsOf(ids, { ...scope, contextId: null });
    return { uploads, total: (await totalOf(walks.ofContext, scope)) + named.length, nextBeforeId };
  }

  /** The index that leads to a scope's uploads; null if there are none. */
  function walkOf({ workspaceId, contextId }: Scope): Walk | null {
    if (contextId === null) return workspaceId === null ? walks.personal : walks.ofWorkspace;
    // All uploads of a context belong to its workspace. So one row tells whether any is the caller's, and a million of
    // another workspace's take no longer than none.
    return workspaceId !== null && walks.workspaceOfContext(contextId) === workspaceId ? walks.ofContext : null;
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
    return ids.flatMap((uploadId) => walks.rowOf(uploadId, scope) ?? []);
  }

  function totalOf(from: Walk, scope: Scope): Promise<number> {
    return counts.get(JSON.stringify(scope), () => countAll(from, scope));
  }

  async function countAll(from: Walk, scope: Scope): Promise<Reading<number>> {
    const counted = { value: 0, steps: 0, workMs: 0 };
    for (let beforeId = AFTER_ALL_IDS; ; ) {
      const startedMs = performance.now();
      const fromId = from.stepEnd.get({ ...scope, beforeId, rows: from.rows }) ?? "";
      counted.value += from.count.get({ ...scope, beforeId, fromId }) ?? 0;
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
    const { stepIds } = walks;
    const found: string[] = [];
    const ids = idsNamedIn(definitionJson);
    for (let start = 0; start < ids.length; start += stepIds) {
      // Before the first ones too: a definition may have taken a millisecond to parse.
      await giveWay(workspaceId);
      for (const uploadId of ids.slice(start, start + stepIds)) {
        if (walks.isNamed(uploadId, { workspaceId, workflowId })) found.push(uploadId);
      }
    }
    return newestFirst(found);
  }

  return { list, listOfWorkflow };
}

/** The owner who waits for a turn at a long read. */
function ownerOf({ workspaceId, userId }: Scope): string {
  return workspaceId ?? userId ?? "";
}

/** Every string in a JSON document that has the form of an id, each once. Names of members do not count. */
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
