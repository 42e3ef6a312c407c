import { hasDatabase } from "../books/sqlite/db/schema_version.ts";
import { type ServeLock, takeServeLock } from "../books/sqlite/db/serve_lock.ts";
import type { FirstWorkspace, NewWorkspace } from "../books/workspaces.ts";
import { type Config, readConfig } from "../config/config.ts";
import { checkHoldsNoObjects, makeDataFolder } from "../data_dir/data_dir.ts";
import { makeSigningKey } from "../data_dir/signing_key.ts";
import { AppError } from "../errors.ts";
import type { Arguments, Command, Terminal } from "./command_line.ts";
import { firstSteps } from "./first_steps.ts";
import { print, usingBooks } from "./work.ts";

/** `stowage init`: leaves a data directory that has a workspace as it is. */
export const INIT_COMMAND: Command = {
  name: "init",
  example: 'init --name "Film club" --quota 50GiB',
  usage: "[--name NAME] [--quota SIZE] [--json]",
  summary: "Create the data directory with a first workspace and an API key",
  options: { name: "string", quota: "string", json: "boolean" },
  operands: [],
  run: init,
};

async function init(args: Arguments, terminal: Terminal): Promise<void> {
  const quota = args.size("quota");
  const config = readConfig(terminal.env);
  const first = await createFirstWorkspace(config, {
    name: args.text("name") ?? "default",
    storageBytesQuota: quota ?? config.defaultQuotaBytes,
  });
  const { workspaceId: workspace_id, userId: user_id, apiKeyId: api_key_id, apiKey: api_key } = first;
  print(args, terminal, { workspace_id, user_id, api_key_id, api_key }, firstSteps(config, first));
}

/**
 * Makes the data directory if there is none, with a workspace and an API key. Throws `conflict` if it has a workspace, if it
 * is of an older version, or if another process makes or serves it.
 */
export async function createFirstWorkspace(config: Config, fields: NewWorkspace): Promise<FirstWorkspace> {
  await makeDataFolder(config.dataDir);
  const isThere = hasDatabase(config.dataDir);
  if (!isThere) checkHoldsNoObjects(config.dataDir);
  const lock = await lockToInit(config, isThere);
  try {
    // Opened without an upgrade or a repair: a directory that is refused is left as it is.
    if (isThere) await refuseIfUsed(config, { holdsLock: true });
    await makeSigningKey(config.dataDir);
    const first = await usingBooks(config, { migrate: true }, ({ workspaces }) => workspaces.createFirst(fields));
    if (first === null) throw hasWorkspace(config.dataDir);
    return first;
  } finally {
    lock.release();
  }
}

/** Only the holder of the lock may create the tables. A directory that is being served has them, and most likely a workspace. */
async function lockToInit(config: Config, isThere: boolean): Promise<ServeLock> {
  try {
    return takeServeLock(config.dataDir);
  } catch (error) {
    if (!(error instanceof AppError && error.code === "conflict" && isThere)) throw error;
    await refuseIfUsed(config, { holdsLock: false });
    throw error;
  }
}

/** Throws `conflict` if the data directory has a workspace, or is of an older version, which only `serve` upgrades. */
async function refuseIfUsed(config: Config, { holdsLock }: { holdsLock: boolean }): Promise<void> {
  await usingBooks(config, { migrate: false, holdsLock }, async ({ workspaces }) => {
    if (await workspaces.hasAny()) throw hasWorkspace(config.dataDir);
  });
}

function hasWorkspace(dataDir: string): AppError {
  return new AppError("conflict", `"${dataDir}" has a workspace already and was left as it is`, {
    hint: "`stowage workspaces list` shows it; `stowage keys create` makes another key for it",
  });
}
