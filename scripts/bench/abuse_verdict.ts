import { AssertionError } from "node:assert";
import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import Database from "better-sqlite3";
import * as z from "zod";
import { checkAll, rawTemporaryFiles } from "../../test/_books.ts";
import { type Child, openFiles } from "./children.ts";

/** After the abuse has ended everything that it held must be free again within this. */
const SETTLE_MS_MAX = 30_000;
const LOOK_MS = 250;
/** Files that a service may have open more than before the abuse: a log, a write-ahead log, a probe under way. */
const OPEN_FILES_MORE_MAX = 6;
/** Statuses that tell of an overload, which the abuse may well bring about for those who commit it. */
const OVERLOAD: readonly number[] = [503, 507];
const EXAMPLES_MAX = 5;
/** Of a difference found by a check, the beginning tells enough. */
const CHARS_MAX = 2_000;

const Line = z.looseObject({
  level: z.string(),
  msg: z.string(),
  route: z.string().optional(),
  status: z.number().optional(),
});

/** Waits until the service holds nothing of the abuse any more. Returns how long that took, and what is still held. */
export async function settle(
  service: Child,
  { dataDir, databaseFile, filesBefore }: { dataDir: string; databaseFile: string; filesBefore: number },
): Promise<{ tookMs: number; held: string[] }> {
  const db = new Database(databaseFile, { readonly: true });
  const countDue = db
    .prepare<[number], number>("SELECT count(*) FROM object_removals WHERE due_at_ms <= ? OR taken_at_ms IS NOT NULL")
    .pluck();
  const look = (): string[] => {
    if (service.ended() !== null) return [`the process: ${service.ended()}`];
    const due = countDue.get(Date.now()) ?? 0;
    const files = openFiles(service.pid);
    const halfWritten = rawTemporaryFiles(dataDir);
    return [
      ...(due > 0 ? [`${due} objects that are due to be removed`] : []),
      // Where the system does not tell there is no number to compare.
      ...(files > filesBefore + OPEN_FILES_MORE_MAX ? [`${files} open files, ${filesBefore} before`] : []),
      ...(halfWritten.length > 0 ? [`${halfWritten.length} half-written files`] : []),
    ];
  };
  const startedMs = performance.now();
  try {
    for (;;) {
      const held = look();
      const tookMs = performance.now() - startedMs;
      if (held.length === 0 || tookMs > SETTLE_MS_MAX || service.ended() !== null) return { tookMs, held };
      await delay(LOOK_MS);
    }
  } finally {
    db.close();
  }
}

/** What a log says of a run: each failure of the service's own, and how often each answer of 500 and above was given. */
export async function judgeLog(path: string): Promise<{ broken: string[]; overload: [string, number][] }> {
  const counts = new Map<string, { times: number; example: string }>();
  const overload = new Map<string, number>();
  for await (const text of createInterface({ input: createReadStream(path) })) {
    const line = text.startsWith("{") ? Line.safeParse(JSON.parse(text)).data : undefined;
    if (line === undefined) continue;
    const { level, msg, route = "", status = 0 } = line;
    const answer = `${status} on ${route}`;
    if (msg === "request" && OVERLOAD.includes(status)) overload.set(answer, (overload.get(answer) ?? 0) + 1);
    const isOurs = level === "error" || (msg === "request" && status >= 500 && !OVERLOAD.includes(status));
    if (!isOurs) continue;
    const what = msg === "request" ? `answered with ${answer}` : `logged the error ${msg}`;
    counts.set(what, { times: (counts.get(what)?.times ?? 0) + 1, example: counts.get(what)?.example ?? text });
  }
  const broken = [...counts].map(([what, { times, example }]) => `${what}, ${times} times: ${example}`);
  return { broken: broken.slice(0, EXAMPLES_MAX), overload: [...overload] };
}

/** What the raw database and the raw files of a stopped service say: the names of the invariants that are broken. */
export function judgeBooks(databaseFile: string, dataDir: string): string[] {
  const db = new Database(databaseFile, { readonly: true });
  try {
    const found = [
      ...failureOf(() => checkAll(db, dataDir)),
      ...db
        .prepare("SELECT id FROM workspaces WHERE storage_bytes_used > storage_bytes_quota")
        .pluck()
        .all()
        .map((id) => `BOOKS: charged above the quota: ${id}`),
      ...db.prepare("SELECT last_error FROM object_removals WHERE attempts > 0 LIMIT 1").pluck().all().map(String),
    ];
    const integrity = db.pragma("integrity_check", { simple: true });
    if (integrity !== "ok") found.push(`SQLite: ${integrity}`);
    return found;
  } finally {
    db.close();
  }
}

function failureOf(check: () => void): string[] {
  try {
    check();
    return [];
  } catch (error) {
    if (error instanceof AssertionError) return [error.message.slice(0, CHARS_MAX)];
    throw error;
  }
}
