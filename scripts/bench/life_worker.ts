// Lives whole lives of files against a server: so many clients, each one life after the other.
import { randomBytes } from "node:crypto";
import { parentPort, workerData } from "node:worker_threads";
import { openRawClient } from "./life_client.ts";
import { type Dialect, type Life, stepsOf } from "./life_steps.ts";

/** What the worker is told. */
export interface LifeJob {
  url: string;
  dialect: Dialect;
  workspaceId: string;
  key: string;
  clients: number;
  lives: number;
  fileBytes: number;
}

export interface StepTimes {
  name: string;
  p50Ms: number;
  p99Ms: number;
}

export interface LifeResult {
  lives: number;
  durationMs: number;
  steps: StepTimes[];
}

const job = workerData as LifeJob;
const steps = stepsOf(job.dialect);
const timesMs = steps.map((): number[] => []);
let left = job.lives;

async function live(): Promise<void> {
  const client = await openRawClient(job.url);
  const life: Life = { ...job, client, file: randomBytes(job.fileBytes), id: "", putPath: "" };
  while (left-- > 0) {
    for (const [i, step] of steps.entries()) {
      const startedMs = performance.now();
      await step.run(life);
      timesMs[i]?.push(performance.now() - startedMs);
    }
  }
  client.close();
}

const startedMs = performance.now();
await Promise.all(Array.from({ length: job.clients }, live));
const durationMs = performance.now() - startedMs;

const result: LifeResult = {
  lives: job.lives,
  durationMs,
  steps: steps.map(({ name }, i) => {
    const sorted = (timesMs[i] ?? []).sort((a, b) => a - b);
    const percentile = (share: number): number => sorted[Math.floor((sorted.length - 1) * share)] ?? Number.NaN;
    return { name, p50Ms: percentile(0.5), p99Ms: percentile(0.99) };
  }),
};
parentPort?.postMessage(result);
