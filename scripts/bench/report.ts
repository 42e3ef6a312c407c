import { execFileSync } from "node:child_process";
import { closeSync, fdatasyncSync, openSync, rmSync, statfsSync, writeSync } from "node:fs";
import { availableParallelism, cpus, release, totalmem, type } from "node:os";
import { join } from "node:path";
import type { LoadResult } from "./load.ts";

/** One run of one program. */
export interface Run extends LoadResult {
  /** Processor time of the server for each request, over all its threads. Steadier than the rate if others use the machine. */
  cpuUs: number;
}

/** `statfs` of a folder in memory, where an fsync costs nothing and durable writes cannot be measured. */
const TMPFS_MAGIC = 0x01021994;
/** Appends that are made durable one by one to see how long the disk takes. */
const SYNCS = 200;

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? Number.NaN)) / 2;
}

/** The medians of several runs, each figure for itself. */
export function medians(results: readonly Run[]): Run {
  return {
    requests: median(results.map(({ requests }) => requests)),
    cpuUs: median(results.map(({ cpuUs }) => cpuUs)),
    perSecond: median(results.map(({ perSecond }) => perSecond)),
    p50Ms: median(results.map(({ p50Ms }) => p50Ms)),
    p99Ms: median(results.map(({ p99Ms }) => p99Ms)),
  };
}

/** The median of the ratios of runs that followed each other: what slows the machine down for a while slows both. */
export function pairedRatio(figure: (result: Run) => number, ours: readonly Run[], theirs: readonly Run[]): number {
  return median(ours.map((result, i) => figure(result) / figure(theirs[i] ?? result)));
}

/** A figure that is to be reached, and what was measured. */
export interface Target {
  name: string;
  measured: number;
  goal: number;
  /** "min": at least; "max": at most. */
  kind: "min" | "max";
}

export function printTargets(targets: readonly Target[]): void {
  printTable(
    ["target", "goal", "measured", ""],
    targets.map(({ name, measured, goal, kind }) => [
      name,
      `${kind === "min" ? ">=" : "<="} ${goal}`,
      measured.toFixed(2),
      (kind === "min" ? measured >= goal : measured <= goal) ? "met" : "MISSED",
    ]),
  );
}

/** Prints a table: the first column to the left, figures to the right. */
export function printTable(head: readonly string[], rows: readonly (readonly string[])[]): void {
  const lines = [head, ...rows];
  const widths = head.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)));
  for (const line of lines) {
    const cells = line.map((cell, column) =>
      column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
    );
    console.log(`  ${cells.join("  ").trimEnd()}`);
  }
  console.log("");
}

function printFacts(facts: Record<string, string>): void {
  for (const [name, value] of Object.entries(facts)) console.log(`  ${name.padEnd(9)}${value}`);
  console.log("");
}

/** The machine and the programs that the figures hold for. */
export function printEnvironment(facts: {
  folder: string;
  sqlite: string;
  generator: string;
  /** Null if only abuse is measured, which has its own generators. */
  generatorPerSecond: number | null;
  rounds: number;
}): void {
  const { folder, sqlite, generator, generatorPerSecond, rounds } = facts;
  printFacts({
    date: new Date().toISOString().slice(0, 10),
    commit: commit(),
    cpu: `${cpus()[0]?.model ?? "unknown"}, ${availableParallelism()} cores, ${Math.round(totalmem() / 2 ** 30)} GiB`,
    system: `${type()} ${release()}`,
    node: process.version,
    sqlite: `${sqlite}, WAL, synchronous=FULL`,
    folder,
    disk: `a 4 KiB append takes ${medianSyncMs(folder).toFixed(2)} ms to become durable: what sharing a commit can save`,
    ...(generatorPerSecond === null
      ? { service: "default settings; logs every request to a file" }
      : {
          service: "default settings but for a higher STOWAGE_PENDING_UPLOADS_MAX; logs every request to a file",
          load: `${generator}, one thread, keep-alive; ${formatRate(generatorPerSecond)}/s of a server that answers at once`,
          rounds: `${rounds}, interleaved; figures are medians, ratios are medians of neighbouring runs' ratios`,
        }),
  });
  if (statfsSync(folder).type === TMPFS_MAGIC) {
    console.log("  NOTE: this folder is in memory: an fsync costs nothing here. Choose another with --dir.\n");
  }
}

function medianSyncMs(folder: string): number {
  const path = join(folder, "sync");
  const fd = openSync(path, "w");
  const page = Buffer.alloc(4096);
  const timesMs = Array.from({ length: SYNCS }, () => {
    const startedMs = performance.now();
    writeSync(fd, page);
    fdatasyncSync(fd);
    return performance.now() - startedMs;
  });
  closeSync(fd);
  rmSync(path);
  return median(timesMs);
}

function commit(): string {
  try {
    return execFileSync("git", ["describe", "--always", "--dirty"], { encoding: "utf8", stdio: "pipe" }).trim();
  } catch {
    return "unknown";
  }
}

/** The columns of one program: rate, latencies, processor time. */
export const RUN_COLUMNS = ["/s", "p50 ms", "p99 ms", "cpu us"];

export function formatRun({ perSecond, p50Ms, p99Ms, cpuUs }: Run): string[] {
  return [formatRate(perSecond), p50Ms.toFixed(2), p99Ms.toFixed(2), cpuUs.toFixed(0)];
}

export function formatRate(perSecond: number): string {
  return Math.round(perSecond).toLocaleString("en");
}
