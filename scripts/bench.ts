// npm run bench: how fast the service is, beside what the machine could do at best.
import { rmSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import Database from "better-sqlite3";
import { abuseNames, measureAbuse } from "./bench/abuse.ts";
import { startCeiling } from "./bench/children.ts";
import type { BenchContext } from "./bench/context.ts";
import { measureCreates } from "./bench/creates.ts";
import { makeSeed, type Seed } from "./bench/data_dirs.ts";
import { type DeleteRuns, deleteFigures, measureDeletes } from "./bench/deletes.ts";
import { createLoadGenerator } from "./bench/load.ts";
import { measureMemory } from "./bench/memory.ts";
import { measureNoLeak } from "./bench/no_leak.ts";
import { pairedRatio, printEnvironment, printTargets, type Target } from "./bench/report.ts";
import { measureS3 } from "./bench/s3.ts";
import { measureStartAfterKill } from "./bench/start_after_kill.ts";

const PARTS = ["delete", "create", "memory", "no-leak", "start", "s3", "abuse"];
/** A shorter run of abuse has no part in which memory could be called flat. */
const SECONDS_MIN = 20;
const USAGE = `Usage: npm run bench -- [--quick] [--dir FOLDER] [--only delete,create,memory,no-leak,start,s3,abuse]
                      [--seconds SECONDS] [--abuse TEXT,TEXT …]

Starts the service and a ceiling program (bare node:http, the same statements, grouped, synchronous=FULL) and measures
both in turn; the part s3 starts a MinIO, if there is one, and measures the service on it. Half an hour or so on a quiet machine. --quick: fewer rows, requests and rounds, to see that it works; the figures do not count.
--dir: a folder on the disk to measure (default: the system's temporary folder).
The part abuse measures honest clients alone and beside abusive ones, for --seconds in all (60); --abuse: only the abuses whose
names have one of these texts in them. It fails if the service breaks a promise, but not for being slow.
`;

const { values: options } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    dir: { type: "string", default: tmpdir() },
    only: { type: "string", default: PARTS.join(",") },
    seconds: { type: "string", default: "60" },
    abuse: { type: "string", default: "" },
    help: { type: "boolean", default: false },
  },
});

async function main(): Promise<void> {
  const parts = options.only.split(",");
  const seconds = Number(options.seconds);
  const abuses = options.abuse.split(",").filter((text) => text !== "");
  const isUnderstood =
    parts.every((part) => PARTS.includes(part)) &&
    Number.isInteger(seconds) &&
    seconds >= SECONDS_MIN &&
    abuseNames(abuses).length > 0;
  if (options.help || !isUnderstood) return void console.log(USAGE);
  const folder = await mkdtemp(join(options.dir, "stowage-bench-"));
  // The servers get the same signal from the terminal.
  process.once("SIGINT", () => {
    rmSync(folder, { recursive: true, force: true });
    process.exit(130);
  });
  try {
    const context: BenchContext = {
      folder,
      load: createLoadGenerator(folder),
      rounds: options.quick ? 3 : 5,
      scale: options.quick ? 0.3 : 1,
    };
    const few = 10_000;
    const many = options.quick ? 50_000 : 1_000_000;
    // Abuse has generators of its own.
    const generatorPerSecond = parts.join() === "abuse" ? null : await measureGenerator(context);
    printEnvironment({ ...context, sqlite: sqliteVersion(), generator: context.load.name, generatorPerSecond });
    const targets: Target[] = [];
    if (parts.includes("delete")) targets.push(...(await deletes(context, [few, many])));
    if (parts.includes("create")) targets.push(...(await creates(context, few)));
    if (parts.includes("memory")) targets.push(...(await memory(context, options.quick)));
    if (parts.includes("no-leak")) targets.push(...(await noLeak(context)));
    if (parts.includes("start")) targets.push(...(await startsAfterKill(context, many)));
    if (parts.includes("s3")) targets.push(...(await measureS3(context, options.quick)));
    if (parts.includes("abuse")) {
      const figures = await measureAbuse(folder, {
        seconds,
        only: abuses,
        listedRows: options.quick ? 10_000 : 100_000,
      });
      targets.push(...figures.targets);
      for (const what of figures.broken) console.log(`  BROKEN: ${what}`);
      if (figures.broken.length > 0) process.exitCode = 1;
      else console.log("  abuse: nothing is broken\n");
    }
    printTargets(targets);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * How many requests a second the load generator makes of a server that answers at once. Where that is well above all that
 * is measured, the generator is not what limits it.
 */
async function measureGenerator({ folder, load }: BenchContext): Promise<number> {
  const seed = await makeSeed(folder, 0, 1);
  const ceiling = await startCeiling(seed.databaseFile, "grouped");
  const requests = Array.from({ length: 20_000 }, () => ({ method: "GET" as const, path: "/" }));
  try {
    // The second run counts: the first one warms the server up.
    await load.run(ceiling.url, 64, requests);
    return (await load.run(ceiling.url, 64, requests)).perSecond;
  } finally {
    await ceiling.stop();
  }
}

async function deletes(context: BenchContext, sizes: readonly number[]): Promise<Target[]> {
  const targets: Target[] = [];
  for (const workspaces of [1, 1_000]) {
    const seeds: Seed[] = [];
    for (const rows of sizes) seeds.push(await makeSeed(context.folder, rows, workspaces));
    const lines = (await measureDeletes(context, seeds)).filter(({ connections }) => connections > 1);
    targets.push(...lines.flatMap(deleteTargets), growthTarget(lines));
  }
  return targets;
}

function deleteTargets(line: DeleteRuns): Target[] {
  const { ratio, p99Ratio, timesOneCommitEach } = deleteFigures(line);
  const name = `DELETE ${line.order}, ${line.rows.toLocaleString("en")} rows, ${line.workspaces} workspace(s)`;
  return [
    { name: `${name}: of its ceiling`, measured: ratio, goal: line.order === "in order" ? 0.65 : 0.85, kind: "min" },
    { name: `${name}: p99, times the ceiling's`, measured: p99Ratio, goal: 1.5, kind: "max" },
    { name: `${name}: times one commit each`, measured: timesOneCommitEach, goal: 5, kind: "min" },
  ];
}

/** Deleting in the order of creation must not get much slower as the file grows. */
function growthTarget(lines: readonly DeleteRuns[]): Target {
  const [few, many] = lines.filter(({ order }) => order === "in order");
  if (few === undefined || many === undefined) throw new Error("Two sizes are compared");
  return {
    name: `DELETE in order, ${many.workspaces} workspace(s): ${many.rows.toLocaleString("en")} rows, of the rate at ${few.rows.toLocaleString("en")}`,
    measured: pairedRatio(({ perSecond }) => perSecond, many.stowage, few.stowage),
    ...{ goal: 0.8, kind: "min" },
  };
}

async function creates(context: BenchContext, rows: number): Promise<Target[]> {
  const figures = await measureCreates(context, await makeSeed(context.folder, rows, 1));
  return figures
    .filter(({ what }) => what === "create")
    .map(({ connections, ratio }) => ({
      name: `create, ${connections} connection(s): of its ceiling`,
      ...{ measured: ratio, goal: 0.6, kind: "min" },
    }));
}

async function memory(context: BenchContext, quick: boolean): Promise<Target[]> {
  const deletes = quick ? 20_000 : 200_000;
  const seed = await makeSeed(context.folder, deletes, 1);
  const figures = await measureMemory(context, seed, { putBytes: quick ? 2 ** 28 : 2 ** 30, deletes });
  return [
    { name: "MB resident, idle", measured: figures.idleMb, goal: 110, kind: "max" },
    { name: "MB added by one large PUT", measured: figures.putAddsMb, goal: 50, kind: "max" },
    { name: `MB resident after ${deletes} deletes`, measured: figures.afterDeletesMb, goal: 220, kind: "max" },
  ];
}

async function startsAfterKill({ folder }: BenchContext, rows: number): Promise<Target[]> {
  const targets: Target[] = [];
  for (const workspaces of [1, 1_000]) {
    targets.push({
      name: `s to start after a SIGKILL, ${rows.toLocaleString("en")} uploads, ${workspaces} workspace(s)`,
      measured: (await measureStartAfterKill(await makeSeed(folder, rows, workspaces))) / 1_000,
      ...{ goal: 5, kind: "max" },
    });
  }
  return targets;
}

/** What the answers' times tell of a foreign id: how often a guess from one of them would be better than a coin. */
async function noLeak(context: BenchContext): Promise<Target[]> {
  return (await measureNoLeak(context)).map(({ method, foreignIsSlower }) => ({
    name: `NO-LEAK, ${method}: how far from 0.5 a foreign id is slower than an unknown one`,
    ...{ measured: Math.abs(foreignIsSlower - 0.5), goal: 0.05, kind: "max" },
  }));
}

function sqliteVersion(): string {
  const db = new Database(":memory:");
  return String(db.prepare("SELECT sqlite_version()").pluck().get());
}

await main();
