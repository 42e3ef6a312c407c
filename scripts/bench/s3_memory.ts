import { setTimeout as delay } from "node:timers/promises";
import { residentMb, startService } from "./children.ts";
import type { Seed } from "./data_dirs.ts";
import { printTable, type Target } from "./report.ts";
import { openOutbox, wakeCleaner } from "./s3_outbox.ts";
import type { BenchS3 } from "./s3_server.ts";

const LOOK_MS = 50;
/** The outbox that it is compared with is so many times shorter, and is filled and emptied so often: as long a run, short of entries. */
const TIMES_LONGER = 10;
const SHORT_RUNS = 5;
/** Without a limit V8 lets garbage lie for as long as it is busy, and what is measured is that. With this one, what is needed has to fit. */
const HEAP_MIB = 64;

/** Resident memory of the service while it works on a long outbox, beside what it was when the outbox was short. */
export async function measureOutboxMemory(
  s3: BenchS3,
  seed: Seed,
  { entries, seconds }: { entries: number; seconds: number },
): Promise<Target[]> {
  const key = seed.workspaces[0]?.key ?? "";
  const service = await startService(seed.dataDir, { ...s3.env, NODE_OPTIONS: `--max-old-space-size=${HEAP_MIB}` });
  const outbox = openOutbox(seed.databaseFile);
  try {
    const few = Math.ceil(entries / TIMES_LONGER);
    // The keys have no objects: for the store and for us it is the same work.
    const beforeMb = await peakWhile(service.pid, async () => {
      for (let run = 0; run < SHORT_RUNS; run++) {
        outbox.enter(outbox.newKeys(few));
        await wakeCleaner(service.url, key);
        await outbox.untilEmpty();
      }
    });

    console.error(`  entering ${entries} removals`);
    for (let left = entries; left > 0; left -= 100_000) outbox.enter(outbox.newKeys(Math.min(left, 100_000)));
    const startedMb = residentMb(service.pid);
    await wakeCleaner(service.url, key);
    const peakMb = await peakWhile(service.pid, () => delay(seconds * 1000));
    const removed = entries - outbox.left();
    const rows: [string, number][] = [
      [`at most, removing ${few} entries, ${SHORT_RUNS} times`, beforeMb],
      [`at rest, with ${entries} entries`, startedMb],
      [`at most, removing ${removed} of them`, peakMb],
    ];
    printTable(
      ["resident memory of the service on S3", "MB"],
      rows.map(([name, mb]) => [name, mb.toFixed(0)]),
    );
    return [
      {
        name: `MB added by an outbox of ${entries} entries, against ${few}`,
        measured: peakMb - beforeMb,
        goal: 30,
        kind: "max",
      },
    ];
  } finally {
    outbox.close();
    await service.stop();
  }
}

async function peakWhile(pid: number, work: () => Promise<void>): Promise<number> {
  let peakMb = residentMb(pid);
  const looking = setInterval(() => {
    peakMb = Math.max(peakMb, residentMb(pid));
  }, LOOK_MS);
  await work().finally(() => clearInterval(looking));
  return peakMb;
}
