/** The properties of a route that a router needs. */
interface Routable {
  method: string;
  /** Segments that begin with a colon are parameters; a last segment `*` stands for any number of segments. */
  path: string;
}

interface Node<R> {
  path: string;
  segments: string[];
  byMethod: Map<string, R>;
  allow: string;
}

/** Paths by their number of segments, so that few are left to compare. Those of any depth are under -1. */
export type RouteTable<R> = Map<number, Node<R>[]>;

/** The last segment of a path of any depth. */
const REST = "*";

export type Match<R> =
  | { kind: "none" }
  /** `others`: the routes of the path's other methods. */
  | { kind: "other_method"; path: string; allow: string; others: readonly R[] }
  | { kind: "route"; path: string; allow: string; route: R; params: Record<string, string> };

/** Prepares routes for `matchRoute`. */
export function routeTable<R extends Routable>(routes: readonly R[]): RouteTable<R> {
  const table: RouteTable<R> = new Map();
  for (const route of routes) {
    const segments = route.path.split("/");
    const size = segments.at(-1) === REST ? -1 : segments.length;
    const nodes = table.get(size) ?? [];
    table.set(size, nodes);
    let node = nodes.find((other) => other.path === route.path);
    if (node === undefined) {
      node = { path: route.path, segments, byMethod: new Map(), allow: "" };
      nodes.push(node);
    }
    node.byMethod.set(route.method, route);
    // HEAD gets the response to GET, without the body.
    if (route.method === "GET") node.byMethod.set("HEAD", route);
    node.allow = [...node.byMethod.keys(), "OPTIONS"].join(", ");
  }
  return table;
}

/** Finds the route of a path. Parameters are decoded; one that cannot be stays as it came, and its schema refuses it. */
export function matchRoute<R>(table: RouteTable<R>, method: string, path: string): Match<R> {
  const segments = path.split("/");
  const node =
    table.get(segments.length)?.find((candidate) => fits(candidate.segments, segments)) ??
    table.get(-1)?.find((candidate) => fits(candidate.segments.slice(0, -1), segments));
  if (node === undefined) return { kind: "none" };
  const route = node.byMethod.get(method);
  if (route === undefined) {
    return { kind: "other_method", path: node.path, allow: node.allow, others: [...node.byMethod.values()] };
  }
  return { kind: "route", path: node.path, allow: node.allow, route, params: paramsOf(node.segments, segments) };
}

function fits(pattern: readonly string[], segments: readonly string[]): boolean {
  for (let i = 0; i < pattern.length; i++) {
    if (pattern[i] !== segments[i] && pattern[i]?.startsWith(":") !== true) return false;
  }
  return true;
}

function paramsOf(pattern: readonly string[], segments: readonly string[]): Record<string, string> {
  const params: Record<string, string> = {};
  for (const [i, name] of pattern.entries()) {
    if (!name.startsWith(":")) continue;
    params[name.slice(1)] = decode(segments[i] ?? "");
  }
  return params;
}

function decode(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}
