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

/** The number of requests is chosen so that a run takes about a second. */
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

/** The programs that are compared on copies of one seed. */
interface Scene {
  seed: Seed;
  stowage: Subject;
  ceiling: Subject;
  each: Subject;
  close: () => Promise<void>;
}

/** The measurements for one line of the table. */
export interface DeleteRuns extends DeleteCase {
  rows: number;
  workspaces: number;
  stowage: Run[];
  ceiling: Run[];
  each: Run[];
  backlogs: number[];
  drainSeconds: number[];
}

/** Measures DELETE: on each seed the service and the two ceilings, all of them in turn. Prints a table for each seed. */
export async function measureDeletes(context: BenchContext, seeds: readonly Seed[]): Promise<DeleteRuns[]> {
  const scenes: Scene[] = [];
  try {
    for (const seed of seeds) scenes.push(await openScene(seed));
    const measured = scenes.flatMap((scene) => CASES.map((line) => ({ scene, runs: noRuns(scene.seed, line) })));
    // The round before the first warms up: its figures do not count.
    for (let round = -1; round < context.rounds; round++) {
      for (const { scene, runs } of measured)
        await runCase(context, scene, round < 0 ? noRuns(scene.seed, runs) : runs);
    }
    for (const { seed } of scenes) {
      printRuns(
        seed,
        measured.filter(({ scene }) => scene.seed === seed).map(({ runs }) => runs),
      );
    }
    return measured.map(({ runs }) => runs);
  } finally {
    for (const scene of scenes) await scene.close();
  }
}

async function openScene(seed: Seed): Promise<Scene> {
  const ours = await copySeed(seed, "stowage");
  const theirs = await copySeed(seed, "ceiling");
  const [oursDb, theirsDb] = [openBenchDatabase(ours.databaseFile), openBenchDatabase(theirs.databaseFile)];
  const keys = new Map(seed.workspaces.map(({ workspaceId, key }) => [workspaceId, key]));
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
    request: ({ id, workspaceId }) => ({ method: "DELETE", path: `/uploads/${id}/${workspaceId}` }),
  };
  const each: Subject = { ...ceiling, child: await startCeiling(theirs.databaseFile, "each") };
  return {
    ...{ seed, stowage, ceiling, each },
    async close() {
      await Promise.all([stowage, ceiling, each].map(({ child }) => child.stop()));
      oursDb.close();
      theirsDb.close();
    },
  };
}

function noRuns(seed: Seed, { order, connections, requests }: DeleteCase): DeleteRuns {
  const size = { rows: seed.rows, workspaces: seed.workspaces.length };
  return {
    ...{ order, connections, requests },
    ...size,
    stowage: [],
    ceiling: [],
    each: [],
    backlogs: [],
    drainSeconds: [],
  };
}

/** One run of each program. Every run finds the same number of rows: those that it deletes come back as new ones. */
async function runCase(context: BenchContext, scene: Scene, runs: DeleteRuns): Promise<void> {
  const { order, connections, requests } = runs;
  const count = Math.min(Math.ceil(requests * context.scale), Math.floor(scene.seed.rows * 0.9));
  for (const name of ["stowage", "ceiling", "each"] as const) {
    const { child, db, hasCleaner, request } = scene[name];
    const rows = db.pick(order, count);
    runs[name].push(await measureRun(context.load, child, { connections, requests: rows.map(request) }));
    if (hasCleaner) {
      runs.backlogs.push(db.backlog());
      runs.drainSeconds.push(await drain(db));
    }
    db.replaceRows(rows, scene.seed.workspaces);
  }
}

/** Waits until the cleaner has removed everything, and returns how long that took. */
async function drain(db: BenchDatabase): Promise<number> {
  const startedMs = performance.now();
  while (db.backlog() > 0) await delay(DRAIN_LOOK_MS);
  return (performance.now() - startedMs) / 1000;
}

/** The figures of a line that targets are set for. */
export function deleteFigures({ stowage, ceiling, each }: DeleteRuns) {
  return {
    ratio: pairedRatio(({ perSecond }) => perSecond, stowage, ceiling),
    p99Ratio: pairedRatio(({ p99Ms }) => p99Ms, stowage, ceiling),
    timesOneCommitEach: pairedRatio(({ perSecond }) => perSecond, stowage, each),
  };
}

function printRuns(seed: Seed, lines: readonly DeleteRuns[]): void {
  printTable(
    [
      `DELETE, ${seed.rows.toLocaleString("en")} rows, ${seed.workspaces.length} workspace(s)`,
      ...[...RUN_COLUMNS, "ceiling /s", ...RUN_COLUMNS.slice(1), "ratio", "p99 ratio"],
      ...["one commit each /s", "times", "backlog", "drained in s"],
    ],
    lines.map((runs) => {
      const { ratio, p99Ratio, timesOneCommitEach } = deleteFigures(runs);
      return [
        `${runs.order}, ${runs.connections} connection(s)`,
        ...formatRun(medians(runs.stowage)),
        ...formatRun(medians(runs.ceiling)),
        ...[ratio.toFixed(2), p99Ratio.toFixed(2)],
        ...formatRun(medians(runs.each)).slice(0, 1),
        timesOneCommitEach.toFixed(1),
        String(median(runs.backlogs)),
        median(runs.drainSeconds).toFixed(1),
      ];
    }),
  );
}
