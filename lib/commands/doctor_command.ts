import { readConfig } from "../config/config.ts";
import { checkInitialised } from "../db/data_dir.ts";
import { acceptAsItIs, type Decision, describeQuestion, findQuestion } from "../doctor/accept.ts";
import { type DoctorOptions, runDoctor, withParts } from "../doctor/doctor.ts";
import { type Report, reportJson, reportText } from "../doctor/report.ts";
import { runDoctorStorage } from "../doctor/storage.ts";
import { ListingError } from "../doctor/walk.ts";
import { AppError } from "../errors.ts";
import { StoreError } from "../store/objects.ts";
import { askYesNo } from "./ask.ts";
import { type Arguments, type Command, type Terminal, UsageError } from "./command_line.ts";
import { print, stderrLog } from "./command_work.ts";

const USAGE = "[--fix | --accept-older-database [--yes] | --accept-store [--yes]] [--json]";

/** What people are asked, and told, about what they may accept. */
const TEXTS: Record<Decision, { question: string; nothing: string }> = {
  "older-database": {
    question: "Go on with this database?",
    nothing: "This database is as new as the store: there is nothing to accept",
  },
  store: {
    question: "Go on with this store?",
    nothing: "This is the store that holds the objects: there is nothing to accept",
  },
};

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
    options: {
      fix: "boolean",
      json: "boolean",
      "accept-older-database": "boolean",
      "accept-store": "boolean",
      yes: "boolean",
    },
    operands: [],
    run: doctor,
  },
];

async function doctor(args: Arguments, terminal: Terminal): Promise<void> {
  const usage = `stowage doctor ${USAGE}`;
  const asked = ["fix", "accept-older-database", "accept-store"].filter((flag) => args.flag(flag));
  if (asked.length > 1) throw new UsageError(`--${asked.join(" and --")} exclude each other`, usage);
  if (args.flag("accept-older-database")) return await accept("older-database", args, terminal);
  if (args.flag("accept-store")) return await accept("store", args, terminal);
  if (args.flag("yes")) throw new UsageError("--yes belongs to --accept-older-database and --accept-store", usage);
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

async function accept(decision: Decision, args: Arguments, terminal: Terminal): Promise<void> {
  const { question: text, nothing } = TEXTS[decision];
  const key = decision === "store" ? "other_store" : "older";
  try {
    await withParts(optionsFrom(terminal), async (parts) => {
      const question = await findQuestion(parts, decision, Date.now);
      if (question === null) {
        print(args, terminal, { [key]: false }, nothing);
        return;
      }
      if (!args.flag("json")) terminal.out(`${describeQuestion(decision, question)}\n\n`);
      const isAccepted = args.flag("yes") || (await askYesNo(text));
      if (isAccepted) await acceptAsItIs(parts, decision, Date.now);
      else process.exitCode = 1;
      const told = isAccepted
        ? "Accepted: a running server goes on within a minute, others with their next start"
        : "Not accepted: everything stays as it is, and nothing is removed";
      print(args, terminal, { [key]: true, accepted: isAccepted, ...question }, told);
    });
  } catch (error) {
    if (!(error instanceof StoreError || error instanceof ListingError)) throw error;
    throw new AppError("storage_unavailable", `Cannot tell what would be lost: ${error.message}`, {
      hint: "nothing was changed; see that the store can be used, then run this again",
      cause: error,
    });
  }
}
