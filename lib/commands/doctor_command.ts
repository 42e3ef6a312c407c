import { readConfig } from "../config/config.ts";
import { checkInitialised } from "../db/data_dir.ts";
import { acceptDatabase, describeLosses, findLosses } from "../doctor/accept.ts";
import { type DoctorOptions, runDoctor, withParts } from "../doctor/doctor.ts";
import { type Report, reportJson, reportText } from "../doctor/report.ts";
import { runDoctorStorage } from "../doctor/storage.ts";
import { ListingError } from "../doctor/walk.ts";
import { AppError } from "../errors.ts";
import { StoreError } from "../store/objects.ts";
import { askYesNo } from "./ask.ts";
import { type Arguments, type Command, type Terminal, UsageError } from "./command_line.ts";
import { print, stderrLog } from "./command_work.ts";

const USAGE = "[--fix | --accept-older-database [--yes]] [--json]";

/** What looks after an installation. The longer name comes first: the first that fits what was typed is taken. */
export const DOCTOR_COMMANDS: readonly Command[] = [
  {
    name: "doctor storage",
    usage: "[--json]",
    summary:
      "Try the store as clients use it, by signed URLs through the public endpoint, and say what to change. Exit code 1: something is to be done",
    options: { json: "boolean" },
    operands: [],
    async run(args, terminal) {
      printReport(args, terminal, await runDoctorStorage(optionsFrom(terminal)));
    },
  },
  {
    name: "doctor",
    usage: USAGE,
    summary:
      "Check settings, files, database, books and objects, beside a running server too. With --fix adjust counters and enter objects that nothing names for removal; nothing else is ever changed. Exit code 1: something is to be done",
    options: { fix: "boolean", json: "boolean", "accept-older-database": "boolean", yes: "boolean" },
    operands: [],
    run: doctor,
  },
];

async function doctor(args: Arguments, terminal: Terminal): Promise<void> {
  const accepts = args.flag("accept-older-database");
  const usage = `stowage doctor ${USAGE}`;
  if (accepts && args.flag("fix")) throw new UsageError("--fix and --accept-older-database exclude each other", usage);
  if (args.flag("yes") && !accepts) throw new UsageError("--yes belongs to --accept-older-database", usage);
  if (accepts) return await acceptOlderDatabase(args, terminal);
  const config = readConfig(terminal.env);
  printReport(args, terminal, await runDoctor({ config, log: stderrLog(config), fix: args.flag("fix") }));
}

function optionsFrom({ env }: Terminal): Omit<DoctorOptions, "fix"> {
  const config = readConfig(env);
  checkInitialised(config.dataDir);
  return { config, log: stderrLog(config) };
}

function printReport(args: Arguments, terminal: Terminal, report: Report): void {
  print(args, terminal, reportJson(report), reportText(report));
  // For cron: no error, and yet something for a person to look at.
  if (!report.isFine()) process.exitCode = 1;
}

async function acceptOlderDatabase(args: Arguments, terminal: Terminal): Promise<void> {
  try {
    await withParts(optionsFrom(terminal), async (parts) => {
      const older = await findLosses(parts, Date.now);
      if (older === null) {
        print(args, terminal, { older: false }, "This database is as new as the store: there is nothing to accept");
        return;
      }
      if (!args.flag("json")) terminal.out(`${describeLosses(older)}\n\n`);
      const isAccepted = args.flag("yes") || (await askYesNo("Go on with this older database?"));
      if (isAccepted) await acceptDatabase(parts, Date.now);
      else process.exitCode = 1;
      const told = isAccepted
        ? "Accepted: a running server goes on within a minute, others with their next start"
        : "Not accepted: everything stays as it is, and nothing is removed";
      print(args, terminal, { older: true, accepted: isAccepted, ...older }, told);
    });
  } catch (error) {
    if (!(error instanceof StoreError || error instanceof ListingError)) throw error;
    throw new AppError("storage_unavailable", `Cannot tell what would be lost: ${error.message}`, {
      hint: "nothing was changed; see that the store can be used, then run this again",
      cause: error,
    });
  }
}
