import type { Writable } from "node:stream";
import { timestamp } from "./timestamp.ts";

/** Events go to stderr: one JSON line each, or a short readable line if a person watches a terminal. */
export type LogLevel = "debug" | "info" | "warn" | "error" | "silent";

/** The fields of an event. They never contain secrets, tokens, signatures of URLs or contents of files. */
export type LogFields = Record<string, unknown>;

export interface Log {
  debug(msg: string, fields?: LogFields): void;
  info(msg: string, fields?: LogFields): void;
  warn(msg: string, fields?: LogFields): void;
  error(msg: string, fields?: LogFields): void;
  /** Writes lines that are still held back; to be called before the process ends. */
  flush(): void;
}

/** The destination of lines. */
export interface LogSink {
  write: (text: string) => void;
  /** Bytes that were written and not yet read. Left out if the reader always takes them at once. */
  untakenBytes?: () => number;
  /** Calls back, once, when the reader has taken everything. */
  onceTaken?: (callback: () => void) => void;
}

export interface LogOptions extends LogSink {
  level: LogLevel;
  /** Readable lines instead of JSON. */
  pretty?: boolean;
  now?: () => number;
}

/** Text that needs no quotes in a readable line. */
const PLAIN_TEXT = /^[\x21-\x7e]+$/;
/**
 * The most bytes that a reader may leave unread. Beyond it lines are dropped: they use memory, and a reader that stands still
 * must not bring the service down. 4 MiB are some 15,000 requests.
 */
const UNTAKEN_BYTES_MAX = 4 * 1024 * 1024;
/** Causes of an error that are logged: a chain of causes may be a ring. */
const CAUSES_MAX = 5;

const RANK: Record<LogLevel, number> = { debug: 0, info: 1, warn: 2, error: 3, silent: 4 };

/**
 * A failure that the service survives is logged in one line, with its stack only at the level `debug`. An error always has its
 * stack, because it is a defect or ends the process.
 *
 * Lines are written together at the end of an event loop's turn: under load one system call serves many requests. While
 * the reader is far behind lines are dropped, and once it has taken the rest a line says how many.
 */
export function createLog(options: LogOptions): Log {
  const { level, write, untakenBytes = () => 0, onceTaken = () => {}, pretty = false, now = Date.now } = options;
  const format = pretty ? prettyLine : jsonLine;
  const showsStacks = (name: LogLevel): boolean => name === "error" || level === "debug";
  let held = "";
  let isBehind = false;
  let dropped = 0;

  function flush(): void {
    if (held === "") return;
    const text = held;
    held = "";
    write(text);
    if (isBehind || untakenBytes() <= UNTAKEN_BYTES_MAX) return;
    isBehind = true;
    onceTaken(goOn);
  }

  function goOn(): void {
    isBehind = false;
    if (dropped > 0) {
      const hint = "whatever reads the log stood still, or is slower than it is written";
      held += format(now(), "warn", "log_lines_dropped", { dropped, hint }, false);
    }
    dropped = 0;
    flush();
  }

  function logger(name: Exclude<LogLevel, "silent">): (msg: string, fields?: LogFields) => void {
    if (RANK[name] < RANK[level]) return () => {};
    return (msg, fields) => {
      // An error is worth twice the room.
      if (isBehind && (name !== "error" || untakenBytes() > 2 * UNTAKEN_BYTES_MAX)) {
        dropped++;
        return;
      }
      if (held === "") setImmediate(flush);
      held += format(now(), name, msg, fields, showsStacks(name));
      if (name === "error") flush();
    };
  }

  return { debug: logger("debug"), info: logger("info"), warn: logger("warn"), error: logger("error"), flush };
}

/** A stream as the destination of lines. */
export function logTo(stream: Writable): LogSink {
  return {
    write: (text) => void stream.write(text),
    untakenBytes: () => stream.writableLength,
    // Comes whenever a stream that had asked its writer to wait is empty, and one with megabytes has asked.
    onceTaken: (callback) => void stream.once("drain", callback),
  };
}

function jsonLine(nowMs: number, level: string, msg: string, fields: LogFields = {}, withStacks = false): string {
  const head = `{"time":"${timestamp(nowMs)}","level":"${level}","msg":${JSON.stringify(msg)}`;
  const rest = toJson(fields, withStacks);
  return rest === "{}" ? `${head}}\n` : `${head},${rest.slice(1)}\n`;
}

function prettyLine(nowMs: number, level: string, msg: string, fields: LogFields = {}, withStacks = false): string {
  let line = `${timestamp(nowMs).slice(11, 23)} ${level.padEnd(5)} ${msg}`;
  for (const [name, value] of Object.entries(fields)) {
    if (value === undefined || value === null) continue;
    line += ` ${name}=${prettyValue(value, withStacks)}`;
  }
  return `${line}\n`;
}

function prettyValue(value: unknown, withStacks: boolean): string {
  if (value instanceof Error) {
    // A stack stays readable. Its message may quote a stranger's bytes, which must not move the cursor.
    if (withStacks) return describeError(value, true).replaceAll(/[^\P{Cc}\n]|\p{Bidi_Control}/gu, "?");
    return describeError(value, false).replaceAll(/\p{Cc}|\p{Bidi_Control}/gu, "?");
  }
  return typeof value === "string" && PLAIN_TEXT.test(value) ? value : toJson(value, withStacks);
}

/** Never throws: an event that cannot be written would hide the failure that it reports. */
function toJson(value: unknown, withStacks: boolean): string {
  try {
    return JSON.stringify(value, isSimple(value) ? undefined : (_key, part) => asText(part, withStacks)) ?? "null";
  } catch (error) {
    return JSON.stringify({ unwritable: String(error) });
  }
}

/** Nearly every event is made of plain values. Passing each of them through a function takes as long as all the rest. */
function isSimple(value: unknown): boolean {
  return typeof value === "object" && value !== null && Object.values(value).every(isPlain);
}

function isPlain(value: unknown): boolean {
  return typeof value !== "object" && typeof value !== "bigint";
}

function asText(value: unknown, withStacks: boolean): unknown {
  if (typeof value === "bigint") return value.toString();
  return value instanceof Error ? describeError(value, withStacks) : value;
}

/** An error's message, or its stack, with its code if it has one, and the same of what caused it. */
function describeError(error: Error, withStack: boolean, causesMax = CAUSES_MAX): string {
  const code = "code" in error && typeof error.code === "string" ? ` [${error.code}]` : "";
  const text = `${(withStack ? error.stack : undefined) ?? String(error)}${code}`;
  if (error.cause === undefined || causesMax === 0) return text;
  const { cause } = error;
  const causeText = cause instanceof Error ? describeError(cause, withStack, causesMax - 1) : String(cause);
  return `${text}${withStack ? "\n" : "; "}caused by: ${causeText}`;
}
