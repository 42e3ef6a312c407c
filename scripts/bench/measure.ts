import { type Child, cpuMs } from "./children.ts";
import type { LoadGenerator, LoadRequest } from "./load.ts";
import type { Run } from "./report.ts";

/** Sends requests to a server and measures it meanwhile. */
export async function measureRun(
  load: LoadGenerator,
  child: Child,
  { connections, requests }: { connections: number; requests: readonly LoadRequest[] },
): Promise<Run> {
  const beforeMs = cpuMs(child.pid);
  const result = await load.run(child.url, connections, requests);
  return { ...result, cpuUs: ((cpuMs(child.pid) - beforeMs) * 1000) / result.requests };
}
