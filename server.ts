import { describeFailure, help, parseCommand } from "./lib/commands/command_line.ts";
import { COMMANDS } from "./lib/commands/commands.ts";
import { AppError } from "./lib/errors.ts";

/** The whole program: pick a command, run it, set the exit code (0 done, 1 failed, 2 wrong usage). */
async function main(argv: readonly string[]): Promise<void> {
  const out = (text: string): void => void process.stdout.write(text);
  process.stdout.on("error", (error) =>
    fail(new AppError("internal_error", `Cannot print the result: ${error.message}`)),
  );
  try {
    const typed = parseCommand(COMMANDS, argv);
    if (typed.kind === "help") out(help(COMMANDS, typed.command));
    else await typed.command.run(typed.args, { env: process.env, out });
  } catch (error) {
    fail(error);
  }
}

function fail(error: unknown): void {
  const { text, exitCode } = describeFailure(error);
  process.stderr.write(text);
  process.exitCode = exitCode;
}

void main(process.argv.slice(2));
