import { existsSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Agent, request } from "undici";
import type { Json } from "./_app.ts";
import { afterwards } from "./_db.ts";
import { scrape } from "./_metrics_page.ts";
import { type Program, startProgram } from "./_process.ts";

const HOOKS = fileURLToPath(new URL("./_connection_matrix_hooks.ts", import.meta.url));
const LOOK_MS = 5;
/** The metrics name these, and no others. */
const COUNTED_METHODS: readonly string[] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

export interface ProgramOptions {
  dataDir: string;
  env: Record<string, string>;
  /** By what its longest time-outs are divided. */
  haste?: number;
}

export interface CallResult {
  status: number;
  json: Json;
  text: string;
}

/** One run of the real program: what it says, what it holds open, and how it is held. */
export interface Run {
  program: Program;
  pid: number;
  url: string;
  isAlive: () => boolean;
  /** Every line of its log so far. */
  lines: () => readonly Json[];
  /** The request ids of what the test itself asked for. */
  controlIds: Set<string>;
  /** Sends an ordinary request. */
  call: (
    method: string,
    path: string,
    call?: { token?: string; body?: unknown; workspace?: string },
  ) => Promise<CallResult>;
  /** Open files and sockets. */
  openFiles: () => number;
  /** The clients' ports of the connections that it has not closed. */
  clientPorts: () => number[];
  /** Holds every call to the store from now on; `held` waits for so many that wait. */
  holdStore: () => { held: (count: number) => Promise<boolean>; release: () => void };
  /** Stops the process as a whole, until `go`. */
  stop: () => Promise<void>;
  go: () => void;
  /** How log and metrics differ in what they count of requests. */
  miscounted: () => Promise<string[]>;
}

/** Starts the real program with the hooks of the matrix. */
export async function startRun(t: TestContext, { dataDir, env, haste }: ProgramOptions): Promise<Run> {
  const gate = `${dataDir}-gate`;
  rmSync(gate, { force: true });
  const program = startProgram(t, ["serve"], {
    env: {
      ...{ STOWAGE_DATA_DIR: dataDir, NODE_OPTIONS: `--import=${HOOKS} --trace-warnings`, MATRIX_STORE_GATE: gate },
      ...(haste === undefined ? {} : { MATRIX_HASTE: String(haste) }),
      ...env,
    },
  });
  const { child } = program;
  let hasEnded = false;
  void program.ended.then(() => {
    hasEnded = true;
  });
  await program.says('"msg":"listening"');
  const pid = child.pid ?? 0;
  const parsed: Json[] = [];
  let readChars = 0;
  function lines(): readonly Json[] {
    const text = program.stderr();
    const end = text.lastIndexOf("\n") + 1;
    parsed.push(...text.slice(readChars, end).split("\n").slice(0, -1).map(lineOf));
    readChars = end;
    return parsed;
  }
  const url: string = lines().find(({ msg }) => msg === "listening")?.url;
  const controlIds = new Set<string>();
  // No connection is kept: what stays open must be the fault of what is tested.
  const agent = new Agent({ pipelining: 0, connections: 16 });
  afterwards(t, () => agent.destroy());

  const call: Run["call"] = async (method, path, { token, body, workspace } = {}) => {
    const isRaw = Buffer.isBuffer(body);
    const answer = await request(path.startsWith("http") ? path : url + path, {
      method,
      dispatcher: agent,
      body: body === undefined ? null : isRaw ? body : JSON.stringify(body),
      headers: {
        ...(token === undefined ? {} : { Authorization: `Bearer ${token}` }),
        ...(workspace === undefined ? {} : { "X-Workspace-Id": workspace }),
        ...(body === undefined || isRaw ? {} : { "Content-Type": "application/json" }),
      },
    });
    const text = await answer.body.text();
    controlIds.add(String(answer.headers["x-request-id"]));
    return { status: answer.statusCode, text, json: text.startsWith("{") ? JSON.parse(text) : undefined };
  };

  function holdStore(): ReturnType<Run["holdStore"]> {
    rmSync(`${gate}.held`, { force: true });
    writeFileSync(gate, "");
    const waiting = (): number => (existsSync(`${gate}.held`) ? statSync(`${gate}.held`).size : 0);
    return { held: (count) => soon(() => waiting() >= count), release: () => rmSync(gate, { force: true }) };
  }

  async function stop(): Promise<void> {
    child.kill("SIGSTOP");
    await soon(() => / T /.test(readFileSync(`/proc/${pid}/stat`, "latin1")));
  }

  async function miscounted(): Promise<string[]> {
    const page = await scrape(`${url}/metrics`);
    const logged = new Map<string, number>();
    for (const { msg, method, route, status } of lines()) {
      if (msg !== "request") continue;
      const key = `${COUNTED_METHODS.includes(method) ? method : "other"} ${route} ${status}`;
      logged.set(key, (logged.get(key) ?? 0) + 1);
    }
    return (
      [...logged]
        .map(([key, times]) => {
          const [method = "", ...rest] = key.split(" ");
          const [route = "", status = ""] = [rest.slice(0, -1).join(" "), rest.at(-1)];
          return { key, times, counted: page.value("stowage_http_requests_total", { method, route, status }) };
        })
        // The page does not count the request that it answers.
        .filter(({ key, times, counted }) => times !== counted && !key.startsWith("GET /metrics "))
        .map(({ key, times, counted }) => `${key}: ${times} in the log, ${counted} in the metrics`)
    );
  }

  return {
    ...{ program, pid, url, lines, controlIds, call, holdStore, stop, miscounted },
    isAlive: () => !hasEnded,
    clientPorts: () => clientPorts(pid),
    openFiles: () => (hasEnded ? 0 : readdirSync(`/proc/${pid}/fd`).length),
    go: () => void child.kill("SIGCONT"),
  };
}

/** A line of the log. What is none is a warning of the runtime, such as of listeners that pile up: a failure, too. */
function lineOf(text: string): Json {
  return text.startsWith("{") ? JSON.parse(text) : { level: "error", msg: "not a line of the log", error: text };
}

function clientPorts(pid: number): number[] {
  const folder = `/proc/${pid}/fd`;
  const inodes = new Set(
    readdirSync(folder).map((name) => /^socket:\[(\d+)\]$/.exec(readlinkSync(join(folder, name)))?.[1] ?? ""),
  );
  return readFileSync(`/proc/${pid}/net/tcp`, "utf8")
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => inodes.has(fields[9] ?? ""))
    .map((fields) => Number.parseInt(fields[2]?.split(":")[1] ?? "0", 16))
    .filter((port) => port !== 0);
}

/** Waits until something is true, for seconds; false if it does not become true. */
export async function soon(isTrue: () => boolean, withinMs = 6_000): Promise<boolean> {
  const startedMs = performance.now();
  while (!isTrue()) {
    if (performance.now() - startedMs > withinMs) return false;
    await delay(LOOK_MS);
  }
  return true;
}

/** The names of the files of PUTs that are under way. */
export function halfSent(dataDir: string): string[] {
  return readdirSync(join(dataDir, "objects", "tmp"));
}
