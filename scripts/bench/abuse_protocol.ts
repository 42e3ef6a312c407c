import { type ChildProcess, fork } from "node:child_process";
import { join } from "node:path";
import type { Tenants } from "./abuse_seed.ts";
import type { Workspace } from "./data_dirs.ts";

/** Instruction to the process of the honest clients: work for this long. */
export interface HonestJob {
  kind: "honest";
  url: string;
  tenant: Workspace;
  durationMs: number;
}

/** The latencies of one kind of request, in ms. */
export interface Latency {
  step: string;
  requests: number;
  p50Ms: number;
  p99Ms: number;
  maxMs: number;
}

export interface HonestResult {
  /** One for each step, then one for all. */
  latencies: Latency[];
  /** The slowest response to the requests sent in each second of the run, in ms. */
  slowestMs: number[];
  lives: number;
  /** Some of the failures, each with the response and how often it occurred. */
  failures: string[];
}

/** Instructions to the process of the abusive clients. */
export interface AbuseJob {
  kind: "abuse";
  url: string;
  tenants: Tenants;
  /** A workflow of the listing tenant, and how many uploads it has. */
  workflowId: string;
  rows: number;
  durationMs: number;
  seed: number;
  /** The names of the abuses that are done. */
  names: readonly string[];
}

export interface AbuseLine {
  name: string;
  made: number;
  /** How many requests or connections had each outcome. */
  outcomes: [string, number][];
}

/** When an abuse that only one client does at a time was done, in ms since the beginning. */
export interface AbuseSpan {
  name: string;
  startMs: number;
  endMs: number;
}

export interface AbuseResult {
  lines: AbuseLine[];
  spans: AbuseSpan[];
}

/** A process of ours that does one job at a time. */
export interface Hand<Job, Result> {
  pid: number;
  /** Rejects if the process ends first. */
  run: (job: Job) => Promise<Result>;
  /** Ends the job at hand early: it resolves with what there is. */
  interrupt: () => void;
  stop: () => void;
}

const INTERRUPT = "interrupt";

/** Starts a process that only makes load, so that making it takes no time from what measures. */
export function startHand<Job extends object, Result>(file: string): Hand<Job, Result> {
  const child: ChildProcess = fork(join(import.meta.dirname, file), { stdio: ["ignore", "inherit", "inherit", "ipc"] });

  function run(job: Job): Promise<Result> {
    return new Promise((resolve, reject) => {
      const onExit = (): void => reject(new Error(`${file} ended before it was done`));
      child.once("exit", onExit);
      child.once("message", (result) => {
        child.off("exit", onExit);
        // The other end is `serveJobs` of the same file's types.
        resolve(result as Result);
      });
      child.send(job);
    });
  }

  return {
    ...{ pid: child.pid ?? 0, run },
    interrupt: () => void (child.connected && child.send(INTERRUPT)),
    stop: () => void child.kill("SIGKILL"),
  };
}

/** The other end of `startHand`: does what it is told until the parent goes. `stop` says that the job is to end early. */
export function serveJobs<Job, Result>(work: (job: Job, stop: AbortSignal) => Promise<Result>): void {
  let stop = new AbortController();
  process.on("message", (message) => {
    if (message === INTERRUPT) return void stop.abort();
    stop = new AbortController();
    // Sent by `Hand.run`, whose type says what it is.
    void work(message as Job, stop.signal).then((result) => process.send?.(result));
  });
  process.on("disconnect", () => process.exit());
}
