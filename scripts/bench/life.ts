import { join, resolve } from "node:path";
import { Worker } from "node:worker_threads";
import { type Child, cpuMs, startLifeCeiling } from "./children.ts";
import type { BenchContext } from "./context.ts";
import { copySeed, makeSeed } from "./data_dirs.ts";
import type { Dialect } from "./life_steps.ts";
import type { LifeJob, LifeResult, StepTimes } from "./life_worker.ts";
import { startSubject, THIS_CHECKOUT } from "./paired.ts";
import { formatRate, median, printTable, type Target } from "./report.ts";

const CLIENTS = 32;
/** A run of small files takes a few seconds. */
const LIVES = 6_000;
/** Files that each step has in one run alone, and the connections that share them. */
const ALONE = { lives: 9_000, clients: 64 } as const;
/** No run writes more than this. */
const RUN_BYTES_MAX = 512 * 1024 * 1024;

/** One server that lives can be lived on. */
interface Subject {
  name: string;
  child: Child;
  dialect: Dialect;
  workspaceId: string;
  key: string;
  stop: () => Promise<void>;
}

/** One run of whole lives against one server. */
interface LifeRun {
  livesPerSecond: number;
  /** Processor time of the server for each life, over all its threads. */
  cpuMs: number;
  steps: StepTimes[];
}

/**
 * Measures whole lives of files (create, PUT, confirm, DELETE) of this checkout, of a bare program, and of another checkout
 * if there is one; then each step alone. All in turn, in the same rounds.
 */
export async function measureLife(
  context: BenchContext,
  { base, fileBytes }: { base: string | null; fileBytes: number },
): Promise<Target[]> {
  const subjects: Subject[] = [];
  const lives = new Map<Subject, LifeRun[]>();
  const alone = new Map<Subject, LifeRun[]>();
  try {
    subjects.push(await startCheckout(context.folder, "this", THIS_CHECKOUT));
    if (base !== null) subjects.push(await startCheckout(context.folder, "base", resolve(base)));
    subjects.push(await startCeiling(context.folder));
    // The round before the first warms up: its figures do not count.
    for (let round = -1; round < context.rounds; round++) {
      // Who comes second finds a warmer disk: they take turns at it.
      for (const subject of round % 2 === 0 ? subjects : subjects.toReversed()) {
        const ofSubject = { subject, fileBytes, scale: context.scale };
        add(lives, subject, await runLives({ ...ofSubject, clients: CLIENTS, lives: LIVES, inPhases: false }), round);
        add(alone, subject, await runLives({ ...ofSubject, ...ALONE, inPhases: true }), round);
      }
    }
  } finally {
    for (const { stop } of subjects) await stop();
  }
  printLives(lives, fileBytes);
  printAlone(alone, fileBytes);
  return targetsOf({ lives, alone, fileBytes });
}

function add(runs: Map<Subject, LifeRun[]>, subject: Subject, run: LifeRun, round: number): void {
  if (round < 0) return;
  runs.set(subject, [...(runs.get(subject) ?? []), run]);
}

async function startCheckout(folder: string, name: "this" | "base", root: string): Promise<Subject> {
  const { child, db, workspaceId, key } = await startSubject(folder, name, root);
  const stop = async (): Promise<void> => {
    await child.stop();
    db.close();
  };
  return { name: name === "this" ? "this checkout" : "base", child, dialect: "stowage", workspaceId, key, stop };
}

async function startCeiling(folder: string): Promise<Subject> {
  const seed = await makeSeed(folder, 0, 1);
  const { databaseFile } = await copySeed(seed, "life");
  const [{ workspaceId, key } = { workspaceId: "", key: "" }] = seed.workspaces;
  const child = await startLifeCeiling(databaseFile);
  return { name: "ceiling", child, dialect: "bare", workspaceId, key, stop: child.stop };
}

async function runLives(options: {
  subject: Subject;
  fileBytes: number;
  scale: number;
  clients: number;
  lives: number;
  inPhases: boolean;
}): Promise<LifeRun> {
  const { subject, scale, fileBytes, clients, inPhases } = options;
  const { child, dialect, workspaceId, key } = subject;
  const lives = Math.ceil(Math.min(options.lives * scale, Math.max(clients, RUN_BYTES_MAX / fileBytes)));
  const beforeMs = cpuMs(child.pid);
  const result = await inWorker({ url: child.url, dialect, workspaceId, key, clients, lives, fileBytes, inPhases });
  return {
    livesPerSecond: (result.lives / result.durationMs) * 1_000,
    cpuMs: (cpuMs(child.pid) - beforeMs) / result.lives,
    steps: result.steps,
  };
}

function inWorker(job: LifeJob): Promise<LifeResult> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(join(import.meta.dirname, "life_worker.ts"), { workerData: job });
    worker.once("message", resolve);
    worker.once("error", reject);
  });
}

function printLives(runs: ReadonlyMap<Subject, LifeRun[]>, fileBytes: number): void {
  const [first] = runs.values();
  const names = first?.[0]?.steps.map(({ name }) => name) ?? [];
  printTable(
    [
      `lives of ${fileBytes} bytes, ${CLIENTS} clients`,
      "lives/s",
      "cpu ms",
      ...names.map((name) => `${name} p50, p99`),
    ],
    [...runs].map(([{ name }, all]) => [
      name,
      formatRate(median(all.map((run) => run.livesPerSecond))),
      median(all.map((run) => run.cpuMs)).toFixed(2),
      ...names.map((step) => `${figure(all, step, "p50Ms").toFixed(1)}, ${figure(all, step, "p99Ms").toFixed(1)}`),
    ]),
  );
}

function printAlone(runs: ReadonlyMap<Subject, LifeRun[]>, fileBytes: number): void {
  const names = ["create", "PUT", "confirm", "download", "delete"];
  printTable(
    [`each step alone, ${fileBytes} bytes, ${ALONE.clients} connections`, ...names.map((name) => `${name} /s`)],
    [...runs].map(([{ name }, all]) => [
      name,
      ...names.map((step) => {
        const perSecond = figure(all, step, "perSecond");
        return Number.isNaN(perSecond) ? "" : formatRate(perSecond);
      }),
    ]),
  );
}

/** The median of a figure of a step; NaN where the server knows no such step. */
function figure(runs: readonly LifeRun[], step: string, of: "p50Ms" | "p99Ms" | "perSecond"): number {
  return median(runs.map((run) => run.steps.find(({ name }) => name === step)?.[of] ?? Number.NaN));
}

/** Whole lives a second, as ratios of neighbouring runs: what slows the machine down for a while slows both. */
function ratio(ours: readonly LifeRun[], theirs: readonly LifeRun[]): number {
  return median(ours.map((run, i) => run.livesPerSecond / (theirs[i]?.livesPerSecond ?? Number.NaN)));
}

function targetsOf(figures: {
  lives: ReadonlyMap<Subject, LifeRun[]>;
  alone: ReadonlyMap<Subject, LifeRun[]>;
  fileBytes: number;
}): Target[] {
  const { lives, alone, fileBytes } = figures;
  const runsOf = (all: ReadonlyMap<Subject, LifeRun[]>, name: string): LifeRun[] =>
    [...all].find(([subject]) => subject.name === name)?.[1] ?? [];
  const [own, base, ceiling] = ["this checkout", "base", "ceiling"].map((name) => runsOf(lives, name));
  const ownAlone = runsOf(alone, "this checkout");
  if (own === undefined || base === undefined || ceiling === undefined) return [];
  const size = `lives of ${fileBytes} bytes`;
  const targets: Target[] = [];
  if (base.length > 0) {
    const goal = fileBytes > 1_024 ? 2 : 3;
    targets.push({ name: `${size}: times the base`, measured: ratio(own, base), goal, kind: "min" });
  }
  // What follows is promised for small files.
  if (fileBytes > 1_024) return targets;
  const rate = (step: string): number => figure(ownAlone, step, "perSecond");
  targets.push(
    { name: `${size}: of the ceiling`, measured: ratio(own, ceiling), goal: 0.6, kind: "min" },
    { name: `${size}: ms of CPU`, measured: median(own.map((run) => run.cpuMs)), goal: 0.6, kind: "max" },
    {
      name: `${size}: confirm's p50, times delete's`,
      ...{ measured: figure(own, "confirm", "p50Ms") / figure(own, "delete", "p50Ms"), goal: 1.5, kind: "max" },
    },
    { name: "confirm alone /s", measured: rate("confirm"), goal: 5_000, kind: "min" },
    { name: "PUT alone /s", measured: rate("PUT"), goal: 7_000, kind: "min" },
    { name: "download alone /s", measured: rate("download"), goal: 10_000, kind: "min" },
  );
  for (const step of ["create", "PUT", "confirm", "delete"]) {
    targets.push({
      name: `${size}: ${step}'s p99, times its p50`,
      ...{ measured: figure(own, step, "p99Ms") / figure(own, step, "p50Ms"), goal: 4, kind: "max" },
    });
  }
  return targets;
}
