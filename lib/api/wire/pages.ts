import * as z from "zod";
import { queryInteger } from "./common.ts";
import type { CountedPagination } from "./envelope.ts";

/**
 * Pages of lists. `next` carries a cursor: the key of the last row on this page. A client that follows it sees each row once,
 * however many come and go meanwhile. An offset is accepted as well; it counts rows, so it shifts with them.
 */

/** Rows on one page of a list. */
export const PAGE_LIMIT_MAX = 100;
const PAGE_LIMIT_DEFAULT = 50;
/** A page further on than this costs more than it is worth: filters find its rows. */
const PAGE_OFFSET_MAX = 10_000_000;

/** The beginning of the page that a cursor leads to. */
export interface Cursor<Key> {
  /** The key that the list is ordered by, of the last row before the page. */
  lastKey: Key;
  /** How many rows came before it when the list was begun. */
  offset: number;
}

/** How a list's key is written in a cursor. */
export interface KeyForm<Key> {
  print: (key: Key) => string;
  /** Null if the text cannot be a key. */
  parse: (text: string) => Key | null;
}

/** The key of lists that are ordered by id. */
export const ID_KEY: KeyForm<string> = {
  print: (id) => id,
  parse: (text) => (/^[0-9a-f-]{36}$/.test(text) ? text : null),
};

/** The query parameters of a list, besides its filters. */
export function pageQuery<Key>(form: KeyForm<Key>, { limitDefault = PAGE_LIMIT_DEFAULT } = {}) {
  const cursor = z.string("must be given once").transform((text, context): Cursor<Key> => {
    const decoded = decodeCursor(form, text);
    if (decoded !== null) return decoded;
    context.addIssue("must come from the next link of another page");
    return z.NEVER;
  });
  return {
    offset: queryInteger(0, PAGE_OFFSET_MAX).optional(),
    cursor: cursor.optional(),
    limit: queryInteger(1, PAGE_LIMIT_MAX).default(limitDefault),
  };
}

interface PageQuery<Key> {
  offset?: number | undefined;
  cursor?: Cursor<Key> | undefined;
  limit: number;
}

/** For `refine`: a page begins at an offset or at a cursor, not at both. */
export function beginsOnce({ offset, cursor }: PageQuery<unknown>): boolean {
  return offset === undefined || cursor === undefined;
}

export const BEGINS_TWICE = {
  path: ["cursor"],
  error: "cannot be given together with offset: a next link has the one that it needs",
};

/** The beginning of the requested page: `offset` rows after the one with `lastKey`, or after the beginning of the list. */
export function pageStart<Key>(query: PageQuery<Key>): { lastKey: Key | undefined; offset: number; limit: number } {
  const { offset = 0, cursor, limit } = query;
  return cursor === undefined ? { lastKey: undefined, offset, limit } : { lastKey: cursor.lastKey, offset: 0, limit };
}

/**
 * The links to the neighbours of a page. `path` is the list's below the host; `nextKey` is the key of the page's last row, or
 * null if no page follows. `prev` counts rows from the first one, even if a cursor led here: it is where that page was when
 * the list was begun, and rows that came or went since have shifted it.
 */
export function paginate<Key>(
  form: KeyForm<Key>,
  path: string,
  query: PageQuery<Key> & Record<string, unknown>,
  { nextKey, total }: { nextKey: Key | null; total: number },
): CountedPagination {
  const { limit } = query;
  const offset = query.cursor?.offset ?? query.offset ?? 0;
  const next = nextKey === null ? null : encodeCursor(form, { lastKey: nextKey, offset: offset + limit });
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

/** The link to another page of a list: the filters of `query`, where the page begins, and how long it is. */
export function pageLink(path: string, query: Record<string, unknown>, start: Record<string, string>): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (name === "offset" || name === "cursor" || name === "limit" || value === undefined) continue;
    for (const item of Array.isArray(value) ? value : [value]) search.append(name, String(item));
  }
  for (const [name, value] of Object.entries(start)) search.set(name, value);
  search.set("limit", String(query.limit));
  return `${path}?${search}`;
}

/** A path of ours as clients see it: below the path that the public URL ends in, if it has one. */
export function publicPath({ publicUrl }: { publicUrl: string | null }, path: string): string {
  return publicUrl === null ? path : new URL(publicUrl).pathname.replace(/\/$/, "") + path;
}

/** It holds no secret, and nothing that a caller could not request anyway: only its form is ours to change. */
function encodeCursor<Key>({ print }: KeyForm<Key>, { lastKey, offset }: Cursor<Key>): string {
  return Buffer.from(`${print(lastKey)} ${offset}`).toString("base64url");
}

function decodeCursor<Key>(form: KeyForm<Key>, text: string): Cursor<Key> | null {
  const [, keyText, offset] = /^(.*) (\d{1,15})$/s.exec(Buffer.from(text, "base64url").toString()) ?? [];
  if (keyText === undefined || offset === undefined) return null;
  const lastKey = form.parse(keyText);
  if (lastKey === null) return null;
  const decoded = { lastKey, offset: Number(offset) };
  // The decoder skips characters that are not base64url.
  return encodeCursor(form, decoded) === text ? decoded : null;
}
