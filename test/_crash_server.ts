import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";

const PROJECT = join(import.meta.dirname, "..");
/** The last lines of the log, for the message of a failure. */
const LINES_KEPT = 30;

export interface Server {
  /** Resolves with the URL once it serves, or with null where it ended before. */
  listening: Promise<string | null>;
  /** Resolves when the process is gone. */
  ended: Promise<void>;
  kill: (signal: NodeJS.Signals) => void;
  /** What it logged as an error, and the last lines, where something is wrong. */
  errors: () => string[];
  lines: () => string;
}

/** Starts the real program on a data directory, as `./scripts/start` does; `settings` are further ones. */
export function startServer(dataDir: string, settings: Record<string, string>): Server {
  const { PATH, HOME } = process.env;
  const child: ChildProcess = spawn(process.execPath, ["server.ts", "serve"], {
    cwd: PROJECT,
    env: { PATH, HOME, STOWAGE_DATA_DIR: dataDir, STOWAGE_PORT: "0", STOWAGE_MIN_FREE_BYTES: "0", ...settings },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const last: string[] = [];
  const errors: string[] = [];
  let listen: (url: string | null) => void = () => {};
  const listening = new Promise<string | null>((resolve) => {
    listen = resolve;
  });
  if (child.stderr === null) throw new Error("The server's log cannot be read");
  createInterface({ input: child.stderr }).on("line", (line) => {
    last.push(line);
    if (last.length > LINES_KEPT) last.shift();
    if (line.includes('"level":"error"')) errors.push(line);
    if (line.includes('"msg":"listening"')) listen(JSON.parse(line).url);
  });
  const ended = once(child, "close").then(() => listen(null));
  return {
    listening,
    ended,
    kill: (signal) => void child.kill(signal),
    errors: () => errors,
    lines: () => last.join("\n"),
  };
}
