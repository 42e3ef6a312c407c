import { setTimeout as delay } from "node:timers/promises";
import type { AbuseJob, AbuseResult, Hand, HonestJob, HonestResult } from "./abuse_protocol.ts";
import { startHand } from "./abuse_protocol.ts";
import { type AbuseSeed, makeAbuseSeed } from "./abuse_seed.ts";
import { ABUSES } from "./abuse_table.ts";
import { judgeBooks, judgeLog, settle } from "./abuse_verdict.ts";
import { growth, measureCpu, seriesLines, watchService } from "./abuse_watch.ts";
import { type Child, openFiles, residentMb, startService } from "./children.ts";
import { printTable, type Target } from "./report.ts";

/** Uploads of the tenant that lists. */
const LISTED_ROWS = 100_000;
/** Before anything is measured, the code is compiled and the caches are filled. */
const WARM_UP_MS = 5_000;
/** The share of the time in which the honest clients are alone. */
const ALONE_SHARE = 0.25;
const ALONE_MS_MAX = 120_000;
/** Once the abuse is over, the honest clients are served for a while as before. */
const AFTERWARDS_MS = 5_000;
/** Connections that the clients have closed are closed here, too. */
const QUIET_MS = 1_000;
/** Nothing is under way when the service is stopped. */
const STOP_MS_MAX = 15_000;

/** How honest clients and the service itself fare while strangers misuse it. */
export interface AbuseFigures {
  targets: Target[];
  /** Each invariant that did not hold. */
  broken: string[];
}

export interface AbuseOptions {
  /** The length of the measurement: a quarter of it the honest clients are alone. */
  seconds: number;
  /** Only abuses whose names have one of these texts in them; empty: all. */
  only: readonly string[];
}

/** The abuses that these texts mean. */
export function abuseNames(only: readonly string[]): string[] {
  const names = ABUSES.map(({ name }) => name);
  return only.length === 0 ? names : names.filter((name) => only.some((text) => name.includes(text)));
}

/**
 * Measures honest clients alone, and then while 32 abusive ones do their worst. Afterwards it must be the same process,
 * with memory and open files as before and true books, and no honest request may have failed.
 */
export async function measureAbuse(folder: string, { seconds, only }: AbuseOptions): Promise<AbuseFigures> {
  const seed = await makeAbuseSeed(folder, LISTED_ROWS);
  // An empty value is the default: this program is measured with the limits that people have.
  const service = await startService(seed.dataDir, { STOWAGE_PENDING_UPLOADS_MAX: "" });
  const honest = startHand<HonestJob, HonestResult>("abuse_honest.ts");
  const abusive = startHand<AbuseJob, AbuseResult>("abuse_clients.ts");
  try {
    return await measure({ seed, service, honest, abusive, seconds, names: abuseNames(only) });
  } finally {
    honest.stop();
    abusive.stop();
    await service.stop();
  }
}

interface Run {
  seed: AbuseSeed;
  service: Child;
  honest: Hand<HonestJob, HonestResult>;
  abusive: Hand<AbuseJob, AbuseResult>;
  seconds: number;
  names: string[];
}

async function measure({ seed, service, honest, abusive, seconds, names }: Run): Promise<AbuseFigures> {
  const { tenants, workflowId, rows, dataDir, databaseFile } = seed;
  const aloneMs = Math.min(seconds * 1000 * ALONE_SHARE, ALONE_MS_MAX);
  const abuseMs = seconds * 1000 - aloneMs;
  const live = (durationMs: number): Promise<HonestResult> =>
    honest.run({ kind: "honest", url: service.url, tenant: tenants.honest, durationMs });

  await live(WARM_UP_MS);
  console.error(`  honest clients alone, ${aloneMs / 1000} s`);
  const alone = await live(aloneMs);
  await delay(QUIET_MS);
  const before = { files: openFiles(service.pid), residentMb: residentMb(service.pid) };

  console.error(`  with ${names.length} kinds of abuse, ${abuseMs / 1000} s`);
  const watch = watchService(service, databaseFile);
  const cpu = measureCpu({ service: service.pid, honest: honest.pid, abusive: abusive.pid });
  const job = { kind: "abuse" as const, url: service.url, tenants, workflowId, rows };
  const [abused, { lines }] = await Promise.all([
    live(abuseMs),
    abusive.run({ ...job, durationMs: abuseMs, seed: Date.now() % 2 ** 31, names }),
  ]);
  watch.stop();
  printAbuses(lines);
  printTable(["while it lasted, at most", "MB resident", "open files", "MB database"], seriesLines(watch.samples));
  if (service.ended() === null) printShares(cpu());

  const settled = await settle(service, { dataDir, databaseFile, filesBefore: before.files });
  const afterMb = service.ended() === null ? residentMb(service.pid) : Number.NaN;
  const filesAfter = service.ended() === null ? openFiles(service.pid) : Number.NaN;
  const afterwards = await live(AFTERWARDS_MS);
  printLatencies([
    ["alone", alone],
    ["under abuse", abused],
    ["afterwards", afterwards],
  ]);
  const stopped = await stop(service);
  const log = await judgeLog(service.outputFile);
  const { earlyMb, lateMb, grew } = growth(watch.samples);
  printTable(
    ["the service", "before", "early in the abuse", "at its end", "afterwards"],
    [
      ["MB resident", ...[before.residentMb, earlyMb, lateMb, afterMb].map((mb) => mb.toFixed(0))],
      ["open files", String(before.files), "", "", String(filesAfter)],
      ["s until nothing of it was left", "", "", "", (settled.tookMs / 1000).toFixed(1)],
      ["s to stop", "", "", "", (stopped.tookMs / 1000).toFixed(1)],
    ],
  );
  if (log.overload.length > 0) {
    printTable(
      ["answers that tell of an overload", "times"],
      log.overload.map(([answer, times]) => [answer, String(times)]),
    );
  }

  const broken = [
    ...[alone, abused, afterwards].flatMap(({ failed, failures }) =>
      failed === 0 ? [] : [`HONEST: ${failed} failures:`, ...failures],
    ),
    ...settled.held.map((what) => `SETTLE: still held: ${what}`),
    ...(grew ? [`MEMORY: ${earlyMb.toFixed(0)} MB early in the abuse, ${lateMb.toFixed(0)} MB at its end`] : []),
    ...stopped.broken,
    ...log.broken.map((what) => `LOG: ${what}`),
    ...judgeBooks(databaseFile, dataDir),
  ];
  return { targets: [ratioTarget(alone, abused)], broken };
}

/** Stops the service, which was not to end before. */
async function stop(service: Child): Promise<{ tookMs: number; broken: string[] }> {
  const ended = service.ended();
  if (ended !== null) return { tookMs: Number.NaN, broken: [`PROCESS: it ended, with ${ended}`] };
  const startedMs = performance.now();
  await service.stop();
  const tookMs = performance.now() - startedMs;
  const broken = service.ended() === "exit code 0" ? [] : [`STOP: it ended with ${service.ended()}`];
  if (tookMs > STOP_MS_MAX) broken.push(`STOP: it took ${(tookMs / 1000).toFixed(1)} s`);
  return { tookMs, broken };
}

function ratioTarget(alone: HonestResult, abused: HonestResult): Target {
  const p99Ms = ({ latencies }: HonestResult): number => latencies.at(-1)?.p99Ms ?? Number.NaN;
  return { name: "honest p99 under abuse, times alone", measured: p99Ms(abused) / p99Ms(alone), goal: 3, kind: "max" };
}

function printLatencies(phases: readonly [string, HonestResult][]): void {
  const [, alone] = phases[0] ?? [];
  const rows = (alone?.latencies ?? []).map(({ step, p99Ms }) => {
    const ofStep = phases.map(([, { latencies }]) => latencies.find((latency) => latency.step === step));
    return [
      step,
      ...ofStep.flatMap((found) => [
        String(found?.requests ?? 0),
        ...[found?.p50Ms, found?.p99Ms, found?.maxMs].map((ms) => (ms ?? Number.NaN).toFixed(1)),
      ]),
      ((ofStep[1]?.p99Ms ?? Number.NaN) / p99Ms).toFixed(2),
    ];
  });
  const head = phases.flatMap(([name]) => [name, "p50 ms", "p99 ms", "max ms"]);
  printTable(["honest clients", ...head, "p99 ratio"], rows);
}

function printAbuses(lines: AbuseResult["lines"]): void {
  printTable(
    ["abuse", "times"],
    lines.map(({ name, made }) => [name, String(made)]),
  );
  console.log("  what came of it:");
  for (const { name, outcomes } of lines) {
    console.log(`  ${name}: ${outcomes.map(([outcome, times]) => `${times} × ${outcome}`).join(", ")}`);
  }
  console.log("");
}

function printShares(shares: Record<string, number>): void {
  const rows = Object.entries(shares).map(([name, share]) => [name, share.toFixed(2)]);
  printTable(["processor time, of one core", ""], rows);
}
