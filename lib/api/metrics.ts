import type { Totals, TotalsReader } from "../books/totals.ts";
import { orAfter } from "../deadline.ts";
import { type RawRoute, type RawRow, SERVER_ERRORS } from "../http/route.ts";
import type { Log } from "../log.ts";
import type { Metrics } from "../metrics/metrics.ts";

/** How long a scrape waits for the totals; it usually has 10 s in all. */
const TOTALS_MS_MAX = 3_000;

export const METRICS_PATH = "/metrics";

export const METRICS_ROW: RawRow = {
  kind: "raw",
  method: "GET",
  path: METRICS_PATH,
  operationId: "getMetrics",
  summary: "Show the figures of this process, in the text format of Prometheus",
  description: "It asks for no credential: it names no user and no file. A setting moves it to a port of its own.",
  access: "public",
  isOpenToAnyOrigin: false,
  responses: [{ status: 200, contentType: "text/plain", description: "The figures" }],
  errors: SERVER_ERRORS,
};

export interface MetricsRouteOptions {
  metrics: Metrics;
  totals: TotalsReader;
  /** Whether the cleaner waits for a person's decision. */
  isPaused: () => boolean;
  log: Log;
  now: () => number;
  totalsMsMax?: number;
}

/** The page that Prometheus reads. It needs no credential: it names no user, and can have a port of its own. */
export function metricsRoutes(options: MetricsRouteOptions): RawRoute[] {
  const { metrics, totals, isPaused, log, now, totalsMsMax = TOTALS_MS_MAX } = options;
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
   * Reads the totals. If that fails or takes too long, the latest ones stand in for them, at first "not a number": the rest
   * of the page is worth having while the database is in trouble too.
   */
  async function readTotals(): Promise<Totals> {
    const read = totals.read(now()).then(
      (totals) => {
        latest = totals;
      },
      (error) => log.warn("totals_not_read", { error }),
    );
    await orAfter(totalsMsMax, read, () => {});
    return latest;
  }

  return [
    {
      ...METRICS_ROW,
      async handle(_req, res) {
        const text = await metrics.render({
          totals: await readTotals(),
          log: await totals.readLog(),
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
