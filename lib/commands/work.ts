import { createInterface } from "node:readline/promises";
import type { Books } from "../books/books.ts";
import { type BooksOptions, openBooks } from "../books/sqlite/open_books.ts";
import { type Config, readConfig } from "../config/config.ts";
import { checkInitialised } from "../data_dir/data_dir.ts";
import { createLog, type Log, logTo } from "../log.ts";
import { timestamp } from "../timestamp.ts";
import type { Arguments, Terminal } from "./command_line.ts";

/** Runs a command's work on the data directory of the settings, which may be served meanwhile. */
export async function withBooks(
  terminal: Terminal,
  work: (books: Books, config: Config) => Promise<void> | void,
): Promise<void> {
  const config = readConfig(terminal.env);
  checkInitialised(config.dataDir);
  await usingBooks(config, { migrate: false }, (books) => work(books, config));
}

/** Opens the books for the time of `work`. */
export async function usingBooks(
  config: Config,
  how: Pick<BooksOptions, "migrate" | "holdsLock">,
  work: (books: Books) => Promise<void> | void,
): Promise<void> {
  const books = openBooks({ config, log: stderrLog(config), now: Date.now, ...how, onFatal: () => {} });
  try {
    await work(books);
  } finally {
    await books.close();
  }
}

/** A command's log: to stderr, readable for people if that is a terminal. */
export function stderrLog({ logLevel }: Config): Log {
  return createLog({
    level: logLevel,
    pretty: process.stderr.isTTY === true,
    ...logTo(process.stderr),
  });
}

/** Prints a result: the value with --json, otherwise the text. */
export function print(args: Arguments, { out }: Terminal, value: unknown, text: string): void {
  out(args.flag("json") ? `${JSON.stringify(value)}\n` : `${text}\n`);
}

/** Formats rows under their column names, for people. */
export function table(rows: readonly Record<string, unknown>[]): string {
  const [first] = rows;
  if (first === undefined) return "(none)";
  const lines = [Object.keys(first), ...rows.map((row) => Object.values(row).map((value) => String(value ?? "-")))];
  const widths = Object.keys(first).map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)));
  return lines
    .map((line) =>
      line
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** Formats a time for output; null stays null. */
export function isoTime(atMs: number | null): string | null {
  return atMs === null ? null : timestamp(atMs);
}

/** Asks a question that only "y" or "yes" accepts. With no one at the terminal the reply is no. */
export async function askYesNo(question: string): Promise<boolean> {
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const ended = new Promise<string>((resolve) => terminal.once("close", () => resolve("")));
    const response = await Promise.race([terminal.question(`${question} [y/N] `), ended]);
    return /^y(es)?$/i.test(response.trim());
  } finally {
    terminal.close();
  }
}
