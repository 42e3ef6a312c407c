import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, openSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { acceptStore } from "./accepted_store.ts";

const ROOT = join(import.meta.dirname, "../..");
const START_MS_MAX = 30_000;

/** A server process that is measured. */
export interface Child {
  name: string;
  url: string;
  pid: number;
  /** What it writes: both of its outputs. */
  outputFile: string;
  /** How it ended, such as "exit code 0"; null while it runs. */
  ended: () => string | null;
  /** Resolves with the same once it has ended. */
  end: Promise<string>;
  stop: () => Promise<void>;
}

/** Starts the service as a user would, with logs at the default level going to a file. */
export async function startService(dataDir: string, env: Record<string, string> = {}): Promise<Child> {
  await acceptStore(dataDir, env);
  return await startAgain(dataDir, env);
}

/** Starts the service on a data directory that was served before, which nothing else opens first. */
export function startAgain(dataDir: string, env: Record<string, string> = {}): Promise<Child> {
  return startChild({
    name: "stowage",
    command: ["./scripts/stowage", "serve"],
    outputFile: `${dataDir}.log`,
    env: {
      STOWAGE_DATA_DIR: dataDir,
      STOWAGE_PORT: "0",
      // Nothing that is created here is refused for being too many.
      STOWAGE_PENDING_UPLOADS_MAX: "100000000",
      ...env,
    },
  });
}

/** Starts the ceiling on a database file. */
export function startCeiling(databaseFile: string, mode: "grouped" | "each"): Promise<Child> {
  return startChild({
    name: mode === "grouped" ? "ceiling" : "one commit each",
    command: [process.execPath, "scripts/bench/ceiling.ts", databaseFile, mode],
    outputFile: `${databaseFile}.${mode}.log`,
    env: {},
  });
}

async function startChild(options: {
  name: string;
  command: [string, ...string[]];
  outputFile: string;
  env: Record<string, string>;
}): Promise<Child> {
  const { name, outputFile, env } = options;
  const [program, ...args] = options.command;
  // A file, not a pipe: reading the log would take time from what is measured.
  const output = openSync(outputFile, "w");
  const child = spawn(program, args, {
    cwd: ROOT,
    env: { ...process.env, ...env },
    stdio: ["ignore", output, output],
  });
  closeSync(output);
  const url = await waitForUrl(child, outputFile);
  const ended = (): string | null => {
    if (child.signalCode !== null) return `signal ${child.signalCode}`;
    return child.exitCode === null ? null : `exit code ${child.exitCode}`;
  };
  const end = once(child, "exit").then(() => String(ended()));
  return { name, url, pid: child.pid ?? 0, outputFile, ended, end, stop: () => stopChild(child) };
}

async function waitForUrl(child: ChildProcess, outputFile: string): Promise<string> {
  for (let waitedMs = 0; waitedMs < START_MS_MAX && child.exitCode === null; waitedMs += 50) {
    const url = /http:\/\/127\.0\.0\.1:\d+/.exec(readFileSync(outputFile, "utf8"))?.[0];
    if (url !== undefined) return url;
    await delay(50);
  }
  child.kill("SIGKILL");
  throw new Error(`A server did not start:\n${readFileSync(outputFile, "utf8")}`);
}

function stopChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => {
    child.once("exit", () => resolve());
    child.kill("SIGTERM");
  });
}

/** Resident memory of a process, in MB (10^6 bytes). */
export function residentMb(pid: number): number {
  const status = `/proc/${pid}/status`;
  const kib = existsSync(status)
    ? /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(status, "utf8"))?.[1]
    : execFileSync("ps", ["-o", "rss=", "-p", String(pid)], { encoding: "utf8" });
  return (Number(kib) * 1024) / 1e6;
}

/** Files, sockets and the like that a process has open; NaN where the system does not tell. */
export function openFiles(pid: number): number {
  const folder = `/proc/${pid}/fd`;
  return existsSync(folder) ? readdirSync(folder).length : Number.NaN;
}

/** Processor time that a process has used, over all its threads, in ms; NaN where the system does not tell. */
export function cpuMs(pid: number): number {
  const tasks = `/proc/${pid}/task`;
  if (!existsSync(tasks)) return Number.NaN;
  const nanoseconds = readdirSync(tasks).map((task) => {
    const [running = ""] = readFileSync(join(tasks, task, "schedstat"), "utf8").split(" ");
    return Number(running);
  });
  return nanoseconds.reduce((sum, each) => sum + each, 0) / 1e6;
}
