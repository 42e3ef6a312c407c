import type { Metric, Registry } from "@prometheus-io/client";
import type { FinishedRequest } from "../http/refusals.ts";

/** Upper bounds in seconds: from a response out of memory to a file of gigabytes. */
const BOUNDS_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60];

/** Methods with a label of their own. A client may send some thirty more. */
const METHODS: readonly string[] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

interface Series {
  method: string;
  route: string;
  byStatus: Map<number, number>;
  /** Requests that took longer than the bound before and no longer than this one; the last: longer than all bounds. */
  counts: number[];
  sumSeconds: number;
}

interface Value {
  metricName: string;
  labels: Record<string, string | number>;
  value: number;
}

/**
 * Counts and times requests. It runs for every request, so it keeps its own numbers, in a tenth of a microsecond: the
 * library's counter and histogram look up each label, which takes two or three. The library only prints them.
 */
export function createRequestMetrics(registry: Registry) {
  const byRoute = new Map<string, Map<string, Series>>();

  function seriesOf(route: string, method: string): Series {
    let byMethod = byRoute.get(route);
    if (byMethod === undefined) {
      byMethod = new Map();
      byRoute.set(route, byMethod);
    }
    const label = METHODS.includes(method) ? method : "other";
    let series = byMethod.get(label);
    if (series === undefined) {
      series = {
        method: label,
        route,
        byStatus: new Map(),
        counts: Array.from({ length: BOUNDS_SECONDS.length + 1 }, () => 0),
        sumSeconds: 0,
      };
      byMethod.set(label, series);
    }
    return series;
  }

  function onFinished({ method, route, status, durationMs }: FinishedRequest): void {
    const series = byRoute.get(route)?.get(method) ?? seriesOf(route, method);
    series.byStatus.set(status, (series.byStatus.get(status) ?? 0) + 1);
    if (durationMs === null) return;
    const seconds = durationMs / 1000;
    series.sumSeconds += seconds;
    let i = 0;
    while (i < BOUNDS_SECONDS.length && seconds > (BOUNDS_SECONDS[i] ?? 0)) i++;
    series.counts[i] = (series.counts[i] ?? 0) + 1;
  }

  function eachSeries(valuesOf: (series: Series) => Value[]): Value[] {
    return [...byRoute.values()].flatMap((byMethod) => [...byMethod.values()].flatMap(valuesOf));
  }

  registerValues(registry, {
    name: "stowage_http_requests_total",
    help: "Finished requests. A path without a route counts as (unmatched), input that is not HTTP as (refused).",
    type: "counter",
    values: () =>
      eachSeries(({ method, route, byStatus }) =>
        [...byStatus].map(([status, value]) => ({
          metricName: "stowage_http_requests_total",
          labels: { method, route, status },
          value,
        })),
      ),
  });
  const name = "stowage_http_request_duration_seconds";
  registerValues(registry, {
    name,
    help: "Time from the end of a request's headers until its response was handed to the socket.",
    type: "histogram",
    values: () =>
      eachSeries(({ method, route, counts, sumSeconds }) => {
        const labels = { method, route };
        let value = 0;
        const buckets = counts.map((count, i) => {
          value += count;
          return { metricName: `${name}_bucket`, labels: { le: BOUNDS_SECONDS[i] ?? "+Inf", ...labels }, value };
        });
        if (value === 0) return [];
        return [
          ...buckets,
          { metricName: `${name}_sum`, labels, value: sumSeconds },
          { metricName: `${name}_count`, labels, value },
        ];
      }),
  });

  return { onFinished };
}

/** Registers a metric whose values are computed for each scrape. */
function registerValues(
  registry: Registry,
  { values, ...metric }: { name: string; help: string; type: "counter" | "histogram"; values: () => Value[] },
): void {
  const written = { ...metric, get: async () => ({ ...metric, aggregator: "sum", values: values() }) };
  // The registry only uses a metric's name and get(), but its type wants one of the library's own classes.
  registry.registerMetric(written as unknown as Metric);
}
