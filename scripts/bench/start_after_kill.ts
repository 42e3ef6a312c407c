import { readFileSync } from "node:fs";
import { request } from "undici";
import { startAgain, startService } from "./children.ts";
import { copySeed, type Seed } from "./data_dirs.ts";
import { median, printTable } from "./report.ts";

const RUNS = 3;

/** How long `serve` takes to listen after a SIGKILL: it checks the whole database before it writes. Resolves with ms. */
export async function measureStartAfterKill(seed: Seed): Promise<number> {
  const { dataDir } = await copySeed(seed, "killed");
  let service = await startService(dataDir);
  const startMs: number[] = [];
  const checkMs: number[] = [];
  for (let run = 0; run < RUNS; run++) {
    // Something has to lie in the log.
    const { statusCode, body } = await request(`${service.url}/api/v1/uploads`, {
      method: "POST",
      headers: { authorization: `Bearer ${seed.workspaces[0]?.key}`, "content-type": "application/json" },
      body: JSON.stringify({ filename: "a.bin", category: "file" }),
    });
    await body.dump();
    if (statusCode !== 201) throw new Error(`A create was answered with ${statusCode}`);
    process.kill(service.pid, "SIGKILL");
    await service.end;
    const startedAtMs = performance.now();
    service = await startAgain(dataDir);
    startMs.push(performance.now() - startedAtMs);
    checkMs.push(
      Number(/"msg":"database_sound".*?"duration_ms":(\d+)/.exec(readFileSync(service.outputFile, "utf8"))?.[1]),
    );
  }
  await service.stop();
  printTable(
    [`${seed.rows} uploads, ${seed.workspaces.length} workspace(s), after a SIGKILL`, "ms"],
    [
      ["start", median(startMs).toFixed(0)],
      ["of it the check of the database", median(checkMs).toFixed(0)],
    ],
  );
  return median(startMs);
}
