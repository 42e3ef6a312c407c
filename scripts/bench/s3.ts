import { findBinary } from "../../test/_s3_servers.ts";
import type { BenchContext } from "./context.ts";
import { makeSeed } from "./data_dirs.ts";
import type { Target } from "./report.ts";
import { measureConfirm } from "./s3_confirm.ts";
import { measureDrain } from "./s3_drain.ts";
import { measureOutboxMemory } from "./s3_memory.ts";
import { measureRequests } from "./s3_requests.ts";
import { startMinio } from "./s3_server.ts";

/** Rows that the DELETEs find; each run takes some of them and puts as many back. */
const ROWS = 10_000;

/** The service on S3, against a MinIO on loopback. Nothing but a line where there is none. */
export async function measureS3(context: BenchContext, quick: boolean): Promise<Target[]> {
  const binary = findBinary("minio");
  if (binary === null) {
    console.log("  SKIPPED: the part s3, because MinIO is not installed: run ./scripts/install_s3_servers\n");
    return [];
  }
  const { folder } = context;
  const s3 = await startMinio(binary, folder);
  try {
    const sizes = quick
      ? { backlog: 2_000, singles: 300, bare: 2_000 }
      : { backlog: 50_000, singles: 1_000, bare: 25_000 };
    const memory = quick ? { entries: 100_000, seconds: 3 } : { entries: 1_000_000, seconds: 20 };
    return [
      ...(await measureRequests(context, s3, await makeSeed(folder, ROWS, 1), quick ? 2_000 : 8_000)),
      ...(await measureConfirm(context, s3, await makeSeed(folder, 0, 1))),
      // Last, because MinIO is busy for a while with what became of a hundred thousand objects.
      ...(await measureDrain(s3, await makeSeed(folder, 0, 1), sizes)),
      ...(await measureOutboxMemory(s3, await makeSeed(folder, 0, 1), memory)),
    ];
  } finally {
    await s3.stop();
  }
}
