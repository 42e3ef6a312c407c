import { queryInteger } from "./common.ts";
import type { CountedPagination } from "./envelope.ts";

/** Rows on one page of a list. */
export const PAGE_LIMIT_MAX = 100;
export const PAGE_LIMIT_DEFAULT = 50;
/** A page further on than this costs more than it is worth: filters find its rows. */
export const PAGE_OFFSET_MAX = 10_000_000;

/** The query parameters of a list whose pages are counted in rows, besides its filters. */
export function pageQuery({ limitDefault = PAGE_LIMIT_DEFAULT } = {}) {
  return {
    offset: queryInteger(0, PAGE_OFFSET_MAX).default(0),
    limit: queryInteger(1, PAGE_LIMIT_MAX).default(limitDefault),
  };
}

/** The links from one page of a list to its neighbours, root-relative, with the filters of this one. */
export function paginate(
  path: string,
  query: Record<string, unknown>,
  page: { offset: number; limit: number; total: number },
): CountedPagination {
  const { offset, limit, total } = page;
  const link = (to: number): string => pageLink(path, query, { offset: String(to) });
  return {
    next: offset + limit < total ? link(offset + limit) : null,
    prev: offset > 0 ? link(Math.max(0, offset - limit)) : null,
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
