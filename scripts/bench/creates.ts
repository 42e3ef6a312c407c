import { Pool } from "undici";
import { startCeiling, startService } from "./children.ts";
import type { BenchContext } from "./context.ts";
import { copySeed, type Seed } from "./data_dirs.ts";
import { openBenchDatabase } from "./database.ts";
import type { LoadRequest } from "./load.ts";
import { measureRun } from "./measure.ts";
import { formatRun, medians, pairedRatio, printTable, RUN_COLUMNS, type Run } from "./report.ts";

/** Uploads that are prepared at a time, outside of what is measured. */
const PREPARED_AT_ONCE = 32;
const FILE_BYTES = 1_000;

interface Case {
  what: "create" | "confirm";
  connections: number;
  requests: number;
}

const CASES: readonly Case[] = [
  { what: "create", connections: 64, requests: 9_000 },
  { what: "create", connections: 1, requests: 1_500 },
  { what: "confirm", connections: 64, requests: 2_000 },
  { what: "confirm", connections: 1, requests: 500 },
];

/** The figures that the targets refer to. */
export interface CreateFigures {
  what: Case["what"];
  connections: number;
  ratio: number;
}

/**
 * Measures create and confirm, the service and the ceiling in turn. A confirm of the service links and syncs a file that
 * was PUT before; the ceiling's has the same two transactions and no file.
 */
export async function measureCreates(context: BenchContext, seed: Seed): Promise<CreateFigures[]> {
  const [workspace] = seed.workspaces;
  if (workspace === undefined) throw new Error("The seed has no workspace");
  const { workspaceId, key } = workspace;
  const ours = await copySeed(seed, "stowage");
  const theirs = await copySeed(seed, "ceiling");
  const stowage = await startService(ours.dataDir);
  const ceiling = await startCeiling(theirs.databaseFile, "grouped");
  const theirsDb = openBenchDatabase(theirs.databaseFile);

  const newUpload = JSON.stringify({ filename: "file.bin", category: "file" });
  const binding = JSON.stringify({ context_type: "workspace", context_id: workspaceId });
  const requestsFor = {
    stowage: {
      create: async (count: number) => repeat(count, { method: "POST", path: "/api/v1/uploads", key, body: newUpload }),
      confirm: async (count: number) =>
        (await putUploads(stowage.url, key, count)).map(
          (id): LoadRequest => ({ method: "POST", path: `/api/v1/uploads/${id}`, key, body: binding }),
        ),
    },
    ceiling: {
      create: async (count: number) =>
        repeat(count, { method: "POST", path: `/uploads/${workspaceId}`, body: newUpload }),
      confirm: async (count: number) =>
        addPending(theirsDb, workspaceId, count).map(
          (id): LoadRequest => ({ method: "POST", path: `/uploads/${workspaceId}/${id}`, body: binding }),
        ),
    },
  };

  const runs = CASES.map((): { stowage: Run[]; ceiling: Run[] } => ({ stowage: [], ceiling: [] }));
  try {
    // The round before the first warms up: its figures do not count.
    for (let round = -1; round < context.rounds; round++) {
      for (const [i, { what, connections, requests: full }] of CASES.entries()) {
        for (const [name, child] of Object.entries({ stowage, ceiling })) {
          const subject = name === "stowage" ? "stowage" : "ceiling";
          const requests = await requestsFor[subject][what](Math.ceil(full * context.scale));
          const run = await measureRun(context.load, child, { connections, requests });
          if (round >= 0) runs[i]?.[subject].push(run);
        }
      }
    }
  } finally {
    await Promise.all([stowage.stop(), ceiling.stop()]);
    theirsDb.close();
  }
  return report(seed, runs);
}

function addPending(db: ReturnType<typeof openBenchDatabase>, workspaceId: string, count: number): string[] {
  const rows = db.plan(count, [workspaceId]);
  db.addPending(rows);
  return rows.map(({ id }) => id);
}

function repeat(count: number, request: LoadRequest): LoadRequest[] {
  return Array.from({ length: count }, () => request);
}

/** Creates uploads and PUTs a small file to each; returns their ids in the order of creation. */
async function putUploads(url: string, key: string, count: number): Promise<string[]> {
  const pool = new Pool(url, { connections: PREPARED_AT_ONCE });
  const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
  const ids: string[] = [];
  let left = count;

  async function makeSome(): Promise<void> {
    while (left-- > 0) {
      const created = await pool.request({
        method: "POST",
        path: "/api/v1/uploads",
        headers,
        body: JSON.stringify({ filename: "file.bin", category: "file" }),
      });
      const { data } = (await created.body.json()) as { data: { upload: { id: string }; upload_url: string } };
      const { pathname, search } = new URL(data.upload_url);
      const put = await pool.request({ method: "PUT", path: pathname + search, body: Buffer.alloc(FILE_BYTES) });
      await put.body.dump();
      if (put.statusCode !== 200) throw new Error(`A PUT was answered with ${put.statusCode}`);
      ids.push(data.upload.id);
    }
  }

  await Promise.all(Array.from({ length: PREPARED_AT_ONCE }, makeSome));
  await pool.close();
  return ids.sort();
}

function report(seed: Seed, runs: readonly { stowage: Run[]; ceiling: Run[] }[]): CreateFigures[] {
  const figures: CreateFigures[] = [];
  const lines = CASES.map(({ what, connections }, i) => {
    const { stowage, ceiling } = runs[i] ?? { stowage: [], ceiling: [] };
    const ratio = pairedRatio(({ perSecond }) => perSecond, stowage, ceiling);
    figures.push({ what, connections, ratio });
    return [
      `${what}, ${connections} connection(s)`,
      ...formatRun(medians(stowage)),
      ...formatRun(medians(ceiling)),
      ratio.toFixed(2),
      pairedRatio(({ p99Ms }) => p99Ms, stowage, ceiling).toFixed(2),
    ];
  });
  printTable(
    [
      `create and confirm, ${seed.rows.toLocaleString("en")} rows, 1 workspace`,
      ...[...RUN_COLUMNS, "ceiling /s", ...RUN_COLUMNS.slice(1), "ratio", "p99 ratio"],
    ],
    lines,
  );
  return figures;
}
