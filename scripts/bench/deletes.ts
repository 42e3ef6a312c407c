import { setTimeout as delay } from "node:timers/promises";
import { type Child, startCeiling, startService } from "./children.ts";
import type { BenchContext } from "./context.ts";
import { copySeed, type Seed } from "./data_dirs.ts";
import { type BenchDatabase, openBenchDatabase, type Row } from "./database.ts";
import type { LoadRequest } from "./load.ts";
import { measureRun } from "./measure.ts";
import { formatRun, median, medians, pairedRatio, printTable, RUN_COLUMNS, type Run } from "./report.ts";

const DRAIN_LOOK_MS = 20;

type Order = "in order" | "shuffled";

/** One line of the table. The number of requests is chosen so that a run takes about a second. */
interface DeleteCase {
  order: Order;
  connections: number;
  requests: number;
}

const CASES: readonly DeleteCase[] = [
  { order: "in order", connections: 64, requests: 9_000 },
  { order: "shuffled", connections: 64, requests: 6_000 },
  { order: "in order", connections: 1, requests: 1_500 },
  { order: "shuffled", connections: 1, requests: 1_000 },
];

/** A program under load and the database that it works on. */
interface Subject {
  child: Child;
  db: BenchDatabase;
  hasCleaner: boolean;
  request: (row: Row) => LoadRequest;
}

interface Runs {
  stowage: Run[];
  ceiling: Run[];
  each: Run[];
  backlogs: number[];
  drainSeconds: number[];
}

/** What the targets are about. */
export interface DeleteFigures {
  order: Order;
  connections: number;
  rows: number;
  workspaces: number;
  perSecond: number;
  ratio: number;
  p99Ratio: number;
  timesOneCommitEach: number;
}

/** Measures DELETE on copies of a seed, the service and the two ceilings in turn. */
export async function measureDeletes(context: BenchContext, seed: Seed): Promise<DeleteFigures[]> {
  const ours = await copySeed(seed, "stowage");
  const theirs = await copySeed(seed, "ceiling");
  const keys = new Map(seed.workspaces.map(({ workspaceId, key }) => [workspaceId, key]));
  const [oursDb, theirsDb] = [openBenchDatabase(ours.databaseFile), openBenchDatabase(theirs.databaseFile)];
  const bare = ({ id, workspaceId }: Row): LoadRequest => ({ method: "DELETE", path: `/uploads/${id}/${workspaceId}` });
  const stowage: Subject = {
    child: await startService(ours.dataDir),
    db: oursDb,
    hasCleaner: true,
    request: ({ id, workspaceId }) => ({
      method: "DELETE",
      path: `/api/v1/uploads/${id}`,
      key: keys.get(workspaceId) ?? "",
    }),
  };
  const ceiling: Subject = {
    child: await startCeiling(theirs.databaseFile, "grouped"),
    db: theirsDb,
    hasCleaner: false,
    request: bare,
  };
  const each: Subject = { ...ceiling, child: await startCeiling(theirs.databaseFile, "each") };
  const subjects = { stowage, ceiling, each };

  const runs = CASES.map((): Runs => ({ stowage: [], ceiling: [], each: [], backlogs: [], drainSeconds: [] }));
  try {
    // The round before the first warms up: its figures do not count.
    for (let round = -1; round < context.rounds; round++) {
      for (const [i, { order, connections, requests }] of CASES.entries()) {
        const count = Math.min(Math.ceil(requests * context.scale), Math.floor(seed.rows * 0.9));
        for (const name of ["stowage", "ceiling", "each"] as const) {
          const { child, db, hasCleaner, request } = subjects[name];
          // The rows that are deleted come back as new ones before each run: every run finds the same number.
          const rows = db.pick(order, count);
          const result = await measureRun(context.load, child, { connections, requests: rows.map(request) });
          const backlog = db.backlog();
          const drainSeconds = hasCleaner ? await drain(db) : 0;
          db.removeRows(rows);
          db.forgetRemovals();
          db.addRows(db.plan(count, [...keys.keys()]));
          if (round < 0) continue;
          runs[i]?.[name].push(result);
          if (hasCleaner) {
            runs[i]?.backlogs.push(backlog);
            runs[i]?.drainSeconds.push(drainSeconds);
          }
        }
      }
    }
  } finally {
    await Promise.all(Object.values(subjects).map(({ child }) => child.stop()));
    oursDb.close();
    theirsDb.close();
  }
  return report(seed, runs);
}

/** Waits until the cleaner has removed everything, and returns how long that took. */
async function drain(db: BenchDatabase): Promise<number> {
  const startedMs = performance.now();
  while (db.backlog() > 0) await delay(DRAIN_LOOK_MS);
  return (performance.now() - startedMs) / 1000;
}

function report(seed: Seed, runs: readonly Runs[]): DeleteFigures[] {
  const figures: DeleteFigures[] = [];
  const lines = CASES.flatMap(({ order, connections }, i) => {
    const { stowage, ceiling, each, backlogs, drainSeconds } = runs[i] ?? {
      ...{ stowage: [], ceiling: [], each: [], backlogs: [], drainSeconds: [] },
    };
    const ratio = pairedRatio(({ perSecond }) => perSecond, stowage, ceiling);
    const p99Ratio = pairedRatio(({ p99Ms }) => p99Ms, stowage, ceiling);
    const timesOneCommitEach = pairedRatio(({ perSecond }) => perSecond, stowage, each);
    const ours = medians(stowage);
    const size = { rows: seed.rows, workspaces: seed.workspaces.length };
    figures.push({ order, connections, ...size, perSecond: ours.perSecond, ratio, p99Ratio, timesOneCommitEach });
    return [
      [
        `${order}, ${connections} connections`,
        ...formatRun(ours),
        ...formatRun(medians(ceiling)),
        ratio.toFixed(2),
        p99Ratio.toFixed(2),
        ...formatRun(medians(each)).slice(0, 1),
        timesOneCommitEach.toFixed(1),
        String(median(backlogs)),
        median(drainSeconds).toFixed(1),
      ],
    ];
  });
  printTable(
    [
      `DELETE, ${seed.rows.toLocaleString("en")} rows, ${seed.workspaces.length} workspace(s)`,
      ...[...RUN_COLUMNS, "ceiling", ...RUN_COLUMNS.slice(1), "ratio", "p99 ratio"],
      ...["one commit each /s", "times", "backlog", "drained in s"],
    ],
    lines,
  );
  return figures;
}
