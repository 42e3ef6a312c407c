import { describeFailure, parseCommand, UsageError } from "./lib/command_line.ts";
import { COMMANDS, help } from "./lib/commands.ts";

/** The whole program: pick a command, run it, set the exit code (0 done, 1 failed, 2 wrong usage). */
async function main(argv: readonly string[]): Promise<void> {
  try {
    const { command, args } = parseCommand(COMMANDS, argv);
    await command.run(args, { env: process.env, out: (text) => process.stdout.write(text) });
  } catch (error) {
    const isUsage = error instanceof UsageError;
    process.stderr.write(isUsage ? `stowage: error: ${error.message}\n\n${help()}` : describeFailure(error));
    process.exitCode = isUsage ? 2 : 1;
  }
}

void main(process.argv.slice(2));
