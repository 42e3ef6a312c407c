import { parseArgs } from "node:util";
import { AppError } from "./errors.ts";

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
  /** How many operands it takes. */
  operands: number;
  run: (args: Arguments, terminal: Terminal) => Promise<void> | void;
}

/** Wrong usage: exit code 2, with the command's usage. */
export class UsageError extends Error {}

/** The parsed arguments of one command. */
export class Arguments {
  readonly #values: Readonly<Record<string, unknown>>;
  readonly operands: readonly string[];

  constructor(values: Readonly<Record<string, unknown>>, operands: readonly string[]) {
    this.#values = values;
    this.operands = operands;
  }

  text(name: string): string | undefined {
    const value = this.#values[name];
    return typeof value === "string" ? value : undefined;
  }

  required(name: string): string {
    const value = this.text(name);
    if (value === undefined) throw new UsageError(`--${name} is required`);
    return value;
  }

  flag(name: string): boolean {
    return this.#values[name] === true;
  }

  /** A whole number, 0 or more. */
  integer(name: string): number | undefined {
    const value = this.text(name);
    if (value === undefined) return undefined;
    if (!/^\d{1,16}$/.test(value))
      throw new UsageError(`--${name} must be a whole number, not ${JSON.stringify(value)}`);
    return Number(value);
  }
}

/** Finds the command that was typed and parses the rest. Throws `UsageError`. */
export function parseCommand(
  commands: readonly Command[],
  argv: readonly string[],
): { command: Command; args: Arguments } {
  const words = argv.slice(
    0,
    argv.findIndex((word) => word.startsWith("-")) === -1
      ? argv.length
      : argv.findIndex((word) => word.startsWith("-")),
  );
  const command = commands
    .filter(({ name }) => name.split(" ").every((word, i) => words[i] === word))
    .toSorted((a, b) => b.name.length - a.name.length)[0];
  if (command === undefined) {
    throw new UsageError(
      argv.length === 0 ? "Name a command" : `There is no command "${words.slice(0, 2).join(" ") || argv[0]}"`,
    );
  }
  try {
    const { values, positionals } = parseArgs({
      args: argv.slice(command.name.split(" ").length),
      options: Object.fromEntries(Object.entries(command.options).map(([name, type]) => [name, { type }])),
      allowPositionals: true,
      strict: true,
    });
    if (positionals.length !== command.operands) {
      throw new UsageError(`${positionals.length} operands were given, ${command.operands} are taken`);
    }
    return { command, args: new Arguments(values, positionals) };
  } catch (error) {
    if (error instanceof UsageError || !(error instanceof TypeError)) throw error;
    throw new UsageError(error.message);
  }
}

/** The message of an error and, where it has one, the hint after it, as they are shown on stderr. */
export function describeFailure(error: unknown): string {
  if (!(error instanceof AppError))
    return `stowage: error: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`;
  const [what, ...hint] = error.message.split(/: (?=`|stop|install|restart|restore)/i);
  return `stowage: error: ${what}\n${hint.length === 0 ? "" : `stowage: hint: ${hint.join(": ")}\n`}`;
}
