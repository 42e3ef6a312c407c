import type { AbuseResult, HonestResult } from "./abuse_protocol.ts";
import type { Growth, Sample } from "./abuse_watch.ts";
import { printTable } from "./report.ts";

/** The series is printed in so many lines at most. */
const SERIES_LINES_MAX = 20;
const WORST_SECONDS = 5;

/** The service's memory and files while idle. */
export interface State {
  residentMb: number;
  files: number;
}

/** Each abuse, how often it was tried, and what came of its requests and connections. */
export function printAbuses(lines: AbuseResult["lines"]): void {
  const width = Math.max(...lines.map(({ name }) => name.length));
  console.log(`  ${"abuse".padEnd(width)}  times  what came of it`);
  for (const { name, made, outcomes } of lines) {
    const text = outcomes.map(([outcome, times]) => `${times} × ${outcome}`).join(", ");
    console.log(`  ${name.padEnd(width)}  ${String(made).padStart(5)}  ${text}`);
  }
  console.log("");
}

/** The service's memory and files over time, and how much of a core each process used. */
export function printSeries(samples: readonly Sample[], shares: Record<string, number>): void {
  printTable(["during the abuse, at most", "MB resident", "open files", "MB database"], seriesLines(samples));
  printTable(
    ["processor time during the abuse", "of one core"],
    Object.entries(shares).map(([name, share]) => [name, share.toFixed(2)]),
  );
}

/** The series as lines of a table: each stands for some seconds, with the most that was held in them. */
function seriesLines(samples: readonly Sample[]): string[][] {
  const step = Math.ceil(samples.length / SERIES_LINES_MAX);
  const lines: string[][] = [];
  for (let start = 0; start < samples.length; start += step) {
    const part = samples.slice(start, start + step);
    const most = (figure: (sample: Sample) => number): string => Math.max(...part.map(figure)).toFixed(0);
    lines.push([
      `${((part[0]?.atMs ?? 0) / 1000).toFixed(0)} s`,
      ...[most((sample) => sample.residentMb), most((sample) => sample.openFiles), most((sample) => sample.databaseMb)],
    ]);
  }
  return lines;
}

/** The seconds in which an honest client waited longest, and what was done by one abusive client at a time just then. */
export function printWorst(slowestMs: readonly number[], spans: AbuseResult["spans"]): void {
  const worst = slowestMs
    .map((ms, second) => ({ ms, second }))
    .sort((a, b) => b.ms - a.ms)
    .slice(0, WORST_SECONDS);
  console.log("  the longest waits of honest clients, and the single abuses that were under way:");
  for (const { ms, second } of worst) {
    const names = spans
      .filter(({ startMs, endMs }) => startMs < second * 1000 + ms && endMs > second * 1000)
      .map(({ name }) => name);
    console.log(`  ${`${second} s`.padStart(7)} ${number(ms, 0).padStart(6)} ms  ${names.join("; ")}`);
  }
  console.log("");
}

/** The honest clients' latencies, phase by phase. The ratio is of the second phase's p99 to the first one's. */
export function printLatencies(phases: Record<string, HonestResult>): void {
  const results = Object.values(phases);
  const rows = (results[0]?.latencies ?? []).map(({ step, p99Ms }) => {
    const ofStep = results.map(({ latencies }) => latencies.find((latency) => latency.step === step));
    return [
      step,
      ...ofStep.flatMap((found) => [
        String(found?.requests ?? 0),
        ...[found?.p50Ms, found?.p99Ms, found?.maxMs].map((ms) => number(ms, 1)),
      ]),
      number((ofStep[1]?.p99Ms ?? Number.NaN) / p99Ms, 2),
    ];
  });
  const head = Object.keys(phases).flatMap((name) => [name, "p50 ms", "p99 ms", "max ms"]);
  printTable(["honest clients", ...head, "p99 ratio"], rows);
}

export function printService(facts: {
  before: State | null;
  memory: Growth;
  after: State | null;
  settledMs: number;
  stoppedMs: number;
}): void {
  const { before, memory, after, settledMs, stoppedMs } = facts;
  const mb = [before?.residentMb, memory.earlyMb, memory.lateMb, after?.residentMb];
  printTable(
    ["the service", "before", "early in the abuse, at most", "at its end", "afterwards"],
    [
      ["MB resident", ...mb.map((value) => number(value, 0))],
      ["open files", number(before?.files, 0), "", "", number(after?.files, 0)],
      ["s until nothing of it was left", "", "", "", number(settledMs / 1000, 1)],
      ["s to stop", "", "", "", number(stoppedMs / 1000, 1)],
    ],
  );
}

/** The 503 and 507 responses, to any client. */
export function printOverload(answers: readonly [string, number][]): void {
  if (answers.length === 0) return;
  printTable(
    ["answers that tell of an overload", "times"],
    answers.map(([response, times]) => [response, String(times)]),
  );
}

function number(value: number | undefined, digits: number): string {
  return value === undefined || Number.isNaN(value) ? "-" : value.toFixed(digits);
}
