import { DELETED_OVERDUE_MS, type OutboxReader, OVERDUE_MS } from "../core/outbox.ts";
import { type DoctorQueries, isLedgerSound, type WorkspaceSums } from "./queries.ts";
import { addTo, counted, createTally, EXAMPLES_MAX, type Report } from "./report.ts";

/** Workspaces that are read at a time. */
const WORKSPACES_PAGE = 1_000;
/**
 * The largest file that SQLite checks while a server runs: the check is one reader, and a reader that stays for more than
 * 10 s lets the server's log grow. Measured: 744 MB, a million uploads, in 6 s on two busy cores.
 */
const INTEGRITY_BYTES_MAX_BESIDE_SERVER = 512 * 1024 * 1024;
const HOUR_MS = 60 * 60_000;

/** What SQLite says of the file itself. Resolves with whether it is known to be sound, or was not looked at. */
export function checkIntegrity(
  report: Report,
  queries: Pick<DoctorQueries, "fileBytes" | "integrityErrors">,
  { isServed }: { isServed: boolean },
): boolean {
  const check = "database file";
  const bytes = queries.fileBytes();
  if (isServed && bytes > INTEGRITY_BYTES_MAX_BESIDE_SERVER) {
    report.note(check, `its structure was not checked: with ${bytes} bytes that takes long, and a server is running`, {
      advice:
        "run `stowage doctor` while the server is stopped, or on a snapshot of the data directory, named by STOWAGE_DATA_DIR",
    });
    return true;
  }
  const errors = queries.integrityErrors();
  if (errors.length === 0) {
    report.ok(check, `${bytes} bytes, sound`);
    return true;
  }
  report.problem(check, `SQLite finds ${counted(errors.length, "fault")} in it`, {
    count: errors.length,
    examples: errors,
    advice:
      "stop the server, keep a copy of the whole data directory, and restore the newest backup that is sound;\n" +
      "then look for the cause: a failing disk, a network file system, or a file that was copied while it was in use",
  });
  return false;
}

/** BOOKS: for every workspace counter = ledger = uploads. With `fix` books an `adjust` where the uploads differ. */
export async function checkBooks(
  report: Report,
  queries: DoctorQueries,
  { fix, nowMs }: { fix: boolean; nowMs: number },
): Promise<void> {
  const check = "BOOKS";
  const [unsound, drifted, adjusted] = [createTally(), createTally(), createTally()];
  let workspaces = 0;
  for (let after = ""; ; ) {
    const page = queries.workspaceIds(after, WORKSPACES_PAGE);
    for (const workspaceId of page) {
      const sums = queries.sumsOf(workspaceId);
      if (sums === undefined) continue;
      workspaces++;
      if (!isLedgerSound(sums)) addTo(unsound, describeSums(sums));
      else if (sums.uploadsBytes !== sums.counterBytes) {
        const isAdjusted = fix && (await queries.adjust(workspaceId, nowMs));
        addTo(isAdjusted ? adjusted : drifted, describeSums(sums));
      }
    }
    const last = page.at(-1);
    if (last === undefined) break;
    after = last;
  }
  if (unsound.count > 0) {
    report.problem(check, `the ledger of ${counted(unsound.count, "workspace")} contradicts itself`, {
      ...{ count: unsound.count, examples: unsound.examples },
      advice:
        "no statement can do this to a database of Stowage: someone removed its triggers, or the file is damaged.\n" +
        "Restore the newest backup whose `stowage doctor` is fine",
    });
  }
  if (drifted.count > 0) {
    report.problem(check, `${counted(drifted.count, "workspace")} pays for other bytes than it stores`, {
      ...{ count: drifted.count, examples: drifted.examples },
      advice: "`stowage doctor --fix` books an adjustment to what is stored",
    });
  }
  if (adjusted.count > 0) {
    const what = `${counted(adjusted.count, "workspace")} adjusted to what is stored`;
    report.add({ check, result: "fixed", what, count: adjusted.count, examples: adjusted.examples });
  }
  if (unsound.count + drifted.count + adjusted.count === 0) {
    report.ok(check, `${counted(workspaces, "workspace")}: counter, ledger and uploads agree`);
  }
}

/** The objects that are to be removed: how long they wait, and why. */
export async function checkOutbox(
  report: Report,
  { queries, outbox, nowMs }: { queries: Pick<DoctorQueries, "failing">; outbox: OutboxReader; nowMs: number },
): Promise<void> {
  const check = "outbox";
  const { due, failing, waiting, oldestDueSinceMs, deletedOverdue } = await outbox.read(nowMs);
  const before = report.findings.length;
  if (failing > 0) {
    const examples = queries
      .failing(EXAMPLES_MAX)
      .map(
        ({ objectKey, attempts, lastError }) =>
          `${objectKey}: ${counted(attempts, "attempt")}, ${lastError ?? "no reason"}`,
      );
    report.problem(check, `the removal of ${counted(failing, "object")} fails`, {
      ...{ count: failing, examples },
      advice: "the reasons above say what the store refuses; the attempts go on by themselves once it does not",
    });
  }
  const ageMs = oldestDueSinceMs === null ? 0 : nowMs - oldestDueSinceMs;
  if (ageMs > OVERDUE_MS) {
    const hours = Math.round((10 * ageMs) / HOUR_MS) / 10;
    report.problem(check, `${counted(due + failing, "object")} could be removed, the oldest for ${hours} hours`, {
      advice: "only a running `stowage serve` removes objects; if it runs, its log and GET /ready say why it does not",
    });
  }
  if (deletedOverdue > 0) {
    const hours = DELETED_OVERDUE_MS / HOUR_MS;
    const what = `${counted(deletedOverdue, "object")} of deleted uploads could be removed for more than ${hours} hours`;
    report.problem(check, what, {
      count: deletedOverdue,
      advice:
        "whoever deleted them cannot be told yet that they are gone: GET /api/v1/uploads/{id}/deletion says what each waits for",
    });
  }
  if (report.findings.length > before) return;
  report.ok(check, `${counted(due + failing + waiting, "entry", "entries")}, ${due} due`);
}

function describeSums({ workspaceId, counterBytes, ledgerBytes, uploadsBytes, balanceBytes }: WorkspaceSums): string {
  return `${workspaceId}: counter ${counterBytes}, ledger ${ledgerBytes}, last balance ${balanceBytes}, uploads ${uploadsBytes}`;
}
