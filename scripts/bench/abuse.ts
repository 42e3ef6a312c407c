import { setTimeout as delay } from "node:timers/promises";
import type { AbuseJob, AbuseResult, Hand, HonestJob, HonestResult } from "./abuse_protocol.ts";
import { startHand } from "./abuse_protocol.ts";
import {
  printAbuses,
  printLatencies,
  printOverload,
  printSeries,
  printService,
  printWorst,
  type State,
} from "./abuse_report.ts";
import { type AbuseSeed, makeAbuseSeed } from "./abuse_seed.ts";
import { ABUSES } from "./abuse_table.ts";
import { judgeBooks, judgeLog, settle } from "./abuse_verdict.ts";
import { growth, measureCpu, watchService } from "./abuse_watch.ts";
import { type Child, openFiles, residentMb, startService } from "./children.ts";
import type { Target } from "./report.ts";

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
  /** Uploads of the tenant that lists. */
  listedRows: number;
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
export async function measureAbuse(folder: string, { seconds, only, listedRows }: AbuseOptions): Promise<AbuseFigures> {
  const seed = await makeAbuseSeed(folder, listedRows);
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

const NOTHING: HonestResult = { latencies: [], slowestMs: [], lives: 0, failures: [] };

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
  const before = stateOf(service);

  console.error(`  with ${names.length} kinds of abuse, ${abuseMs / 1000} s`);
  // Without a service there is nothing more to learn.
  void service.end.then(() => [honest, abusive].map((hand) => hand.interrupt()));
  const watch = watchService(service, databaseFile);
  const cpu = measureCpu({ service: service.pid, honest: honest.pid, abusive: abusive.pid });
  const job = { kind: "abuse" as const, url: service.url, tenants, workflowId, rows };
  const [abused, { lines, spans }] = await Promise.all([
    live(abuseMs),
    abusive.run({ ...job, durationMs: abuseMs, seed: Date.now() % 2 ** 31, names }),
  ]);
  watch.stop();
  const shares = cpu();

  const settled = await settle(service, { dataDir, databaseFile, filesBefore: before?.files ?? 0 });
  const after = stateOf(service);
  const afterwards = after === null ? NOTHING : await live(AFTERWARDS_MS);
  const stopped = await stop(service);
  const log = await judgeLog(service.outputFile);
  const memory = growth(watch.samples);

  printAbuses(lines);
  printSeries(watch.samples, shares);
  printWorst(abused.slowestMs, spans);
  printLatencies({ alone, "under abuse": abused, afterwards });
  printService({ before, memory, after, settledMs: settled.tookMs, stoppedMs: stopped.tookMs });
  printOverload(log.overload);
  const broken = [
    ...stopped.broken,
    ...[alone, abused, afterwards].flatMap(({ failures }) => failures.map((what) => `HONEST: ${what}`)),
    ...settled.held.map((what) => `SETTLE: still held: ${what}`),
    ...(memory.grew
      ? [
          `MEMORY: ${memory.earlyMb.toFixed(0)} MB at most early in the abuse, ${memory.lateMb.toFixed(0)} MB at its end`,
        ]
      : []),
    ...log.broken.map((what) => `LOG: ${what}`),
    ...judgeBooks(databaseFile, dataDir),
  ];
  return { targets: [ratioTarget(alone, abused)], broken };
}

/** Null if it has ended, which it should not. */
function stateOf({ ended, pid }: Child): State | null {
  return ended() === null ? { residentMb: residentMb(pid), files: openFiles(pid) } : null;
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
