import { Readable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { Client } from "undici";
import { residentMb, startService } from "./children.ts";
import type { BenchContext } from "./context.ts";
import type { Seed } from "./data_dirs.ts";
import { openBenchDatabase } from "./database.ts";
import { printTable } from "./report.ts";

const IDLE_MS = 5_000;
const LOOK_MS = 25;
const CONNECTIONS = 64;
const CHUNK = Buffer.alloc(1024 * 1024);

export interface MemoryFigures {
  idleMb: number;
  putAddsMb: number;
  afterDeletesMb: number;
}

/** Measures the service's resident memory: idle, during one large PUT, and after many deletes. */
export async function measureMemory(
  { load }: BenchContext,
  seed: Seed,
  { putBytes, deletes }: { putBytes: number; deletes: number },
): Promise<MemoryFigures> {
  const key = seed.workspaces[0]?.key ?? "";
  const service = await startService(seed.dataDir);
  const db = openBenchDatabase(seed.databaseFile);
  try {
    await delay(IDLE_MS);
    const idleMb = residentMb(service.pid);

    let peakMb = idleMb;
    const looking = setInterval(() => {
      peakMb = Math.max(peakMb, residentMb(service.pid));
    }, LOOK_MS);
    await putLargeFile(service.url, key, putBytes);
    clearInterval(looking);

    const rows = db.pick("in order", deletes);
    const requests = rows.map(({ id }) => ({ method: "DELETE" as const, path: `/api/v1/uploads/${id}`, key }));
    await load.run(service.url, CONNECTIONS, requests);
    const afterDeletesMb = residentMb(service.pid);

    printTable(
      ["resident memory of the service", "MB"],
      [
        [`idle, ${IDLE_MS / 1000} s after start`, idleMb.toFixed(0)],
        [`added at most by a PUT of ${putBytes} bytes`, (peakMb - idleMb).toFixed(0)],
        [`after ${rows.length} deletes with ${CONNECTIONS} connections`, afterDeletesMb.toFixed(0)],
      ],
    );
    return { idleMb, putAddsMb: peakMb - idleMb, afterDeletesMb };
  } finally {
    db.close();
    await service.stop();
  }
}

async function putLargeFile(url: string, key: string, sizeBytes: number): Promise<void> {
  const client = new Client(url, { bodyTimeout: 0, headersTimeout: 0 });
  const created = await client.request({
    method: "POST",
    path: "/api/v1/uploads",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify({ filename: "large.bin", category: "file", size_bytes: sizeBytes }),
  });
  const { data } = (await created.body.json()) as { data: { upload_url: string } };
  const { pathname, search } = new URL(data.upload_url);
  const put = await client.request({
    method: "PUT",
    path: pathname + search,
    headers: { "content-length": String(sizeBytes) },
    body: Readable.from(chunks(sizeBytes)),
  });
  await put.body.dump();
  if (put.statusCode !== 200) throw new Error(`The PUT was answered with ${put.statusCode}`);
  await client.close();
}

async function* chunks(sizeBytes: number): AsyncGenerator<Buffer> {
  for (let left = sizeBytes; left > 0; left -= CHUNK.length) yield CHUNK.subarray(0, left);
}
