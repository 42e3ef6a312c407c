import { type Config, readConfig } from "../config/config.ts";
import { type Core, type CoreOptions, openCore } from "../core/core.ts";
import { checkInitialised } from "../db/data_dir.ts";
import { createLog, type Log, logTo } from "../log.ts";
import { timestamp } from "../timestamp.ts";
import type { Arguments, Terminal } from "./command_line.ts";

/** Does a command's work on the data directory of the settings, which may be served meanwhile. */
export async function withCore(
  terminal: Terminal,
  work: (core: Core, config: Config) => Promise<void> | void,
): Promise<void> {
  const config = readConfig(terminal.env);
  checkInitialised(config.dataDir);
  await usingCore(config, { migrate: false }, (core) => work(core, config));
}

/** Opens the core for the time of `work`. */
export async function usingCore(
  config: Config,
  how: Pick<CoreOptions, "migrate" | "holdsLock">,
  work: (core: Core) => Promise<void> | void,
): Promise<void> {
  const core = openCore({ config, log: stderrLog(config), now: Date.now, ...how, onFatal: () => {} });
  try {
    await work(core);
  } finally {
    await core.db.close();
  }
}

/** The log of a command: to stderr, for people where that is a terminal. */
export function stderrLog({ logLevel }: Config): Log {
  return createLog({
    level: logLevel,
    pretty: process.stderr.isTTY === true,
    ...logTo(process.stderr),
  });
}

/** Prints a result: the value with --json, else the text. */
export function print(args: Arguments, { out }: Terminal, value: unknown, text: string): void {
  out(args.flag("json") ? `${JSON.stringify(value)}\n` : `${text}\n`);
}

/** Rows under their column names, for people. */
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

/** A moment as it is printed; null stays null. */
export function isoTime(atMs: number | null): string | null {
  return atMs === null ? null : timestamp(atMs);
}
