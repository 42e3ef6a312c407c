import { join, resolve } from "node:path";
import { Worker } from "node:worker_threads";
import { cpuMs } from "./children.ts";
import type { BenchContext } from "./context.ts";
import type { LifeJob, LifeResult, StepTimes } from "./life_worker.ts";
import { type Subject, startSubject, THIS_CHECKOUT } from "./paired.ts";
import { median, printTable, type Target } from "./report.ts";

const CLIENTS = 32;
/** A run takes a few seconds. */
const LIVES = 6_000;

/** One run of whole lives against one server. */
interface LifeRun {
  livesPerSecond: number;
  /** Processor time of the server for each life, over all its threads. */
  cpuMs: number;
  steps: StepTimes[];
}

/** Measures whole lives of small files, of this checkout and in turn of another one. */
export async function measureLife(
  context: BenchContext,
  { base, fileBytes }: { base: string | null; fileBytes: number },
): Promise<Target[]> {
  const subjects: Record<string, Subject> = { this: await startSubject(context.folder, "this", THIS_CHECKOUT) };
  if (base !== null) subjects.base = await startSubject(context.folder, "base", resolve(base));
  const runs = new Map<string, LifeRun[]>(Object.keys(subjects).map((name) => [name, []]));
  try {
    // The round before the first warms up: its figures do not count.
    for (let round = -1; round < context.rounds; round++) {
      for (const [name, subject] of Object.entries(subjects)) {
        const run = await measureLives(context, subject, fileBytes);
        if (round >= 0) runs.get(name)?.push(run);
      }
    }
  } finally {
    for (const { child, db } of Object.values(subjects)) {
      await child.stop();
      db.close();
    }
  }
  const rows = [...runs].map(([name, all]) => [name, ...formatLives(all)]);
  printTable([`lives of ${fileBytes} bytes, ${CLIENTS} clients`, "lives/s", "cpu ms", ...STEP_COLUMNS], rows);
  const own = runs.get("this") ?? [];
  return [{ name: "ms of CPU for a life", measured: median(own.map((run) => run.cpuMs)), goal: 0.6, kind: "max" }];
}

const STEP_COLUMNS = ["create", "PUT", "confirm", "delete"].map((name) => `${name} p50, p99`);

function formatLives(runs: readonly LifeRun[]): string[] {
  const steps = runs[0]?.steps ?? [];
  return [
    Math.round(median(runs.map((run) => run.livesPerSecond))).toLocaleString("en"),
    median(runs.map((run) => run.cpuMs)).toFixed(2),
    ...steps.map((_, i) => {
      const p50Ms = median(runs.map((run) => run.steps[i]?.p50Ms ?? Number.NaN));
      const p99Ms = median(runs.map((run) => run.steps[i]?.p99Ms ?? Number.NaN));
      return `${p50Ms.toFixed(1)}, ${p99Ms.toFixed(1)}`;
    }),
  ];
}

async function measureLives(context: BenchContext, subject: Subject, fileBytes: number): Promise<LifeRun> {
  const { child, workspaceId, key } = subject;
  const lives = Math.ceil(LIVES * context.scale);
  const beforeMs = cpuMs(child.pid);
  const result = await runLives({
    ...{ url: child.url, dialect: "stowage", workspaceId, key, clients: CLIENTS, lives, fileBytes },
  });
  return {
    livesPerSecond: (result.lives / result.durationMs) * 1_000,
    cpuMs: (cpuMs(child.pid) - beforeMs) / result.lives,
    steps: result.steps,
  };
}

function runLives(job: LifeJob): Promise<LifeResult> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(join(import.meta.dirname, "life_worker.ts"), { workerData: job });
    worker.once("message", resolve);
    worker.once("error", reject);
  });
}
