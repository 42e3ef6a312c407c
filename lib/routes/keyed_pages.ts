import * as z from "zod";
import type { PageStart, UploadPage } from "../core/upload_lists.ts";
import type { Pagination } from "../http/routes.ts";
import { pageLink } from "./present.ts";
import { PAGE_LIMIT_DEFAULT, PAGE_LIMIT_MAX, PAGE_OFFSET_MAX, queryInteger } from "./schemas.ts";

/**
 * Pages of lists that are ordered by a key. `next` carries a cursor: the last key that was shown. Who follows it sees each
 * row once, however many come and go meanwhile. An offset is accepted as well; it counts places, which shift.
 */

/** Where a page begins that a cursor leads to. */
interface Cursor {
  /** The id of the last row before it. */
  beforeId: string;
  /** How many rows lay before it when the list was begun. */
  offset: number;
}

const cursor = z.string("must be given once").transform((text, ctx): Cursor => {
  const found = decodeCursor(text);
  if (found !== null) return found;
  ctx.addIssue("must come from the next link of another page");
  return z.NEVER;
});

/** What the query of such a list has besides its filters. */
export const keyedPage = {
  offset: queryInteger(0, PAGE_OFFSET_MAX).optional(),
  cursor: cursor.optional(),
  limit: queryInteger(1, PAGE_LIMIT_MAX).default(PAGE_LIMIT_DEFAULT),
};

interface KeyedPage {
  offset?: number | undefined;
  cursor?: Cursor | undefined;
  limit: number;
}

/** For `refine`: a page begins at an offset or at a cursor. */
export function beginsOnce({ offset, cursor }: KeyedPage): boolean {
  return offset === undefined || cursor === undefined;
}

export const BEGINS_TWICE = {
  path: ["cursor"],
  error: "cannot be given together with offset: a next link has the one that it needs",
};

/** Where the page that was asked for begins. */
export function pageStart({ offset = 0, cursor, limit }: KeyedPage): PageStart {
  return cursor === undefined ? { offset, limit } : { beforeId: cursor.beforeId, offset: 0, limit };
}

/**
 * The links to the neighbours of a page. `prev` is counted in places from the newest row, also if a cursor led here: it is
 * where that page was when the list was begun, and rows that came or went since have shifted it.
 */
export function paginateByKey(
  path: string,
  query: KeyedPage & Record<string, unknown>,
  { nextBeforeId, total }: Pick<UploadPage, "nextBeforeId" | "total">,
): Pagination {
  const { limit } = query;
  const offset = query.cursor?.offset ?? query.offset ?? 0;
  const next = nextBeforeId === null ? null : encodeCursor({ beforeId: nextBeforeId, offset: offset + limit });
  const prevOffset = offset > 0 ? Math.max(0, offset - limit) : null;
  return {
    next: next === null ? null : pageLink(path, query, { cursor: next }),
    prev:
      prevOffset === null || prevOffset > PAGE_OFFSET_MAX
        ? null
        : pageLink(path, query, { offset: String(prevOffset) }),
    limit,
    total,
  };
}

/** No secret, and nothing that a caller could not ask for anyway: only its form is ours to change. */
function encodeCursor({ beforeId, offset }: Cursor): string {
  return Buffer.from(`${beforeId} ${offset}`).toString("base64url");
}

function decodeCursor(text: string): Cursor | null {
  const [, beforeId, offset] =
    /^([0-9a-f-]{36}) (\d{1,15})$/.exec(Buffer.from(text, "base64url").toString("latin1")) ?? [];
  if (beforeId === undefined || offset === undefined) return null;
  const found = { beforeId, offset: Number(offset) };
  // The decoder passes over what is no base64url.
  return encodeCursor(found) === text ? found : null;
}
