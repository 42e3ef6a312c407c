import type { Db } from "./db/db.ts";

export type InstallationRow = ReturnType<typeof createInstallationRow>;

/** The single row of `installation` and its only writer, but for the log's beginning, which `db/log_start.ts` keeps there. */
export function createInstallationRow(db: Db) {
  const select = db.prepare<[], { id: string }>("SELECT id FROM installation");
  const probe = db.prepare<[number]>("UPDATE installation SET probed_at_ms = ?");
  const updateTrusted = db.prepare<[number]>(
    "UPDATE installation SET clock_trusted_at_ms = ?, clock_doubted_at_ms = NULL",
  );
  const updateDoubted = db.prepare<[number]>("UPDATE installation SET clock_doubted_at_ms = ?");
  const updateScanned = db.prepare<[number]>("UPDATE installation SET staging_scanned_at_ms = ?");
  const updateStore = db.prepare<{ text: string; generation: number }>(
    "UPDATE installation SET store_json = :text, generation = :generation",
  );
  const updateMarked = db.prepare<{ text: string; generation: number; nowMs: number }>(`
    UPDATE installation
       SET store_json = :text, generation = :generation, marker_written_at_ms = coalesce(marker_written_at_ms, :nowMs)`);

  return {
    id: theRow(select.get()).id,
    /** Writes something without a meaning, to find out whether the database can be written. */
    probe: (nowMs: number): void => void probe.run(nowMs),
    /** Ends any doubt as well. */
    setTrusted: (nowMs: number): void => void updateTrusted.run(nowMs),
    setDoubted: (nowMs: number): void => void updateDoubted.run(nowMs),
    setScanned: (nowMs: number): void => void updateScanned.run(nowMs),
    setStore: (row: Parameters<typeof updateStore.run>[0]): void => void updateStore.run(row),
    /** Keeps the time of the first marker. */
    setMarked: (row: Parameters<typeof updateMarked.run>[0]): void => void updateMarked.run(row),
  };
}

/** The installation's row, which was made with the file. */
export function theRow<Row>(row: Row | undefined): Row {
  if (row === undefined) throw new Error("The database has no installation row");
  return row;
}
