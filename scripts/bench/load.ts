import { execFile, execFileSync } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { Worker } from "node:worker_threads";

/** A run ends when its requests are used up, or after this long. */
const RUN_SECONDS_MAX = 60;
/** The slowest disk's sync must not be taken for a failure. */
const ANSWER_SECONDS_MAX = 30;

export interface LoadRequest {
  method: "DELETE" | "POST" | "GET";
  path: string;
  key?: string;
  body?: string;
}

export interface LoadResult {
  requests: number;
  perSecond: number;
  p50Ms: number;
  p99Ms: number;
}

/** A generator's measurements, before they are checked. */
export interface RawResult {
  requests: number;
  durationUs: number;
  p50Us: number;
  p99Us: number;
  /** How many requests failed, by what failed. */
  failed: Record<string, number>;
}

/** Instructions to a load generator's worker. */
export interface LoadJob {
  url: string;
  connections: number;
  requestsFile: string;
}

export interface LoadGenerator {
  name: string;
  /** Sends each request once, in this order over all connections. Throws if one of them failed. */
  run: (url: string, connections: number, requests: readonly LoadRequest[]) => Promise<LoadResult>;
}

/** wrk if it is installed, otherwise undici in a worker thread. `folder` holds the file of requests. */
export function createLoadGenerator(folder: string): LoadGenerator {
  const wrk = wrkVersion();
  const send = wrk === null ? runUndici : runWrk;
  return {
    name: wrk ?? "undici in a worker thread (wrk is not installed)",
    async run(url, connections, requests) {
      const requestsFile = join(folder, "requests.tsv");
      await writeFile(requestsFile, requests.map(lineOf).join(""));
      const raw = await send({ url, connections, requestsFile });
      if (Object.values(raw.failed).some((count) => count > 0)) {
        throw new Error(`Of ${raw.requests} requests to ${url} some failed: ${JSON.stringify(raw.failed)}`);
      }
      return {
        requests: raw.requests,
        perSecond: raw.requests / (raw.durationUs / 1e6),
        p50Ms: raw.p50Us / 1000,
        p99Ms: raw.p99Us / 1000,
      };
    },
  };
}

function lineOf({ method, path, key = "", body = "" }: LoadRequest): string {
  return `${method}\t${path}\t${key}\t${body}\n`;
}

/** The first line of `wrk --version`, or null if wrk is not installed. */
function wrkVersion(): string | null {
  try {
    execFileSync("wrk", ["--version"], { encoding: "utf8", stdio: "pipe" });
    return "wrk";
  } catch (error) {
    // wrk prints its version and exits with 1.
    const output = error instanceof Error && "stdout" in error ? String(error.stdout) : "";
    return output.startsWith("wrk") ? (/^wrk \S+/.exec(output)?.[0] ?? "wrk") : null;
  }
}

async function runWrk({ url, connections, requestsFile }: LoadJob): Promise<RawResult> {
  const { stdout } = await promisify(execFile)("wrk", [
    // One thread keeps the order of creation over all connections, and is several times faster than what it measures.
    ...["--threads", "1", "--connections", String(connections), "--duration", `${RUN_SECONDS_MAX}s`],
    ...["--timeout", `${ANSWER_SECONDS_MAX}s`, "--script", join(import.meta.dirname, "requests.lua")],
    ...[url, "--", requestsFile, String(connections)],
  ]);
  const result = /^RESULT (.*)$/m.exec(stdout)?.[1];
  if (result === undefined) throw new Error(`wrk did not report:\n${stdout}`);
  return JSON.parse(result) as RawResult;
}

function runUndici(job: LoadJob): Promise<RawResult> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL("./load_worker.ts", import.meta.url), {
      workerData: { ...job, durationMsMax: RUN_SECONDS_MAX * 1000 },
    });
    worker.once("message", resolve);
    worker.once("error", reject);
  });
}
