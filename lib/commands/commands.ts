import { describeConfig, readConfig } from "../config/config.ts";
import { VERSION } from "../version.ts";
import type { Command } from "./command_line.ts";
import { DEV_ISSUER_COMMAND } from "./dev_issuer.ts";
import { DOCTOR_COMMANDS } from "./doctor.ts";
import { INIT_COMMAND } from "./init.ts";
import { KEY_COMMANDS } from "./keys.ts";
import { MEMBER_COMMANDS } from "./members.ts";
import { SERVE_COMMAND } from "./serve.ts";
import { WORKSPACE_COMMANDS } from "./workspaces.ts";

/** Every command, in the order of the help. Those that work on data can run beside `serve`. */
export const COMMANDS: readonly Command[] = [
  SERVE_COMMAND,
  INIT_COMMAND,
  ...WORKSPACE_COMMANDS,
  ...MEMBER_COMMANDS,
  ...KEY_COMMANDS,
  {
    name: "config",
    example: "config",
    usage: "",
    summary: "Print the effective settings as JSON, secrets masked",
    options: {},
    operands: [],
    run: (_args, { env, out }) => out(`${JSON.stringify(describeConfig(readConfig(env)), null, 2)}\n`),
  },
  ...DOCTOR_COMMANDS,
  DEV_ISSUER_COMMAND,
  {
    name: "version",
    example: "version",
    usage: "",
    summary: "Print the version",
    options: {},
    operands: [],
    run: (_args, { out }) => out(`${VERSION}\n`),
  },
  {
    name: "help",
    example: "help keys create",
    usage: "[COMMAND]",
    summary: "Print this help, or that of one command",
    options: {},
    operands: [],
    // Handled by `parseCommand`, because its operand is the name of a command.
    run: () => {},
  },
];
