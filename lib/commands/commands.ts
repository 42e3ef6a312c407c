import { openApp } from "../app.ts";
import { DEV_ISSUER_COMMAND } from "../auth/dev_issuer.ts";
import { type Config, describeConfig, readConfig } from "../config/config.ts";
import { SCOPES } from "../core/principals.ts";
import { checkHoldsNoObjects, hasDatabase, makeDataFolder, makeSigningKey } from "../db/data_dir.ts";
import { type ServeLock, takeServeLock } from "../db/serve_lock.ts";
import { AppError } from "../errors.ts";
import { VERSION } from "../version.ts";
import type { Arguments, Command, Terminal } from "./command_line.ts";
import { isoTime, print, stderrLog, table, usingCore, withCore } from "./command_work.ts";
import { DOCTOR_COMMANDS } from "./doctor_command.ts";
import { firstSteps } from "./first_steps.ts";
import { MEMBER_COMMANDS } from "./members_commands.ts";
import { runUntilSignal } from "./run.ts";
import { WORKSPACE_COMMANDS } from "./workspaces_commands.ts";

/** Every command, in the order of the help. Those that work on data may run beside `serve`. */
export const COMMANDS: readonly Command[] = [
  {
    name: "serve",
    usage: "",
    summary: "Serve the data directory until SIGTERM or SIGINT",
    options: {},
    operands: [],
    async run(_args, { env }) {
      const config = readConfig(env);
      const log = stderrLog(config);
      await runUntilSignal(log, (onFatal) => openApp({ config, log, onFatal }));
    },
  },
  {
    name: "init",
    usage: "[--name NAME] [--quota BYTES] [--json]",
    summary: "Make the data directory with a first workspace and an API key",
    options: { name: "string", quota: "string", json: "boolean" },
    operands: [],
    run: init,
  },
  ...WORKSPACE_COMMANDS,
  ...MEMBER_COMMANDS,
  {
    name: "keys create",
    usage: "--workspace ID [--name NAME] [--scopes A,B] [--expires DAYS] [--rate-limit N] [--json]",
    summary: `Make an API key and print it, this once. --rate-limit: requests a minute. Scopes (default all): ${SCOPES.join(", ")}`,
    options: {
      ...{ workspace: "string", name: "string", scopes: "string", expires: "string" },
      ...{ "rate-limit": "string", json: "boolean" },
    },
    operands: [],
    run: (args, terminal) => {
      const workspaceId = args.required("workspace");
      const name = args.text("name");
      const scopes = args
        .text("scopes")
        ?.split(",")
        .map((scope) => scope.trim());
      const expiresInDays = args.integer("expires");
      const rateLimitPerMin = args.integer("rate-limit");
      return withCore(terminal, async ({ keys }) => {
        const made = await keys.create({
          workspaceId,
          ...(name === undefined ? {} : { name }),
          ...(scopes === undefined ? {} : { scopes }),
          ...(expiresInDays === undefined ? {} : { expiresInDays }),
          ...(rateLimitPerMin === undefined ? {} : { rateLimitPerMin }),
        });
        print(
          args,
          terminal,
          { workspace_id: workspaceId, api_key_id: made.apiKeyId, api_key: made.apiKey },
          made.apiKey,
        );
      });
    },
  },
  {
    name: "keys list",
    usage: "[--json]",
    summary: "List API keys; the keys themselves are not kept",
    options: { json: "boolean" },
    operands: [],
    run: (args, terminal) =>
      withCore(terminal, ({ keys }) => {
        const rows = keys.list().map((key) => ({
          api_key_id: key.apiKeyId,
          workspace_id: key.workspaceId,
          name: key.name,
          ends_in: key.keySuffix,
          scopes: key.scopes.join(","),
          rate_limit_per_min: key.rateLimitPerMin,
          created_at: isoTime(key.createdAtMs),
          expires_at: isoTime(key.expiresAtMs),
          revoked_at: isoTime(key.revokedAtMs),
          last_used_at: isoTime(key.lastUsedAtMs),
        }));
        print(args, terminal, rows, table(rows));
      }),
  },
  {
    name: "keys revoke",
    usage: "API_KEY_ID [--json]",
    summary: "Revoke an API key: it is refused from now on, also by a server that runs",
    options: { json: "boolean" },
    operands: ["API_KEY_ID"],
    run: (args, terminal) =>
      withCore(terminal, async ({ keys }) => {
        const revoked = await keys.revoke(args.operand("API_KEY_ID"));
        const row = { workspace_id: revoked.workspaceId, api_key_id: revoked.apiKeyId };
        print(args, terminal, row, `${revoked.apiKeyId} is revoked`);
      }),
  },
  {
    name: "config",
    usage: "",
    summary: "Print the effective settings as JSON, secrets masked",
    options: {},
    operands: [],
    run: (_args, { env, out }) => out(`${JSON.stringify(describeConfig(readConfig(env)), null, 2)}\n`),
  },
  ...DOCTOR_COMMANDS,
  DEV_ISSUER_COMMAND,
  {
    name: "version",
    usage: "",
    summary: "Print the version",
    options: {},
    operands: [],
    run: (_args, { out }) => out(`${VERSION}\n`),
  },
  {
    name: "help",
    usage: "[COMMAND]",
    summary: "Print this, or what is known of one command",
    options: {},
    operands: [],
    // "help" is no command like others: it takes their names. See `parseCommand`.
    run: () => {},
  },
];

async function init(args: Arguments, terminal: Terminal): Promise<void> {
  const quota = args.integer("quota");
  const config = readConfig(terminal.env);
  const storageBytesQuota = quota ?? config.defaultQuotaBytes;
  await makeDataFolder(config.dataDir);
  checkHoldsNoObjects(config.dataDir);
  const isThere = hasDatabase(config.dataDir);
  const lock = await lockToInit(config, isThere);
  try {
    // Without bringing it up to date, or mending anything: what is refused is left as it is.
    if (isThere) await refuseIfUsed(config, { holdsLock: true });
    await makeSigningKey(config.dataDir);
    await usingCore(config, { migrate: true }, async ({ db, workspaces, keys }) => {
      const made = await db.write(() => {
        if (workspaces.hasAny()) throw alreadyThere(config.dataDir);
        const workspace = workspaces.insert({ name: args.text("name") ?? "default", storageBytesQuota });
        return { ...workspace, ...keys.insert({ workspaceId: workspace.workspaceId, userId: workspace.userId }) };
      });
      const { workspaceId: workspace_id, userId: user_id, apiKeyId: api_key_id, apiKey: api_key } = made;
      print(args, terminal, { workspace_id, user_id, api_key_id, api_key }, firstSteps(config, made));
    });
  } finally {
    lock.release();
  }
}

/** Making the tables is for the holder of the lock. A directory that is being served has them, and most likely a workspace. */
async function lockToInit(config: Config, isThere: boolean): Promise<ServeLock> {
  try {
    return takeServeLock(config.dataDir);
  } catch (error) {
    if (!(error instanceof AppError && error.code === "conflict" && isThere)) throw error;
    await refuseIfUsed(config, { holdsLock: false });
    throw error;
  }
}

/** Throws `conflict` if the data directory has a workspace, or is of an older version, which `serve` alone brings up to date. */
async function refuseIfUsed(config: Config, { holdsLock }: { holdsLock: boolean }): Promise<void> {
  await usingCore(config, { migrate: false, holdsLock }, ({ workspaces }) => {
    if (workspaces.hasAny()) throw alreadyThere(config.dataDir);
  });
}

function alreadyThere(dataDir: string): AppError {
  return new AppError("conflict", `"${dataDir}" has a workspace already and was left as it is`, {
    hint: "`stowage workspaces list` shows it; `stowage keys create --workspace ID` makes another key for it",
  });
}
