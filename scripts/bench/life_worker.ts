// Lives whole lives of files against a server: so many clients, each one life after the other; or all lives step by step.
import { randomBytes } from "node:crypto";
import { parentPort, workerData } from "node:worker_threads";
import { openRawClient, type RawClient } from "./life_client.ts";
import { type Dialect, type Life, type Step, stepsOf } from "./life_steps.ts";

/** What the worker is told. */
export interface LifeJob {
  url: string;
  dialect: Dialect;
  workspaceId: string;
  key: string;
  clients: number;
  lives: number;
  fileBytes: number;
  /** Whether every life takes a step before any takes the next one: how fast each step is alone. */
  inPhases: boolean;
}

export interface StepTimes {
  name: string;
  p50Ms: number;
  p99Ms: number;
  /** Only in phases. */
  perSecond: number;
}

export interface LifeResult {
  lives: number;
  durationMs: number;
  steps: StepTimes[];
}

const job = workerData as LifeJob;
// A download is nothing that every life has: it is measured alone.
const steps = stepsOf(job.dialect).filter(({ name }) => job.inPhases || name !== "download");
const file = randomBytes(job.fileBytes);
const timesMs = new Map<Step, number[]>(steps.map((step) => [step, []]));
const durationsMs = new Map<Step, number>();

async function take(step: Step, life: Life): Promise<void> {
  const startedMs = performance.now();
  await step.run(life);
  timesMs.get(step)?.push(performance.now() - startedMs);
}

function newLife(client: RawClient): Life {
  return { ...job, client, file, id: "", putPath: "", getPath: "" };
}

/** Each client takes one item after the other. */
async function share<T>(
  clients: readonly RawClient[],
  items: Iterator<T>,
  work: (client: RawClient, item: T) => Promise<void>,
) {
  await Promise.all(
    clients.map(async (client) => {
      for (let next = items.next(); next.done !== true; next = items.next()) await work(client, next.value);
    }),
  );
}

const clients = await Promise.all(Array.from({ length: job.clients }, () => openRawClient(job.url)));
const startedMs = performance.now();
if (job.inPhases) {
  const lives = Array.from({ length: job.lives }, () => newLife(clients[0] as RawClient));
  for (const step of steps) {
    const stepStartedMs = performance.now();
    await share(clients, lives.values(), (client, life) => take(step, Object.assign(life, { client })));
    durationsMs.set(step, performance.now() - stepStartedMs);
  }
} else {
  await share(clients, Array.from({ length: job.lives }).values(), async (client) => {
    const life = newLife(client);
    for (const step of steps) await take(step, life);
  });
}
const durationMs = performance.now() - startedMs;
for (const client of clients) client.close();

const result: LifeResult = {
  lives: job.lives,
  durationMs,
  steps: steps.map((step) => {
    const sorted = (timesMs.get(step) ?? []).sort((a, b) => a - b);
    const percentile = (share: number): number => sorted[Math.floor((sorted.length - 1) * share)] ?? Number.NaN;
    const perSecond = (job.lives / (durationsMs.get(step) ?? Number.NaN)) * 1_000;
    return { name: step.name, p50Ms: percentile(0.5), p99Ms: percentile(0.99), perSecond };
  }),
};
parentPort?.postMessage(result);
