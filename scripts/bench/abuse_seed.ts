import { linkSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { dirname, join } from "node:path";
import { request } from "undici";
import * as z from "zod";
import { DATABASE_FILE } from "../../lib/db/db.ts";
import { rawPathOf } from "../../test/_books.ts";
import { startService } from "./children.ts";
import { makeWorkspaces, type Workspace } from "./data_dirs.ts";
import { openBenchDatabase, UPLOAD_BYTES } from "./database.ts";

const GIB = 2 ** 30;
/** A file has at most so many names; ext4 allows 65,000. */
const NAMES_MAX = 50_000;

/** Who takes part. Every abuse has a tenant of the kind that it needs, none has the honest one. */
export interface Tenants {
  honest: Workspace;
  /** Quota 0: fills what costs nothing. */
  flooding: Workspace;
  /** Quota 0: sends bytes that it may never confirm. */
  sending: Workspace;
  /** Has a quota, and does legal things in a hostile way. */
  paying: Workspace;
  /** Holds many confirmed uploads, all of one workflow, and lists them. */
  listing: Workspace;
}

export interface AbuseSeed {
  dataDir: string;
  databaseFile: string;
  tenants: Tenants;
  /** The workflow that `listing`'s uploads belong to. */
  workflowId: string;
  rows: number;
}

const MadeWorkflow = z.object({ data: z.object({ id: z.string() }) });

/** Makes a data directory with the tenants, and `rows` confirmed uploads with their files for the one that lists. */
export async function makeAbuseSeed(folder: string, rows: number): Promise<AbuseSeed> {
  console.error(`  making ${rows} uploads with their files`);
  const dataDir = await mkdtemp(join(folder, "abuse-"));
  const quotasBytes = [10 * GIB, 0, 0, GIB, 10 * GIB];
  const [honest, flooding, sending, paying, listing] = await makeWorkspaces(dataDir, quotasBytes);
  if (!honest || !flooding || !sending || !paying || !listing) throw new Error("Each quota makes a workspace");
  const workflowId = await makeWorkflow(dataDir, listing);

  const databaseFile = join(dataDir, DATABASE_FILE);
  const db = openBenchDatabase(databaseFile);
  const planned = db.plan(rows, [listing.workspaceId]);
  for (let start = 0; start < rows; start += NAMES_MAX) {
    const part = planned.slice(start, start + NAMES_MAX);
    const paths = part.map((row) => rawPathOf(dataDir, db.finalKeyOf(row)));
    db.addRows(part, { etag: makeFiles(paths), workflowId });
  }
  db.close();
  return { dataDir, databaseFile, tenants: { honest, flooding, sending, paying, listing }, workflowId, rows };
}

/** Makes one file with all of these names, and returns its ETag. */
function makeFiles(paths: readonly string[]): string {
  const [first = "", ...others] = paths;
  for (const path of new Set(paths.map(dirname))) mkdirSync(path, { recursive: true });
  writeFileSync(first, Buffer.alloc(UPLOAD_BYTES));
  for (const path of others) linkSync(first, path);
  const { size, mtimeNs } = statSync(first, { bigint: true });
  return `"${size.toString(16)}-${(mtimeNs / 1000n).toString(16)}"`;
}

async function makeWorkflow(dataDir: string, { key }: Workspace): Promise<string> {
  const service = await startService(dataDir);
  try {
    const answer = await request(`${service.url}/api/v1/workflows`, {
      method: "POST",
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
      body: JSON.stringify({ name: "listed" }),
    });
    return MadeWorkflow.parse(await answer.body.json()).data.id;
  } finally {
    await service.stop();
  }
}
