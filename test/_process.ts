import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { Agent, request } from "undici";
import { type Answer, type Json, temporaryFolder } from "./_app.ts";
import { afterwards } from "./_db.ts";
import { collectOutput } from "./_output.ts";

export const PROGRAM = fileURLToPath(new URL("../server.ts", import.meta.url));

export interface Ended {
  /** Null where a signal ended it. */
  exitCode: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

export interface Program {
  child: ChildProcess;
  /** What it has written to stderr so far. */
  stderr: () => string;
  /** Resolves once stderr holds this text; rejects where the process ends before. */
  says: (text: string) => Promise<void>;
  ended: Promise<Ended>;
}

export interface StartOptions {
  env?: Record<string, string>;
  /** A command and its arguments that go before the program, such as `strace`. */
  under?: readonly string[];
}

/** Starts the real program. What still runs at the end of the test is killed, before what was made earlier goes. */
export function startProgram(t: TestContext, args: readonly string[], options: StartOptions = {}): Program {
  const { env = {}, under = [] } = options;
  const [command = "", ...rest] = [...under, process.execPath, PROGRAM, ...args];
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("STOWAGE_"));
  const child = spawn(command, rest, {
    env: { ...Object.fromEntries(inherited), STOWAGE_PORT: "0", STOWAGE_MIN_FREE_BYTES: "0", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const output = collectOutput(child);
  const ended = once(child, "close").then(([exitCode, signal]): Ended => ({ exitCode, signal, ...output }));
  afterwards(t, async () => {
    child.kill("SIGKILL");
    await ended;
  });

  function says(text: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        if (output.stderr.includes(text)) resolve();
      };
      child.stderr.on("data", look);
      void ended.then(() => reject(new Error(`Ended without saying ${text}: ${output.stderr}`)), reject);
      look();
    });
  }

  return { child, stderr: () => output.stderr, says, ended };
}

/** Runs the real program to its end. */
export function runProgram(t: TestContext, args: readonly string[], env: Record<string, string>): Promise<Ended> {
  return startProgram(t, args, { env }).ended;
}

/** What `init --json` prints. */
export interface InitOutput {
  workspace_id: string;
  user_id: string;
  api_key_id: string;
  api_key: string;
}

/** Makes a data directory by the real `init`. It is removed after the test. */
export async function initProgram(t: TestContext): Promise<{ dataDir: string; made: InitOutput }> {
  const dataDir = join(await temporaryFolder(t), "data");
  const { exitCode, stdout, stderr } = await runProgram(t, ["init", "--json"], { STOWAGE_DATA_DIR: dataDir });
  if (exitCode !== 0) throw new Error(`init failed: ${stderr}`);
  return { dataDir, made: JSON.parse(stdout) };
}

export interface ServingProgram extends Program {
  url: string;
  /** Sends a request, with a key where one is given. */
  call: (method: "GET" | "POST" | "PUT" | "DELETE", path: string, options?: CallOptions) => Promise<Answer>;
}

interface CallOptions {
  key?: string;
  /** A string or bytes are sent as they are, all else as JSON. */
  body?: unknown;
}

/** Starts the real `serve` on a free port and waits until it listens. */
export async function serveProgram(
  t: TestContext,
  dataDir: string,
  { env = {}, under = [] }: StartOptions = {},
): Promise<ServingProgram> {
  const program = startProgram(t, ["serve"], { env: { STOWAGE_DATA_DIR: dataDir, ...env }, under });
  await program.says('"msg":"listening"');
  const listening = logLines(program.stderr()).find(({ msg }) => msg === "listening");
  const url: string = listening?.url;
  const agent = new Agent({ connections: 16 });
  afterwards(t, () => agent.destroy());

  async function call(...[method, path, { key, body } = {}]: Parameters<ServingProgram["call"]>): Promise<Answer> {
    const isRaw = typeof body === "string" || Buffer.isBuffer(body);
    const answer = await request(path.startsWith("http") ? path : url + path, {
      method,
      dispatcher: agent,
      body: body === undefined ? null : isRaw ? body : JSON.stringify(body),
      headers: {
        ...(key === undefined ? {} : { Authorization: `Bearer ${key}` }),
        ...(body === undefined || isRaw ? {} : { "Content-Type": "application/json" }),
      },
    });
    const text = await answer.body.text();
    const isJson = String(answer.headers["content-type"]).startsWith("application/json");
    return { status: answer.statusCode, headers: answer.headers, text, json: isJson ? JSON.parse(text) : undefined };
  }

  return { ...program, url, call };
}

/** The events of a log. A line that is not JSON throws. */
export function logLines(stderr: string): Json[] {
  return stderr
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line));
}
