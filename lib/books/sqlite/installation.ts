import type { Db } from "./db/db.ts";

/** The installation's row as a whole: its id, and whether it can be written. */
export function createInstallation(db: Db, now: () => number) {
  const select = db.prepare<[], { id: string }>("SELECT id FROM installation");
  const probe = db.prepare<[number]>("UPDATE installation SET probed_at_ms = ?");
  const row = select.get();
  if (row === undefined) throw new Error("The database has no installation row");

  return {
    id: row.id,
    checkWritable: (): Promise<void> => db.writeStatement(() => void probe.run(now())),
  };
}
