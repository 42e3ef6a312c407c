import { performance } from "node:perf_hooks";
import { Counter, Gauge, Histogram, Registry } from "@prometheus-io/client";
import type { Totals } from "../core/totals.ts";
import type { LogFigures } from "../db/checkpoints.ts";
import type { StoreFailure } from "../store/objects.ts";
import { VERSION } from "../version.ts";
import { createRequestMetrics } from "./http_metrics.ts";

/** How often it is looked how late the event loop is: a stall longer than this is always seen. */
const LAG_LOOK_MS = 100;

/** Upper bounds of how many writes one COMMIT made durable; 1,024 is the most. */
const GROUP_BOUNDS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024];
const COMMIT_BOUNDS_SECONDS = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1];
const CALL_BOUNDS_SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60];
const LAG_BOUNDS_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1];

/** One transaction with the writes that it held. */
export interface WriteGroup {
  writes: number;
  /** How long the COMMIT took; null where the group failed. */
  commitMs: number | null;
}

/** One request to the object store. */
export interface StoreCall {
  operation: string;
  durationMs: number;
  failure: StoreFailure | null;
}

/** What became of a removal: `postponed` where the store as a whole could not be used. */
export type RemovalResult = "done" | "failed" | "postponed";

/** What the page tells beside what was counted. */
interface Page {
  totals: Totals;
  log: LogFigures;
  isPaused: boolean;
  nowMs: number;
}

export type Metrics = ReturnType<typeof createMetrics>;

/**
 * What the process counts about itself, in the text format of Prometheus. No label grows with users, uploads or keys.
 * What the parts report goes through the `on…` functions; what lies in the tables is handed to `render`.
 */
export function createMetrics({ store, now }: { store: string; now: () => number }) {
  const registry = new Registry();
  const registers = [registry];
  const { onAnswered } = createRequestMetrics(registry);

  const buildInfo = new Gauge({
    name: "stowage_build_info",
    help: "Always 1; the labels say what is running.",
    labelNames: ["version", "node", "store"],
    registers,
  });
  buildInfo.set({ version: VERSION, node: process.versions.node, store }, 1);

  const groupWrites = new Histogram({
    name: "stowage_db_group_writes",
    help: "Writes that one COMMIT made durable together.",
    buckets: GROUP_BOUNDS,
    registers,
  });
  const commitSeconds = new Histogram({
    name: "stowage_db_commit_duration_seconds",
    help: "Time that a COMMIT took, most of it the disk's. Its count is the number of commits.",
    buckets: COMMIT_BOUNDS_SECONDS,
    registers,
  });
  const failedGroups = new Counter({
    name: "stowage_db_failed_groups_total",
    help: "Groups of writes that were lost as a whole: each of their requests was answered with 503.",
    registers,
  });

  const logBytes = new Gauge({
    name: "stowage_db_log_bytes",
    help: "Size of the database's log on the disk. It stays below 64 MiB unless something else reads the database for long.",
    registers,
  });
  const logHeldUpSeconds = new Gauge({
    name: "stowage_db_checkpoint_held_up_seconds",
    help: "For how long another process that reads the database has kept its log from starting over; 0 while none does.",
    registers,
  });

  const callSeconds = new Histogram({
    name: "stowage_store_call_duration_seconds",
    help: "Time that a call to the object store took, failed ones included.",
    labelNames: ["operation"],
    buckets: CALL_BOUNDS_SECONDS,
    registers,
  });
  const callFailures = new Counter({
    name: "stowage_store_call_failures_total",
    help: "Calls to the object store that failed. Of these absent and changed are answers, the others are faults.",
    labelNames: ["operation", "failure"],
    registers,
  });
  const removalsEnded = new Counter({
    name: "stowage_removals_total",
    help: "Removals of objects by what became of them: postponed where the store as a whole could not be used.",
    labelNames: ["kind", "result"],
    registers,
  });

  // A series that begins at its first event would hide that event from whoever asks for the increase.
  for (const kind of ["staging", "final"]) {
    for (const result of ["done", "failed", "postponed"]) removalsEnded.inc({ kind, result }, 0);
  }
  const cleanerPaused = new Gauge({
    name: "stowage_cleaner_paused",
    help: "1 while nothing is removed until a person decides: the database may be older than the store, the store another one, or another copy of the data directory in use.",
    registers,
  });

  const bytesUsed = new Gauge({
    name: "stowage_storage_used_bytes",
    help: "What all workspaces together are charged for.",
    registers,
  });
  const uploadsPending = new Gauge({
    name: "stowage_pending_uploads",
    help: "Uploads that were created and not confirmed yet.",
    registers,
  });
  const bytesPending = new Gauge({
    name: "stowage_pending_stated_bytes",
    help: "The sizes that were stated for pending uploads. Those without a stated size add nothing.",
    registers,
  });
  const outboxEntries = new Gauge({
    name: "stowage_outbox_entries",
    help: "Objects that are to be removed: due now, failing (repeated later and later), or waiting for their time.",
    labelNames: ["state"],
    registers,
  });
  const outboxAge = new Gauge({
    name: "stowage_outbox_oldest_due_age_seconds",
    help: "For how long the oldest entry that is due or failing could have been removed; 0 where there is none.",
    registers,
  });
  const deletedOverdue = new Gauge({
    name: "stowage_deleted_objects_overdue",
    help: "Objects of deleted uploads that could have been removed for more than 24 hours and are still to be.",
    registers,
  });

  const lagSeconds = new Histogram({
    name: "stowage_event_loop_lag_seconds",
    help: "How long what was ready had to wait for the event loop, looked at ten times a second.",
    buckets: LAG_BOUNDS_SECONDS,
    registers,
  });
  counterFrom("stowage_event_loop_busy_seconds_total", "Time in which the event loop had work to do.", () => {
    return performance.eventLoopUtilization().active / 1000;
  });
  counterFrom("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  });
  gaugeFrom("process_resident_memory_bytes", "Resident memory size in bytes.", () => process.memoryUsage.rss());
  const startedAtSeconds = now() / 1000 - process.uptime();
  gaugeFrom("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", () => {
    return startedAtSeconds;
  });

  let lookDueMs = performance.now() + LAG_LOOK_MS;
  const look = setInterval(() => {
    const nowMs = performance.now();
    lagSeconds.observe(Math.max(0, nowMs - lookDueMs) / 1000);
    lookDueMs = nowMs + LAG_LOOK_MS;
  }, LAG_LOOK_MS).unref();

  function counterFrom(name: string, help: string, value: () => number): void {
    new Counter({
      name,
      help,
      registers,
      collect() {
        this.reset();
        this.inc(value());
      },
    });
  }

  function gaugeFrom(name: string, help: string, value: () => number): void {
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(value());
      },
    });
  }

  function onGroup({ writes, commitMs }: WriteGroup): void {
    if (commitMs === null) return failedGroups.inc();
    groupWrites.observe(writes);
    commitSeconds.observe(commitMs / 1000);
  }

  function onStoreCall({ operation, durationMs, failure }: StoreCall): void {
    callSeconds.observe({ operation }, durationMs / 1000);
    if (failure !== null) callFailures.inc({ operation, failure });
  }

  /** Keys of one batch, by what became of them. */
  function onRemovals(result: RemovalResult, objectKeys: readonly string[]): void {
    const staged = objectKeys.filter((key) => key.startsWith("staging/")).length;
    if (staged > 0) removalsEnded.inc({ kind: "staging", result }, staged);
    if (staged < objectKeys.length) removalsEnded.inc({ kind: "final", result }, objectKeys.length - staged);
  }

  /** The page, with what the tables held at `nowMs`. */
  function render({ totals, log, isPaused, nowMs }: Page): Promise<string> {
    logBytes.set(log.logBytes);
    logHeldUpSeconds.set(log.heldUpMs / 1000);
    cleanerPaused.set(isPaused ? 1 : 0);
    const { due, failing, waiting, oldestDueSinceMs } = totals.outbox;
    bytesUsed.set(totals.bytesUsed);
    uploadsPending.set(totals.uploadsPending);
    bytesPending.set(totals.bytesPendingStated);
    for (const [state, entries] of Object.entries({ due, failing, waiting })) outboxEntries.set({ state }, entries);
    deletedOverdue.set(totals.outbox.deletedOverdue);
    outboxAge.set(oldestDueSinceMs === null ? 0 : Math.max(0, nowMs - oldestDueSinceMs) / 1000);
    return registry.metrics();
  }

  function close(): void {
    clearInterval(look);
  }

  return { onAnswered, onGroup, onStoreCall, onRemovals, render, contentType: registry.contentType, close };
}
