import { Client, type Dispatcher } from "undici";
import { startService } from "./children.ts";
import type { BenchContext } from "./context.ts";
import { makeSeed } from "./data_dirs.ts";
import { openBenchDatabase } from "./database.ts";
import { median, printTable } from "./report.ts";

/** Pairs of requests for each method, one id that exists elsewhere and one that does not. */
const PAIRS = 20_000;
/** Requests that are not counted: the first ones run before the code is compiled. */
const WARM_UP_PAIRS = 1_000;
const METHODS = ["GET", "DELETE"] as const;

export interface NoLeakFigures {
  method: string;
  /** How often the response for a foreign id takes longer than for an unknown one: 0.5 reveals nothing. */
  foreignIsSlower: number;
  /** By how many standard errors that differs from one half. */
  deviations: number;
}

/**
 * Compares how long the service takes for another workspace's upload and for an id that does not exist. Both kinds of ids
 * were drawn in turn, so that they lie side by side in the index; each is asked for once, in pairs of random order, over
 * one connection. The latencies are compared by rank (Mann-Whitney), which outliers do not move.
 */
export async function measureNoLeak({ folder, scale }: BenchContext): Promise<NoLeakFigures[]> {
  const pairs = Math.ceil(PAIRS * scale);
  const seed = await makeSeed(folder, 0, 2);
  const [asking, other] = seed.workspaces;
  const db = openBenchDatabase(seed.databaseFile);
  const drawn = db.plan((pairs + WARM_UP_PAIRS) * METHODS.length * 2, [other?.workspaceId ?? ""]);
  const foreign = drawn.filter((_, i) => i % 2 === 0);
  db.addRows(foreign);
  db.close();
  const unknown = drawn.filter((_, i) => i % 2 === 1);

  const service = await startService(seed.dataDir);
  const client = new Client(service.url);
  const headers = { authorization: `Bearer ${asking?.key}` };

  async function time(method: Dispatcher.HttpMethod, id: string): Promise<number> {
    const startMs = performance.now();
    const response = await client.request({ method, path: `/api/v1/uploads/${id}`, headers });
    await response.body.dump();
    if (response.statusCode !== 404) throw new Error(`Expected 404, got ${response.statusCode}`);
    return performance.now() - startMs;
  }

  try {
    const figures: NoLeakFigures[] = [];
    const table: string[][] = [];
    for (const [i, method] of METHODS.entries()) {
      const times = { foreign: new Float64Array(pairs), unknown: new Float64Array(pairs) };
      for (let pair = -WARM_UP_PAIRS; pair < pairs; pair++) {
        const at = i * (pairs + WARM_UP_PAIRS) + pair + WARM_UP_PAIRS;
        const asks = [
          ["foreign", foreign[at]?.id ?? ""],
          ["unknown", unknown[at]?.id ?? ""],
        ] as const;
        for (const [kind, id] of Math.random() < 0.5 ? asks : asks.toReversed()) {
          const tookMs = await time(method, id);
          if (pair >= 0) times[kind][pair] = tookMs;
        }
      }
      const compared = compare(times.foreign, times.unknown);
      figures.push({ method, ...compared });
      const { foreignIsSlower, deviations } = compared;
      const medianUs = (of: Float64Array): string => (median([...of]) * 1000).toFixed(1);
      table.push([
        ...[method, String(pairs), medianUs(times.foreign), medianUs(times.unknown)],
        ...[foreignIsSlower.toFixed(4), deviations.toFixed(1)],
      ]);
    }
    printTable(["foreign and unknown ids", "pairs", "foreign us", "unknown us", "foreign slower", "sigma"], table);
    return figures;
  } finally {
    await client.close();
    await service.stop();
  }
}

/** How often a value of the first is greater than one of the second, equal ones counting half, and how significant that is. */
export function compare(
  first: Float64Array,
  second: Float64Array,
): Pick<NoLeakFigures, "foreignIsSlower" | "deviations"> {
  const sortedFirst = first.toSorted();
  const sortedSecond = second.toSorted();
  let wins = 0;
  let below = 0;
  let notAbove = 0;
  for (const value of sortedFirst) {
    while (below < sortedSecond.length && (sortedSecond[below] ?? 0) < value) below++;
    while (notAbove < sortedSecond.length && (sortedSecond[notAbove] ?? 0) <= value) notAbove++;
    wins += (below + notAbove) / 2;
  }
  const n = first.length * second.length;
  const standardError = Math.sqrt((first.length + second.length + 1) / (12 * n));
  return { foreignIsSlower: wins / n, deviations: (wins / n - 0.5) / standardError };
}
