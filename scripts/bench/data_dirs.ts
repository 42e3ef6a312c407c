import { cp, mkdir, mkdtemp } from "node:fs/promises";
import { join } from "node:path";
import { readConfig } from "../../lib/config/config.ts";
import { openCore } from "../../lib/core/core.ts";
import { makeDataDir } from "../../lib/db/data_dir.ts";
import { DATABASE_FILE } from "../../lib/db/db.ts";
import { fsyncPath } from "../../lib/db/files.ts";
import { createLog } from "../../lib/log.ts";
import { openBenchDatabase } from "./database.ts";

const QUOTA_BYTES = 1e15;

export interface Workspace {
  workspaceId: string;
  key: string;
}

/** A data directory with workspaces and confirmed uploads, to be copied for each program that is measured. */
export interface Seed {
  dataDir: string;
  databaseFile: string;
  rows: number;
  workspaces: Workspace[];
}

/** Makes a data directory with this many workspaces, an API key for each, and this many confirmed uploads. */
export async function makeSeed(folder: string, rows: number, workspaceCount: number): Promise<Seed> {
  console.error(`  making ${rows} uploads in ${workspaceCount} workspace(s)`);
  const dataDir = await mkdtemp(join(folder, "seed-"));
  const workspaces = await makeWorkspaces(dataDir, Array(workspaceCount).fill(QUOTA_BYTES));
  const databaseFile = join(dataDir, DATABASE_FILE);
  const db = openBenchDatabase(databaseFile);
  const workspaceIds = workspaces.map(({ workspaceId }) => workspaceId);
  db.addRows(db.plan(rows, workspaceIds));
  db.close();
  return { dataDir, databaseFile, rows, workspaces };
}

/** Makes a data directory's database, with a workspace for each quota and an API key for each workspace. */
export async function makeWorkspaces(dataDir: string, quotasBytes: readonly number[]): Promise<Workspace[]> {
  await makeDataDir(dataDir);
  const core = openCore({
    config: readConfig({ STOWAGE_DATA_DIR: dataDir }),
    log: createLog({ level: "silent", write: () => {} }),
    now: Date.now,
    migrate: true,
    onFatal: () => {},
  });
  const workspaces = await core.db.write(() =>
    quotasBytes.map((storageBytesQuota, i) => {
      const made = core.workspaces.insert({ name: `bench ${i}`, storageBytesQuota });
      return { workspaceId: made.workspaceId, key: core.keys.insert(made).apiKey };
    }),
  );
  await core.db.close();
  return workspaces;
}

/** A copy of a seed's data directory, and the path of its database. */
export async function copySeed(seed: Seed, name: string): Promise<{ dataDir: string; databaseFile: string }> {
  const dataDir = `${seed.dataDir}-${name}`;
  await mkdir(dataDir);
  await cp(seed.dataDir, dataDir, { recursive: true });
  const databaseFile = join(dataDir, DATABASE_FILE);
  // What is still to be written of a large copy would be written during the first runs.
  await fsyncPath(databaseFile);
  return { dataDir, databaseFile };
}
