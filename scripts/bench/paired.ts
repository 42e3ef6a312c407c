import { execFileSync } from "node:child_process";
import { join, resolve } from "node:path";
import * as z from "zod";
import { type Child, startServiceOf } from "./children.ts";
import type { BenchContext } from "./context.ts";
import { type BenchDatabase, openBenchDatabase } from "./database.ts";
import type { LoadRequest } from "./load.ts";
import { measureRun } from "./measure.ts";
import { formatRun, medians, pairedRatio, printTable, RUN_COLUMNS, type Run, type Target } from "./report.ts";

export const THIS_CHECKOUT = join(import.meta.dirname, "../..");
const CONNECTIONS = 64;
/** A run takes about a second. */
const REQUESTS = { create: 9_000, DELETE: 9_000 } as const;
/** Confirmed uploads that each DELETE finds beside those that it deletes. */
const OTHER_ROWS = 10_000;

type What = keyof typeof REQUESTS;
export type Name = "this" | "base";

/** One checkout under load, with the database that it made itself. */
export interface Subject {
  child: Child;
  db: BenchDatabase;
  workspaceId: string;
  key: string;
}

/**
 * Measures create and DELETE of this checkout and of another one, in turn: what a change costs, or wins. Each uses its own
 * code and its own packages, and what is measured goes over HTTP alone, so the two may be far apart.
 */
export async function measurePaired(context: BenchContext, base: string): Promise<Target[]> {
  const subjects: Record<Name, Subject> = {
    this: await startSubject(context.folder, "this", THIS_CHECKOUT),
    base: await startSubject(context.folder, "base", resolve(base)),
  };
  const runs: Record<What, Record<Name, Run[]>> = { create: { this: [], base: [] }, DELETE: { this: [], base: [] } };
  try {
    // The round before the first warms up: its figures do not count.
    for (let round = -1; round < context.rounds; round++) {
      for (const what of ["create", "DELETE"] as const) {
        // The second run finds a warmer disk, so the two alternate.
        for (const name of round % 2 === 0 ? (["this", "base"] as const) : (["base", "this"] as const)) {
          const run = await measureOne(context, subjects[name], what);
          if (round >= 0) runs[what][name].push(run);
        }
      }
    }
  } finally {
    for (const { child, db } of Object.values(subjects)) {
      await child.stop();
      db.close();
    }
  }
  return report(runs);
}

export async function startSubject(folder: string, name: Name, root: string): Promise<Subject> {
  const dataDir = join(folder, `paired-${name}`);
  const init = execFileSync("./scripts/stowage", ["init", "--json"], {
    cwd: root,
    env: { ...process.env, STOWAGE_DATA_DIR: dataDir },
    encoding: "utf8",
  });
  const { workspace_id: workspaceId, api_key: key } = z
    .object({ workspace_id: z.string(), api_key: z.string() })
    .parse(JSON.parse(init));
  const child = await startServiceOf(root, dataDir);
  const db = openBenchDatabase(join(dataDir, "stowage.db"));
  // Only now: a server that starts with uploads and without objects would take the store for another one.
  db.addRows(db.plan(OTHER_ROWS, [workspaceId]));
  return { child, db, workspaceId, key };
}

async function measureOne(context: BenchContext, subject: Subject, what: What): Promise<Run> {
  const { child, db, workspaceId, key } = subject;
  const count = Math.ceil(REQUESTS[what] * context.scale);
  if (what === "create") {
    const body = JSON.stringify({ filename: "file.bin", category: "file" });
    const requests = Array.from(
      { length: count },
      (): LoadRequest => ({ method: "POST", path: "/api/v1/uploads", key, body }),
    );
    return await measureRun(context.load, child, { connections: CONNECTIONS, requests });
  }
  const rows = db.pick("in order", count);
  const requests = rows.map(({ id }): LoadRequest => ({ method: "DELETE", path: `/api/v1/uploads/${id}`, key }));
  const run = await measureRun(context.load, child, { connections: CONNECTIONS, requests });
  db.replaceRows(rows, [{ workspaceId }]);
  return run;
}

function report(runs: Record<What, Record<Name, Run[]>>): Target[] {
  const rateRatio = (what: What) => pairedRatio(({ perSecond }) => perSecond, runs[what].this, runs[what].base);
  const whats = ["create", "DELETE"] as const;
  printTable(
    ["this checkout beside the base", ...RUN_COLUMNS, "base /s", ...RUN_COLUMNS.slice(1), "ratio", "cpu ratio"],
    whats.map((what) => [
      `${what}, ${CONNECTIONS} connections`,
      ...formatRun(medians(runs[what].this)),
      ...formatRun(medians(runs[what].base)),
      rateRatio(what).toFixed(2),
      pairedRatio(({ cpuUs }) => cpuUs, runs[what].this, runs[what].base).toFixed(2),
    ]),
  );
  return whats.map((what) => ({ name: `${what}: of the base`, measured: rateRatio(what), goal: 0.97, kind: "min" }));
}
