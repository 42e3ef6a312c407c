import type { ClockRecords, TimesAtStart } from "../clock.ts";
import type { Db } from "./db/db.ts";
import { type InstallationRow, theRow } from "./installation_row.ts";

export function createClockRecords(db: Db, { installation }: { installation: InstallationRow }): ClockRecords {
  const select = db.prepare<[], TimesAtStart>(`
    SELECT clock_trusted_at_ms AS trustedAtMs, clock_doubted_at_ms AS doubtedAtMs, staging_scanned_at_ms AS scannedAtMs,
           created_at_ms AS createdAtMs,
           max(created_at_ms,
               coalesce((SELECT created_at_ms FROM uploads ORDER BY id DESC LIMIT 1), 0),
               coalesce((SELECT at_ms FROM storage_events ORDER BY seq DESC LIMIT 1), 0)) AS newestRowAtMs
      FROM installation`);

  return {
    read: async () => theRow(select.get()),
    recordTrusted: (nowMs) => db.writeStatement(() => installation.setTrusted(nowMs)),
    recordDoubted: (nowMs) => db.writeStatement(() => installation.setDoubted(nowMs)),
    recordScanned: (nowMs) => db.writeStatement(() => installation.setScanned(nowMs)),
  };
}
