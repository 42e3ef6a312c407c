import { parseArgs } from "node:util";
import { hintOn, whyUnusable } from "../db/sqlite_errors.ts";
import { AppError } from "../errors.ts";
import { nearest } from "./nearest.ts";

/** What a command prints to, and where it reads its settings from. */
export interface Terminal {
  env: NodeJS.ProcessEnv;
  /** Results, for people or, with --json, for machines. */
  out: (text: string) => void;
}

type OptionKind = "string" | "boolean";

export interface Command {
  /** As it is typed, such as "keys create". */
  name: string;
  /** Options and operands, for the help. */
  usage: string;
  summary: string;
  options: Readonly<Record<string, OptionKind>>;
  /** The operands that it takes, named as in `usage`. */
  operands: readonly string[];
  run: (args: Arguments, terminal: Terminal) => Promise<void> | void;
}

/** Wrong usage: exit code 2. */
export class UsageError extends Error {
  /** How it is used rightly; null: as the help says. */
  readonly usage: string | null;

  constructor(message: string, usage: string | null) {
    super(message);
    this.usage = usage;
  }
}

/** The parsed arguments of one command. What is missing or malformed throws a `UsageError`. */
export interface Arguments {
  text: (option: string) => string | undefined;
  required: (option: string) => string;
  flag: (option: string) => boolean;
  /** A whole number, 0 or more. */
  integer: (option: string) => number | undefined;
  operand: (name: string) => string;
  integerOperand: (name: string) => number;
}

/** What was typed: a command to run, or a wish for the help of one, or of all (null). */
export type Typed = { kind: "run"; command: Command; args: Arguments } | { kind: "help"; command: Command | null };

/** Finds the command that was typed and parses the rest. Throws a `UsageError`. */
export function parseCommand(commands: readonly Command[], argv: readonly string[]): Typed {
  const [first] = argv;
  if (first === undefined) throw new UsageError("No command was given", null);
  if (first === "help" || first === "--help" || first === "-h") {
    const about = argv.slice(1);
    return { kind: "help", command: about.length === 0 ? null : findCommand(commands, about) };
  }
  const command = findCommand(commands, first === "--version" ? ["version", ...argv.slice(1)] : argv);
  const rest = argv.slice(command.name.split(" ").length);
  if (rest.includes("--help") || rest.includes("-h")) return { kind: "help", command };
  return { kind: "run", command, args: parseArguments(command, rest) };
}

function findCommand(commands: readonly Command[], words: readonly string[]): Command {
  const found = commands.find(({ name }) => name.split(" ").every((word, i) => words[i] === word));
  if (found !== undefined) return found;
  const [first = ""] = words;
  if (first.startsWith("-")) throw new UsageError(`A command must come before "${first}"`, null);
  const names = commands.map(({ name }) => name);
  const under = (prefix: string): string[] => names.filter((name) => name.startsWith(`${prefix} `));
  const typedTo = (depth: number): string => words.slice(0, depth).join(" ");
  // Down the groups that there are, and the one word on that leads nowhere.
  let depth = 1;
  while (isWord(words[depth]) && (depth === 1 || under(typedTo(depth)).length > 0)) depth++;
  const typed = typedTo(depth);
  const next = under(typed);
  if (next.length > 0) {
    const which = depth === 1 ? "second" : "third";
    throw new UsageError(`"${typed}" needs a ${which} word`, next.map((name) => `stowage ${name}`).join(" | "));
  }
  const group = under(typedTo(depth - 1));
  const near = nearest(typed, group.length > 0 ? group : names);
  throw new UsageError(`There is no command "${typed}"; did you mean "${near}"?`, null);
}

function isWord(text: string | undefined): boolean {
  return text !== undefined && !text.startsWith("-");
}

function parseArguments(command: Command, words: readonly string[]): Arguments {
  const wrong = (message: string): UsageError => new UsageError(message, usageOf(command));
  const { values, positionals } = parseStrictly(command, words, wrong);
  if (positionals.length > command.operands.length) {
    throw wrong(`"${positionals[command.operands.length]}" is one word too many`);
  }

  function integer(name: string, text: string): number {
    if (/^\d{1,16}$/.test(text) && Number.isSafeInteger(Number(text))) return Number(text);
    throw wrong(`${name} must be a whole number from 0 to ${Number.MAX_SAFE_INTEGER}, not ${JSON.stringify(text)}`);
  }
  function text(option: string): string | undefined {
    const value = values[option];
    return typeof value === "string" ? value : undefined;
  }
  function operand(name: string): string {
    const value = positionals[command.operands.indexOf(name)];
    if (value === undefined) throw wrong(`${name} is missing`);
    return value;
  }

  for (const name of command.operands) operand(name);
  return {
    text,
    required: (option) => {
      const value = text(option);
      if (value === undefined) throw wrong(`--${option} is missing`);
      return value;
    },
    flag: (option) => values[option] === true,
    integer: (option) => {
      const value = text(option);
      return value === undefined ? undefined : integer(`--${option}`, value);
    },
    operand,
    integerOperand: (name) => integer(name, operand(name)),
  };
}

function parseStrictly(
  { options }: Command,
  words: readonly string[],
  wrong: (message: string) => UsageError,
): { values: Readonly<Record<string, unknown>>; positionals: readonly string[] } {
  const known = Object.entries(options).map(([name, type]): [string, { type: OptionKind }] => [name, { type }]);
  try {
    return parseArgs({ args: [...words], options: Object.fromEntries(known), allowPositionals: true, strict: true });
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    const unknown = /^Unknown option '(-[^']*)'/.exec(error.message)?.[1];
    if (unknown === undefined) throw wrong(error.message.split("\n")[0] ?? "");
    const near = nearest(
      unknown,
      Object.keys(options).map((name) => `--${name}`),
    );
    throw wrong(`There is no option "${unknown}" here${near === undefined ? "" : `; did you mean "${near}"?`}`);
  }
}

function usageOf({ name, usage }: Command): string {
  return `stowage ${name} ${usage}`.trimEnd();
}

/** The help of one command, or of all. */
export function help(commands: readonly Command[], command: Command | null): string {
  if (command !== null) return `Usage: ${usageOf(command)}\n\n${command.summary}.\n`;
  const lines = commands.map(({ name, usage, summary }) => `  ${`${name} ${usage}`.trim()}\n      ${summary}\n`);
  return `Usage: stowage COMMAND\n\n${lines.join("")}
Results go to stdout (with --json for machines), the rest to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage.
Settings are environment variables that begin with STOWAGE_; \`stowage config\` prints them.
`;
}

/** What stderr tells of a failure, and the exit code that goes with it. */
export function describeFailure(error: unknown): { text: string; exitCode: number } {
  if (error instanceof UsageError) {
    const hint = error.usage === null ? "`stowage help` lists the commands" : `usage: ${error.usage}`;
    return { text: failure(error.message, hint), exitCode: 2 };
  }
  if (error instanceof AppError) return { text: failure(error.message, error.hint), exitCode: 1 };
  const why = whyUnusable(error);
  if (why !== null && error instanceof Error) {
    return {
      text: failure(`The database cannot be used: ${why} (SQLite: ${error.message})`, hintOn(error)),
      exitCode: 1,
    };
  }
  if (!(error instanceof Error)) return { text: failure(String(error), null), exitCode: 1 };
  // A failed call to the system says what it was and on which file; any other failure is a defect, and its stack is told.
  return { text: failure("syscall" in error ? error.message : (error.stack ?? error.message), null), exitCode: 1 };
}

function failure(message: string, hint: string | null): string {
  return `stowage: error: ${message}\n${hint === null ? "" : `stowage: hint: ${hint}\n`}`;
}
