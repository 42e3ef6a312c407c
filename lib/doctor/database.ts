import type { Audit } from "../books/audit.ts";
import { isLedgerSound, type Ledger, type WorkspaceSums } from "../books/ledger.ts";
import { DELETED_OVERDUE_MS, type OutboxReader, OVERDUE_MS } from "../books/outbox.ts";
import { addTo, counted, createTally, EXAMPLES_MAX, type Report } from "./report.ts";

/** Workspaces that are read at once. */
const WORKSPACES_PAGE = 1_000;
/**
 * The largest database file that is checked while a server runs: the check is one long read, and a read of more than 10 s
 * lets the server's log grow. Measured: 744 MB, a million uploads, in 6 s on two busy cores.
 */
export const INTEGRITY_BYTES_MAX_BESIDE_SERVER = 512 * 1024 * 1024;
const HOUR_MS = 60 * 60_000;

/** Checks the structure of the file. Resolves with false if it has faults, and with true if it is sound or was not checked. */
export async function checkIntegrity(
  report: Report,
  audit: Pick<Audit, "fileBytes" | "findFaults">,
  { isServed }: { isServed: boolean },
): Promise<boolean> {
  const check = "database file";
  const bytes = await audit.fileBytes();
  if (isServed && bytes > INTEGRITY_BYTES_MAX_BESIDE_SERVER) {
    report.note(
      check,
      `its structure was not checked: it has ${bytes} bytes, which takes long, and a server is running`,
      {
        advice:
          "run `stowage doctor` while the server is stopped, or on a snapshot of the data directory, named by STOWAGE_DATA_DIR",
      },
    );
    return true;
  }
  const faults = await audit.findFaults();
  if (faults.length === 0) {
    report.ok(check, `${bytes} bytes, sound`);
    return true;
  }
  report.problem(check, `SQLite finds ${counted(faults.length, "fault")} in it`, {
    count: faults.length,
    examples: faults,
    advice:
      "stop the server, keep a copy of the whole data directory, and restore the newest backup that is sound;\n" +
      "then look for the cause: a failing disk, a network file system, or a file that was copied while it was in use",
  });
  return false;
}

/** BOOKS: for every workspace counter = ledger = uploads. With `fix` it books an `adjust` if the uploads differ. */
export async function checkBooks(
  report: Report,
  { audit, ledger }: { audit: Pick<Audit, "listWorkspaceIds">; ledger: Pick<Ledger, "sumsOf" | "adjust"> },
  { fix, nowMs }: { fix: boolean; nowMs: number },
): Promise<void> {
  const check = "BOOKS";
  const [unsound, drifted, adjusted] = [createTally(), createTally(), createTally()];
  let workspaces = 0;
  for (let after = ""; ; ) {
    const page = await audit.listWorkspaceIds(after, WORKSPACES_PAGE);
    for (const workspaceId of page) {
      const sums = await ledger.sumsOf(workspaceId);
      if (sums === undefined) continue;
      workspaces++;
      if (!isLedgerSound(sums)) addTo(unsound, describeSums(sums));
      else if (sums.uploadsBytes !== sums.counterBytes) {
        const isAdjusted = fix && (await ledger.adjust(workspaceId, nowMs));
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
        "no statement can do this while the triggers of the database are in place: someone removed them, or the file is\n" +
        "damaged. Restore the newest backup in which `stowage doctor` finds no problem",
    });
  }
  if (drifted.count > 0) {
    const what = counted(
      drifted.count,
      "workspace is charged for more or fewer bytes than it stores",
      "workspaces are charged for more or fewer bytes than they store",
    );
    report.problem(check, what, {
      ...{ count: drifted.count, examples: drifted.examples },
      advice: "`stowage doctor --fix` adjusts the charge to what is stored",
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

/** How long objects have waited for their removal, and why. */
export async function checkOutbox(
  report: Report,
  { audit, outbox, nowMs }: { audit: Pick<Audit, "listFailing">; outbox: OutboxReader; nowMs: number },
): Promise<void> {
  const check = "outbox";
  const { due, failing, waiting, oldestDueSinceMs, deletedOverdue } = await outbox.read(nowMs);
  const before = report.findings.length;
  if (failing > 0) {
    const entries = await audit.listFailing(EXAMPLES_MAX);
    report.problem(check, `the removal of ${counted(failing, "object")} fails`, {
      count: failing,
      examples: entries.map(
        ({ objectKey, attempts, lastError }) =>
          `${objectKey}: ${counted(attempts, "attempt")}, ${lastError ?? "no reason"}`,
      ),
      advice: "the reasons above say what the store refuses; the server retries until it succeeds",
    });
  }
  const ageMs = oldestDueSinceMs === null ? 0 : nowMs - oldestDueSinceMs;
  if (ageMs > OVERDUE_MS) {
    const hours = Math.round((10 * ageMs) / HOUR_MS) / 10;
    report.problem(check, `${counted(due + failing, "object")} could be removed, the oldest for ${hours} hours`, {
      advice:
        "only a running `stowage serve` removes objects; if it runs, its log and GET /ready say what keeps it from that",
    });
  }
  if (deletedOverdue > 0) {
    const hours = DELETED_OVERDUE_MS / HOUR_MS;
    const what = `${counted(deletedOverdue, "object")} of deleted uploads could be removed for more than ${hours} hours`;
    report.problem(check, what, {
      count: deletedOverdue,
      advice:
        "the users who deleted them cannot be told yet that they are gone; GET /api/v1/uploads/{id}/deletion says what each waits for",
    });
  }
  if (report.findings.length > before) return;
  report.ok(check, `${counted(due + failing + waiting, "entry", "entries")}, ${due} due`);
}

function describeSums({ workspaceId, counterBytes, ledgerBytes, uploadsBytes, balanceBytes }: WorkspaceSums): string {
  return `${workspaceId}: counter ${counterBytes}, ledger ${ledgerBytes}, last balance ${balanceBytes}, uploads ${uploadsBytes}`;
}
