import { readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { type Child, cpuMs, startService } from "./children.ts";
import type { BenchContext } from "./context.ts";
import { copySeed, type Seed } from "./data_dirs.ts";
import { type BenchDatabase, openBenchDatabase } from "./database.ts";
import type { LoadRequest } from "./load.ts";
import { measureRun } from "./measure.ts";
import { formatRun, medians, pairedRatio, printTable, RUN_COLUMNS, type Run, type Target } from "./report.ts";
import { openOutbox, wakeCleaner } from "./s3_outbox.ts";
import { type BenchS3, startHangingStore } from "./s3_server.ts";

const CONNECTIONS = 64;
const DELETES = 6_000;
const CREATES = 9_000;
/** The kernel counts the time of children that have ended in hundredths of a second. */
const TICK_MS = 10;
const DRAIN_LOOK_MS = 20;

interface Subject {
  child: Child;
  db: BenchDatabase;
  databaseFile: string;
  /** False if the store hangs: removals wait. */
  drains: boolean;
}

/**
 * DELETE and create of the service on S3 beside the service on the embedded store, in turn: DELETE while the store takes
 * connections and never answers, create with a store that is well, and DELETE while a backlog drains.
 */
export async function measureRequests(
  context: BenchContext,
  s3: BenchS3,
  seed: Seed,
  drainingObjects: number,
): Promise<Target[]> {
  const hanging = await startHangingStore();
  const open: Subject[] = [];

  async function openSubject(name: string, env: Record<string, string>, drains = true): Promise<Subject> {
    const { dataDir, databaseFile } = await copySeed(seed, name);
    const child = await startService(dataDir, env);
    const subject = { child, db: openBenchDatabase(databaseFile), databaseFile, drains };
    open.push(subject);
    return subject;
  }

  try {
    const embedded = await openSubject("embedded", {});
    // It starts only after its first call to the store has run out of time.
    const hung = await openSubject("hanging", hanging.env, false);
    const onS3 = await openSubject("s3", s3.env);

    const deletes = await inTurn(context, [embedded, hung], (subject) => deleteRun(context, seed, subject));
    // A process of its own: the first has compiled during the DELETEs what the other has not.
    const creating = await openSubject("embedded-create", {});
    // Twice as often: runs of half a second scatter more than the two differ.
    const often = { ...context, rounds: 2 * context.rounds };
    const creates = await inTurn(often, [creating, onS3], ({ child }) =>
      measureRun(context.load, child, { connections: CONNECTIONS, requests: createRequests(context, seed) }),
    );
    const draining = await deleteWhileDraining(context, s3, { seed, subject: onS3, objects: drainingObjects });
    return report({ deletes, creates, draining });
  } finally {
    for (const { child, db } of open) {
      await child.stop();
      db.close();
    }
    await hanging.stop();
  }
}

interface Pair {
  embedded: Run[];
  s3: Run[];
}

async function inTurn(
  { rounds }: BenchContext,
  [embedded, s3]: readonly [Subject, Subject],
  measure: (subject: Subject) => Promise<Run>,
): Promise<Pair> {
  const runs: Pair = { embedded: [], s3: [] };
  // The round before the first warms up.
  for (let round = -1; round < rounds; round++) {
    // Each of them comes first as often: what the one leaves to be done by the disk slows the other.
    const order = round % 2 === 0 ? (["embedded", "s3"] as const) : (["s3", "embedded"] as const);
    for (const name of order) {
      const run = await measure(name === "s3" ? s3 : embedded);
      if (round >= 0) runs[name].push(run);
    }
  }
  return runs;
}

async function deleteRun({ load, scale }: BenchContext, seed: Seed, { child, db, drains }: Subject): Promise<Run> {
  const count = Math.ceil(DELETES * scale);
  const rows = db.pick("shuffled", count);
  const run = await measureRun(load, child, { connections: CONNECTIONS, requests: deleteRequests(rows, seed) });
  // A cleaner at work would slow the other program's run.
  while (drains && db.backlog() > 0) await delay(DRAIN_LOOK_MS);
  db.replaceRows(rows, seed.workspaces);
  return run;
}

function deleteRequests(rows: readonly { id: string }[], seed: Seed): LoadRequest[] {
  return rows.map(({ id }) => ({ method: "DELETE", path: `/api/v1/uploads/${id}`, key: keyOf(seed) }));
}

function createRequests({ scale }: BenchContext, seed: Seed): LoadRequest[] {
  const body = JSON.stringify({ filename: "file.bin", category: "file" });
  return Array.from({ length: Math.ceil(CREATES * scale) }, () => ({
    ...{ method: "POST", path: "/api/v1/uploads", key: keyOf(seed), body },
  }));
}

function keyOf(seed: Seed): string {
  return seed.workspaces[0]?.key ?? "";
}

interface Draining {
  run: Run;
  objects: number;
  left: number;
  seconds: number;
  cpuMs: { service: number; minio: number; generator: number };
}

async function deleteWhileDraining(
  { load, scale }: BenchContext,
  s3: BenchS3,
  { seed, subject, objects }: { seed: Seed; subject: Subject; objects: number },
): Promise<Draining> {
  const { child, db, databaseFile } = subject;
  const outbox = openOutbox(databaseFile);
  try {
    await outbox.untilEmpty();
    const keys = outbox.newKeys(objects);
    await s3.putAll(keys);
    outbox.enter(keys);
    const rows = db.pick("shuffled", Math.ceil(DELETES * scale));
    const requests = deleteRequests(rows, seed);
    await wakeCleaner(child.url, keyOf(seed));
    const usedMs = () => ({ service: cpuMs(child.pid), minio: cpuMs(s3.pid), generator: ownCpuMs() });
    const [startedMs, before] = [performance.now(), usedMs()];
    const run = await measureRun(load, child, { connections: CONNECTIONS, requests });
    const [seconds, after] = [(performance.now() - startedMs) / 1000, usedMs()];
    const left = Math.max(0, outbox.left() - rows.length);
    const cpu = {
      service: after.service - before.service,
      minio: after.minio - before.minio,
      generator: after.generator - before.generator,
    };
    return { run, objects, left, seconds, cpuMs: cpu };
  } finally {
    outbox.close();
  }
}

/** Processor time of this process and of what it has started and seen end: the load generator is one of both. */
function ownCpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000 + endedChildrenMs();
}

function endedChildrenMs(): number {
  try {
    const stat = readFileSync("/proc/self/stat", "utf8");
    // Counted behind the program's name, which may have spaces: the 14th and 15th fields from there.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return (Number(fields[13]) + Number(fields[14])) * TICK_MS;
  } catch {
    return Number.NaN;
  }
}

function report({ deletes, creates, draining }: { deletes: Pair; creates: Pair; draining: Draining }): Target[] {
  const line = (name: string, { s3, embedded }: Pair): string[] => [
    ...[name, ...formatRun(medians(s3)), ...formatRun(medians(embedded))],
    pairedRatio(({ perSecond }) => perSecond, s3, embedded).toFixed(2),
    pairedRatio(({ p99Ms }) => p99Ms, s3, embedded).toFixed(2),
  ];
  printTable(
    [
      `on S3 and on the embedded store, ${CONNECTIONS} connections`,
      ...[...RUN_COLUMNS, "embedded /s", ...RUN_COLUMNS.slice(1), "ratio", "p99 ratio"],
    ],
    [line("DELETE, the store hangs", deletes), line("create", creates)],
  );
  const { run, objects, left, seconds, cpuMs: used } = draining;
  printTable(
    ["DELETE on S3", ...RUN_COLUMNS, "service cpu s", "MinIO cpu s", "generator cpu s", "in s", "of", "left"],
    [
      [
        ...["while a backlog drains", ...formatRun(run)],
        ...[used.service, used.minio, used.generator].map((ms) => (ms / 1000).toFixed(2)),
        ...[seconds.toFixed(2), String(objects), String(left)],
      ],
    ],
  );
  return [
    {
      name: "DELETE while the store hangs: of the embedded store's rate",
      ...{ measured: pairedRatio(({ perSecond }) => perSecond, deletes.s3, deletes.embedded), goal: 0.9, kind: "min" },
    },
    {
      name: "DELETE while the store hangs: p99, times the embedded store's",
      ...{ measured: pairedRatio(({ p99Ms }) => p99Ms, deletes.s3, deletes.embedded), goal: 1.1, kind: "max" },
    },
    {
      name: "create on S3: of the embedded store's rate",
      ...{ measured: pairedRatio(({ perSecond }) => perSecond, creates.s3, creates.embedded), goal: 0.85, kind: "min" },
    },
  ];
}
