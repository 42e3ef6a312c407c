import { AppError } from "../errors.ts";
import { hintOn, whyUnusable } from "../sqlite/sqlite_errors.ts";
import type { Report } from "./report.ts";

const ADVICE = "put this right and run `stowage doctor` again: this was not checked";

/**
 * Runs one check. If something prevents it, such as a damaged database, a full disk or another user's folder, that is a
 * finding of this check, and the other checks run all the same. Only a defect of ours is thrown.
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
