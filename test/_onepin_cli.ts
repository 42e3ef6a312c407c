import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import type { Json } from "./_app.ts";
import { skipLoudly } from "./_loud_skip.ts";
import { collectOutput } from "./_output.ts";

/** What scripts/install_clients installs. */
export const ONEPIN_VERSIONS = ["0.13.0", "0.16.1"] as const;
export type OnepinVersion = (typeof ONEPIN_VERSIONS)[number];

/** The folder of a client's commands (`onepin`, `python`); skips the test loudly where it is not installed. */
export function onepinCommands(t: TestContext, version: OnepinVersion): string | null {
  // Empty counts as unset, as in the script that installs.
  const cache = process.env.XDG_CACHE_HOME || join(homedir(), ".cache");
  const folder = join(cache, "stowage", `onepin-${version}`, "bin");
  if (existsSync(join(folder, "onepin"))) return folder;
  skipLoudly(t, `onepin ${version} is not installed`, "./scripts/install_clients");
  return null;
}

export interface CliAnswer {
  exitCode: number | null;
  stdout: string;
  stderr: string;
}

export interface CliOptions {
  home: string;
  env?: Record<string, string>;
  cwd?: string;
  /** What is typed. */
  input?: string;
}

/** Runs a command as a user would, with a home of its own and nothing of this machine's settings for the client. */
export async function runClient(command: string, args: readonly string[], options: CliOptions): Promise<CliAnswer> {
  const { home, env = {}, cwd = home, input = "" } = options;
  const child = spawn(command, args, {
    cwd,
    env: {
      PATH: process.env.PATH ?? "",
      HOME: home,
      LANG: "C.UTF-8",
      // Tables are cut to the terminal's width.
      COLUMNS: "250",
      NO_COLOR: "1",
      ONEPIN_NO_UPDATE_CHECK: "1",
      ...env,
    },
  });
  const output = collectOutput(child);
  // A command that asks nothing may be gone before it is told anything.
  child.stdin.on("error", () => {});
  child.stdin.end(input);
  const [exitCode] = await once(child, "close");
  return { exitCode, ...output };
}

export interface Cli {
  run: (...args: string[]) => Promise<CliAnswer>;
  /** Types something at the prompt. */
  type: (input: string, ...args: string[]) => Promise<CliAnswer>;
  /** Runs with `--json`, expects success, and returns what was printed. */
  json: (...args: string[]) => Promise<Json>;
  /** Runs, expects success, and returns what was printed. */
  text: (...args: string[]) => Promise<string>;
  /**
   * Runs with `--json`, expects failure, and returns the code and message. The first time that a code comes, runs without
   * `--json` too, which must say the same: each run costs half a second.
   */
  fails: (...args: string[]) => Promise<{ code: string; message: string }>;
}

/** The CLI of a version, with these settings in the environment. */
export function createCli(command: string, options: CliOptions): Cli {
  const run = (...args: string[]): Promise<CliAnswer> => runClient(command, args, options);

  const codesSeen = new Set<string>();

  async function text(...args: string[]): Promise<string> {
    const { exitCode, stdout, stderr } = await run(...args);
    if (exitCode !== 0) throw new Error(`onepin ${args.join(" ")} ended with ${exitCode}: ${stderr}${stdout}`);
    return stdout;
  }

  async function fails(...args: string[]): Promise<{ code: string; message: string }> {
    const machine = await run("--json", ...args);
    checkFailed(args, machine);
    const { error, meta } = JSON.parse(machine.stderr);
    if (!codesSeen.has(error.code)) {
      codesSeen.add(error.code);
      const plain = await run(...args);
      checkFailed(args, plain);
      const expected = `[${error.code}] ${error.message}${meta?.request_id ? " (request_id=" : ""}`;
      if (!plain.stderr.replace(/\s+/g, " ").includes(expected)) {
        throw new Error(`Expected ${expected} in ${plain.stderr}`);
      }
    }
    return { code: error.code, message: error.message };
  }

  return {
    run,
    text,
    fails,
    type: (input, ...args) => runClient(command, args, { ...options, input }),
    json: async (...args) => JSON.parse(await text("--json", ...args)),
  };
}

function checkFailed(args: readonly string[], answer: CliAnswer): void {
  if (answer.exitCode === 1 && answer.stdout === "") return;
  throw new Error(`onepin ${args.join(" ")} should have failed: ${JSON.stringify(answer)}`);
}
