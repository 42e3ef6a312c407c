// The honest clients, in a process of their own: whole lives of small files, begun at a steady rate however slow the answers are.
import { randomBytes } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { Agent, type Dispatcher, request } from "undici";
import * as z from "zod";
import { type HonestJob, type HonestResult, type Latency, serveJobs } from "./abuse_protocol.ts";

/** Lives that begin in a second, each of seven requests. */
const LIVES_PER_SECOND = 20;
/** More lives than this are not under way at once: a service that far behind is down. */
const LIVES_AT_ONCE_MAX = 500;
const CONNECTIONS_MAX = 64;
const SIZE_BYTES_MIN = 1024;
const SIZE_BYTES_MAX = 256 * 1024;
const ANSWER_MS_MAX = 30_000;
/** Between two questions for the service's health. */
const HEALTH_MS = 100;
/** Different failures that are told, each with how often it was met. */
const FAILURES_KEPT = 10;

const BYTES = randomBytes(2 * SIZE_BYTES_MAX);

const Created = z.object({ data: z.object({ upload: z.object({ id: z.string() }), upload_url: z.string() }) });
const Confirmed = z.object({ data: z.object({ download_url: z.string(), size_bytes: z.number() }) });

interface Call {
  method: Dispatcher.HttpMethod;
  target: string;
  expected: number;
  body?: object | Buffer;
}

async function work({ url, tenant, durationMs }: HonestJob, stop: AbortSignal): Promise<HonestResult> {
  const agent = new Agent({
    connections: CONNECTIONS_MAX,
    ...{ headersTimeout: ANSWER_MS_MAX, bodyTimeout: ANSWER_MS_MAX, connectTimeout: ANSWER_MS_MAX },
  });
  const timesMs = new Map<string, number[]>();
  const failures = new Map<string, number>();
  const slowestMs: number[] = [];
  const begunMs = performance.now();
  let lives = 0;
  let livesNow = 0;

  /** Sends one request, measures it up to the end of the response, and throws if that is not the expected one. */
  async function call(step: string, { method, target, expected, body }: Call): Promise<Buffer> {
    const isSigned = target.startsWith("http");
    const startedMs = performance.now();
    const response = await request(isSigned ? target : url + target, {
      method,
      dispatcher: agent,
      headers: {
        ...(isSigned ? {} : { authorization: `Bearer ${tenant.key}` }),
        ...(body === undefined || Buffer.isBuffer(body) ? {} : { "content-type": "application/json" }),
      },
      body: body === undefined || Buffer.isBuffer(body) ? (body ?? null) : JSON.stringify(body),
    });
    const bytes = Buffer.from(await response.body.arrayBuffer());
    const times = timesMs.get(step) ?? [];
    timesMs.set(step, times);
    const tookMs = performance.now() - startedMs;
    times.push(tookMs);
    const second = Math.floor((startedMs - begunMs) / 1000);
    slowestMs[second] = Math.max(slowestMs[second] ?? 0, tookMs);
    if (response.statusCode !== expected) {
      throw new Error(`answered with ${response.statusCode}: ${bytes.toString("utf8", 0, 300)}`);
    }
    return bytes;
  }

  function noteFailure(step: string, error: unknown): void {
    // Parts that differ in each response would make each one a separate failure.
    const text = (error instanceof Error ? error.message : String(error)).replace(/,"meta":.*/s, "");
    const what = `${step}: ${text}`;
    failures.set(what, (failures.get(what) ?? 0) + 1);
  }

  async function live(): Promise<void> {
    let step = "create";
    const next = (name: string, todo: Call): Promise<Buffer> => {
      step = name;
      return call(name, todo);
    };
    const sizeBytes = Math.round(SIZE_BYTES_MIN * (SIZE_BYTES_MAX / SIZE_BYTES_MIN) ** Math.random());
    const start = Math.floor(Math.random() * SIZE_BYTES_MAX);
    const bytes = BYTES.subarray(start, start + sizeBytes);
    try {
      const created = parse(
        Created,
        await next("create", {
          ...{ method: "POST", target: "/api/v1/uploads", expected: 201 },
          body: { filename: "honest.bin", category: "file", size_bytes: sizeBytes },
        }),
      );
      const target = `/api/v1/uploads/${created.upload.id}`;
      await next("PUT", { method: "PUT", target: created.upload_url, expected: 200, body: bytes });
      const confirmed = parse(
        Confirmed,
        await next("confirm", {
          ...{ method: "POST", target, expected: 200 },
          body: { context_type: "workspace", context_id: tenant.workspaceId },
        }),
      );
      const found = await next("download", { method: "GET", target: confirmed.download_url, expected: 200 });
      if (!found.equals(bytes) || confirmed.size_bytes !== sizeBytes) throw new Error("other bytes than were sent");
      await next("list", { method: "GET", target: "/api/v1/uploads?limit=20", expected: 200 });
      await next("usage", { method: "GET", target: "/api/v1/usage/summary", expected: 200 });
      await next("delete", { method: "DELETE", target, expected: 200 });
      lives++;
    } catch (error) {
      noteFailure(step, error);
    }
  }

  async function askHealth(untilMs: number): Promise<void> {
    while (performance.now() < untilMs && !stop.aborted) {
      await call("health", { method: "GET", target: "/health", expected: 200 }).catch((error) =>
        noteFailure("health", error),
      );
      await delay(HEALTH_MS);
    }
  }

  const health = askHealth(begunMs + durationMs);
  const running = new Set<Promise<void>>();
  // A life begins when its time has come, not when another one ended: a stall is felt by all that come meanwhile.
  for (let begun = 0; performance.now() - begunMs < durationMs && !stop.aborted; begun++) {
    const dueMs = begunMs + ((begun + Math.random()) * 1000) / LIVES_PER_SECOND;
    await delay(Math.max(0, dueMs - performance.now()));
    if (livesNow >= LIVES_AT_ONCE_MAX) {
      // The service did not fail anyone: it is slow, and that shows in the times of those that are under way.
      continue;
    }
    livesNow++;
    const life = live().finally(() => {
      livesNow--;
      running.delete(life);
    });
    running.add(life);
  }
  await Promise.all([health, ...running]);
  await agent.close();

  const all = [...timesMs].filter(([step]) => step !== "health").flatMap(([, times]) => times);
  const latencies = [...timesMs].map(([step, times]) => latencyOf(step, times));
  return {
    latencies: [...latencies, latencyOf("all but health", all)],
    ...{ slowestMs: Array.from(slowestMs, (ms) => ms ?? 0), lives },
    failures: [...failures].slice(0, FAILURES_KEPT).map(([what, times]) => `${times} × ${what}`),
  };
}

function parse<T>(schema: z.ZodType<{ data: T }>, bytes: Buffer): T {
  return schema.parse(JSON.parse(bytes.toString())).data;
}

function latencyOf(step: string, timesMs: readonly number[]): Latency {
  const sorted = Float64Array.from(timesMs).sort();
  const at = (share: number): number => sorted[Math.floor((sorted.length - 1) * share)] ?? Number.NaN;
  return { step, requests: sorted.length, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) };
}

serveJobs(work);
