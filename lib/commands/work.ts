import { createInterface } from "node:readline/promises";

import type { Books } from "../books/books.ts";
import { type BooksOptions, openBooks } from "../books/sqlite/open_books.ts";
import { noSuchWorkspace, type Workspace, type Workspaces } from "../books/workspaces.ts";
import { type Config, readConfig } from "../config/config.ts";
import { checkInitialised } from "../data_dir/data_dir.ts";
import { AppError } from "../errors.ts";
import { createLog, type Log, logTo } from "../log.ts";
import { timestamp } from "../timestamp.ts";
import type { Arguments, Terminal } from "./command_line.ts";

const UUID_PATTERN = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
/** Slugs that one message lists. */
const SLUGS_SHOWN_MAX = 10;

/** Runs a command's work on the data directory of the settings, which may be served meanwhile. */
export async function withBooks(
  terminal: Terminal,
  work: (books: Books, config: Config) => Promise<void> | void,
): Promise<void> {
  const config = readConfig(terminal.env);
  checkInitialised(config.dataDir);
  await usingBooks(config, { migrate: false }, (books) => work(books, config));
}

/**
 * The id of the workspace that a person names by its id, its slug or its name. An id is returned as it is, and the verb that it
 * is for finds out if there is such a workspace. Throws `not_found`, or `conflict` if several workspaces have this name.
 */
export async function findWorkspaceId(workspaces: Workspaces, text: string): Promise<string> {
  if (UUID_PATTERN.test(text)) return text;
  const all = await workspaces.list();
  const named = all.filter(({ slug }) => slug === text);
  if (named.length === 0) named.push(...all.filter(({ name }) => name === text));
  const [workspace] = named;
  if (workspace === undefined) throw noSuchWorkspace(text);
  if (named.length === 1) return workspace.workspaceId;
  throw new AppError("conflict", `${named.length} workspaces have the name ${JSON.stringify(text)}`, {
    hint: `name one by its slug: ${listSlugs(named)}`,
  });
}

/** The slugs of some workspaces, for a message. */
export function listSlugs(workspaces: readonly Workspace[]): string {
  const slugs = workspaces.slice(0, SLUGS_SHOWN_MAX).map(({ slug }) => slug);
  return slugs.join(", ") + (workspaces.length > slugs.length ? ", …" : "");
}

/** Opens the books for the time of `work`, and resolves with its result. */
export async function usingBooks<T>(
  config: Config,
  how: Pick<BooksOptions, "migrate" | "holdsLock">,
  work: (books: Books) => Promise<T> | T,
): Promise<T> {
  const books = openBooks({ config, log: stderrLog(config), now: Date.now, ...how, onFatal: () => {} });
  try {
    return await work(books);
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
