// The load generator used if wrk is missing: sends the requests of a file over keep-alive connections, each once, in order.
import { readFileSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import { Client, type Dispatcher } from "undici";
import type { LoadJob, RawResult } from "./load.ts";

const { url, connections, requestsFile, durationMsMax } = workerData as LoadJob & { durationMsMax: number };

const requests = readFileSync(requestsFile, "utf8")
  .trimEnd()
  .split("\n")
  .map((line) => {
    const [method = "", path = "", key = "", body = ""] = line.split("\t");
    const headers = {
      ...(key === "" ? {} : { authorization: `Bearer ${key}` }),
      ...(body === "" ? {} : { "content-type": "application/json" }),
    };
    // undici's list of methods is closed; the file's are all on it.
    return { method: method as Dispatcher.HttpMethod, path, headers, body: body === "" ? null : body };
  });

const latenciesMs: number[] = [];
let failed = 0;
let next = 0;
const startedMs = performance.now();

async function drive(client: Client): Promise<void> {
  while (performance.now() - startedMs < durationMsMax) {
    const request = requests[next++];
    if (request === undefined) return;
    const sentMs = performance.now();
    const statusCode = await send(client, request);
    latenciesMs.push(performance.now() - sentMs);
    if (statusCode > 399) failed++;
  }
}

/** Uses `dispatch`, without a stream for the response body, which is the most expensive part of undici's `request`. */
function send(client: Client, request: Dispatcher.DispatchOptions): Promise<number> {
  return new Promise((resolve, reject) => {
    let status = 0;
    client.dispatch(request, {
      // undici knows the newer form of a handler by this.
      onRequestStart: () => {},
      onResponseStart: (_controller, statusCode) => {
        status = statusCode;
      },
      onResponseData: () => {},
      onResponseEnd: () => resolve(status),
      onResponseError: (_controller, error) => reject(error),
    });
  });
}

const clients = Array.from({ length: connections }, () => new Client(url));
await Promise.all(clients.map(drive));
const durationUs = (performance.now() - startedMs) * 1000;
await Promise.all(clients.map((client) => client.close()));

latenciesMs.sort((a, b) => a - b);
const percentileUs = (share: number): number => (latenciesMs[Math.floor((latenciesMs.length - 1) * share)] ?? 0) * 1000;
const result: RawResult = {
  requests: latenciesMs.length,
  durationUs,
  failed: { status: failed },
  p50Us: percentileUs(0.5),
  p99Us: percentileUs(0.99),
};
parentPort?.postMessage(result);
