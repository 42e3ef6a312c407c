import { hintOn, whyUnusable } from "../db/sqlite_errors.ts";
import { AppError } from "../errors.ts";
import type { Report } from "./report.ts";

const ADVICE = "put this right and run `stowage doctor` again: this was not looked at";

/**
 * Runs one check. Whatever keeps it from looking, such as a damaged database, a full disk or a folder of another user, is a
 * finding of this check, and the others are run all the same. Only a defect of ours passes through.
 */
export async function guarded(report: Report, check: string, run: () => Promise<void> | void): Promise<void> {
  try {
    await run();
  } catch (error) {
    if (error instanceof AppError) return report.problem(check, error.message, { advice: error.hint ?? ADVICE });
    const why = whyUnusable(error);
    if (why !== null && error instanceof Error) {
      return report.problem(check, `${why} (SQLite: ${error.message})`, { advice: hintOn(error) ?? ADVICE });
    }
    if (!(error instanceof Error && "syscall" in error)) throw error;
    report.problem(check, error.message, { advice: ADVICE });
  }
}
