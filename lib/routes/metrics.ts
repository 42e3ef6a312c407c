import type { Totals, TotalsReader } from "../core/totals.ts";
import type { LogFigures } from "../db/checkpoints.ts";
import { orAfter } from "../deadline.ts";
import type { Route } from "../http/routes.ts";
import type { Log } from "../log.ts";
import type { Metrics } from "../metrics/metrics.ts";

/** A scrape waits no longer for the tables to be added up: usually it has 10 s in all. */
const TOTALS_MS_MAX = 3_000;

export const METRICS_PATH = "/metrics";

export interface MetricsRouteOptions {
  metrics: Metrics;
  totals: TotalsReader;
  logFigures: () => LogFigures;
  /** Whether the cleaner waits for a person's decision. */
  isPaused: () => boolean;
  log: Log;
  now: () => number;
  totalsMsMax?: number;
}

/** The page that Prometheus reads. It asks for no credential: it names no user, and has a port of its own where that matters. */
export function metricsRoutes(options: MetricsRouteOptions): Route[] {
  const { metrics, totals, logFigures, isPaused, log, now, totalsMsMax = TOTALS_MS_MAX } = options;
  let latest: Totals = {
    bytesUsed: Number.NaN,
    uploadsPending: Number.NaN,
    bytesPendingStated: Number.NaN,
    outbox: {
      ...{ due: Number.NaN, failing: Number.NaN, waiting: Number.NaN },
      ...{ oldestDueSinceMs: Number.NaN, deletedOverdue: Number.NaN },
    },
  };

  /**
   * Reads the totals anew, unless that takes too long or fails: the rest of the page is worth having also while the
   * database is in trouble. Then the latest ones stand in for them, at first "not a number".
   */
  async function readTotals(): Promise<Totals> {
    const read = totals.read(now()).then(
      (found) => {
        latest = found;
      },
      (error) => log.warn("totals_not_read", { error }),
    );
    await orAfter(totalsMsMax, read, () => {});
    return latest;
  }

  return [
    {
      kind: "raw",
      method: "GET",
      path: METRICS_PATH,
      summary: "Show the figures of this process, in the text format of Prometheus",
      access: "public",
      async handle(_req, res) {
        const text = await metrics.render({
          totals: await readTotals(),
          log: logFigures(),
          isPaused: isPaused(),
          nowMs: now(),
        });
        res.writeHead(200, {
          "Content-Type": metrics.contentType,
          "Content-Length": Buffer.byteLength(text),
          "Cache-Control": "no-store",
        });
        res.end(text);
      },
    },
  ];
}
