import { cpuMs, startService } from "./children.ts";
import type { Seed } from "./data_dirs.ts";
import { printTable, type Target } from "./report.ts";
import { openOutbox, wakeCleaner } from "./s3_outbox.ts";
import type { BenchS3 } from "./s3_server.ts";

/** The shape of the service's own multi-deletes, which the bare loop copies. */
const KEYS_PER_REQUEST = 1_000;
const REQUESTS_AT_ONCE = 4;

interface Removal {
  objects: number;
  seconds: number;
  /** Processor time of the client for each object. */
  cpuUs: number;
}

export interface DrainSizes {
  backlog: number;
  /** Objects removed one after the other, in each of two runs. */
  singles: number;
  /** Objects removed by the bare loop, in each of two runs. */
  bare: number;
}

/**
 * How fast the cleaner drains a backlog of objects that exist, beside a bare client that removes one after the other and
 * one that sends multi-deletes of the same shape. Those run before and after, so that what slows the machine slows all.
 */
export async function measureDrain(s3: BenchS3, seed: Seed, sizes: DrainSizes): Promise<Target[]> {
  const service = await startService(seed.dataDir, s3.env);
  const outbox = openOutbox(seed.databaseFile);
  const singles: Removal[] = [];
  const bares: Removal[] = [];

  async function measureBare(): Promise<void> {
    const single = await putNew(sizes.singles);
    singles.push(await timed(single, process.pid, () => removeOneByOne(s3, single)));
    const many = await putNew(sizes.bare);
    bares.push(await timed(many, process.pid, () => removeMany(s3, many)));
  }

  async function putNew(count: number): Promise<string[]> {
    const keys = outbox.newKeys(count);
    await s3.putAll(keys);
    return keys;
  }

  try {
    // Both clients are compiled before they are measured.
    await removeOneByOne(s3, await putNew(100));
    const warmUp = await putNew(100);
    outbox.enter(warmUp);
    await wakeCleaner(service.url, seed.workspaces[0]?.key ?? "");
    await outbox.untilEmpty();

    await measureBare();
    console.error(`  putting ${sizes.backlog} objects`);
    const backlog = await putNew(sizes.backlog);
    outbox.enter(backlog);
    const drained = await timed(backlog, service.pid, async () => {
      await wakeCleaner(service.url, seed.workspaces[0]?.key ?? "");
      await outbox.untilEmpty();
    });
    const gone = new Set(backlog);
    for await (const { objectKey } of s3.store.list("final/")) {
      if (gone.has(objectKey)) throw new Error("An object is still there after its entry was settled");
    }
    await measureBare();
    return report(drained, sum(singles), sum(bares));
  } finally {
    outbox.close();
    await service.stop();
  }
}

async function timed(keys: readonly string[], pid: number, work: () => Promise<void>): Promise<Removal> {
  const [startedMs, beforeMs] = [performance.now(), cpuMs(pid)];
  await work();
  const seconds = (performance.now() - startedMs) / 1000;
  return { objects: keys.length, seconds, cpuUs: ((cpuMs(pid) - beforeMs) * 1000) / keys.length };
}

async function removeOneByOne({ bare, bucket }: BenchS3, keys: readonly string[]): Promise<void> {
  for (const key of keys) await bare.removeObject(bucket, key);
}

async function removeMany({ bare, bucket }: BenchS3, keys: readonly string[]): Promise<void> {
  const parts: string[][] = [];
  for (let i = 0; i < keys.length; i += KEYS_PER_REQUEST) parts.push(keys.slice(i, i + KEYS_PER_REQUEST));
  const waiting = parts.values();
  async function lane(): Promise<void> {
    for (const part of waiting) {
      const failed = await bare.removeObjects(bucket, part);
      if (failed.length > 0) throw new Error(`Of ${part.length} objects ${failed.length} were not removed`);
    }
  }
  await Promise.all(Array.from({ length: REQUESTS_AT_ONCE }, lane));
}

function sum(runs: readonly Removal[]): Removal {
  const objects = runs.reduce((total, run) => total + run.objects, 0);
  const seconds = runs.reduce((total, run) => total + run.seconds, 0);
  return { objects, seconds, cpuUs: runs.reduce((total, run) => total + run.cpuUs * run.objects, 0) / objects };
}

function report(drained: Removal, single: Removal, bare: Removal): Target[] {
  const rate = ({ objects, seconds }: Removal): number => objects / seconds;
  const shape = `${REQUESTS_AT_ONCE} multi-deletes of ${KEYS_PER_REQUEST} at once`;
  printTable(
    ["removing objects from MinIO", "objects", "s", "objects/s", "client cpu us"],
    [
      ["the cleaner", drained] as const,
      ["bare, one after the other", single] as const,
      [`bare, ${shape}`, bare] as const,
    ].map(([name, run]) => [
      ...[name, String(run.objects), run.seconds.toFixed(1), rate(run).toFixed(0), run.cpuUs.toFixed(1)],
    ]),
  );
  return [
    {
      name: "cleaner: times one removal after the other",
      measured: rate(drained) / rate(single),
      goal: 4,
      kind: "min",
    },
    { name: `cleaner: of a bare loop, ${shape}`, measured: rate(drained) / rate(bare), goal: 0.8, kind: "min" },
    {
      name: "cleaner: CPU for an object, of a single removal's",
      ...{ measured: drained.cpuUs / single.cpuUs, goal: 0.1, kind: "max" },
    },
  ];
}
