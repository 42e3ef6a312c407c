import { AppError } from "../../errors.ts";
import { whyUnusable } from "../../sqlite/sqlite_errors.ts";
import type { Books } from "../books.ts";
import type { Db } from "./db/db.ts";
import type { InstallationRow } from "./installation_row.ts";

/** `Books.checkWritable`. */
export function createWritableCheck(
  db: Db,
  { installation, now }: { installation: InstallationRow; now: () => number },
): Books["checkWritable"] {
  return async function checkWritable() {
    try {
      await db.writeStatement(() => installation.probe(now()));
    } catch (error) {
      const message = `The database cannot be written at the moment${describeCause(error)}`;
      throw new AppError("storage_unavailable", message, { cause: error });
    }
  };
}

/** Why the write failed, as far as SQLite says: its error may be the cause of the one that the write rejected with. */
function describeCause(failure: unknown): string {
  for (let error = failure; error instanceof Error; error = error.cause) {
    const why = whyUnusable(error);
    if (why !== null) return `: ${why}`;
  }
  return "";
}
