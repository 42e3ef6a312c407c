/** Writes what happened to stderr: one JSON line an event, or a short readable line where a person watches a terminal. */
export type LogLevel = "debug" | "info" | "warn" | "error" | "silent";

/** What an event carries. Secrets, tokens, signatures of URLs and contents of files are never put in here. */
export type LogFields = Record<string, unknown>;

export interface Log {
  debug(msg: string, fields?: LogFields): void;
  info(msg: string, fields?: LogFields): void;
  warn(msg: string, fields?: LogFields): void;
  error(msg: string, fields?: LogFields): void;
  /** Writes what is still held back; to be called before the process ends. */
  flush(): void;
}

export interface LogOptions {
  level: LogLevel;
  write: (text: string) => void;
  /** Readable lines instead of JSON. */
  pretty?: boolean;
  now?: () => number;
}

const RANK: Record<LogLevel, number> = { debug: 0, info: 1, warn: 2, error: 3, silent: 4 };

/** Lines are written together at the end of an event loop's turn: under load one system call serves many requests. */
export function createLog({ level, write, pretty = false, now = Date.now }: LogOptions): Log {
  let held = "";

  function flush(): void {
    if (held === "") return;
    const text = held;
    held = "";
    write(text);
  }

  function logger(name: Exclude<LogLevel, "silent">): (msg: string, fields?: LogFields) => void {
    if (RANK[name] < RANK[level]) return () => {};
    return (msg, fields) => {
      if (held === "") setImmediate(flush);
      held += pretty ? prettyLine(now(), name, msg, fields) : jsonLine(now(), name, msg, fields);
      if (name === "error") flush();
    };
  }

  return { debug: logger("debug"), info: logger("info"), warn: logger("warn"), error: logger("error"), flush };
}

function jsonLine(nowMs: number, level: string, msg: string, fields: LogFields | undefined): string {
  return `${JSON.stringify({ time: new Date(nowMs).toISOString(), level, msg, ...fields }, errorAsText)}\n`;
}

function prettyLine(nowMs: number, level: string, msg: string, fields: LogFields | undefined): string {
  let line = `${new Date(nowMs).toISOString().slice(11, 23)} ${level.padEnd(5)} ${msg}`;
  for (const [name, value] of Object.entries(fields ?? {})) {
    if (value === undefined || value === null) continue;
    line += ` ${name}=${typeof value === "string" ? value : JSON.stringify(value, errorAsText)}`;
  }
  return `${line}\n`;
}

function errorAsText(_key: string, value: unknown): unknown {
  if (!(value instanceof Error)) return value;
  return value.cause === undefined
    ? (value.stack ?? value.message)
    : `${value.stack ?? value.message}\ncaused by: ${value.cause instanceof Error ? value.cause.stack : String(value.cause)}`;
}
