import type { Db } from "../db/db.ts";

/** What was known of the time when the process started. */
export interface TimesAtStart {
  /** When the clock was last trusted; null before that was first written. */
  trustedAtMs: number | null;
  /** When it was first doubted, by itself; null if it was not since it was last trusted. */
  doubtedAtMs: number | null;
  /** The time of the newest upload, event of the ledger or, before there was either, of the file. */
  newestRowAtMs: number;
  /** When the last whole look through staging ended; null if there was none. */
  lookedAtMs: number | null;
  createdAtMs: number;
}

export type KeptTimes = ReturnType<typeof createKeptTimes>;

/** Times of the installation as a whole that a restart must not forget. */
export function createKeptTimes(db: Db) {
  const select = db.prepare<[], TimesAtStart>(`
    SELECT clock_trusted_at_ms AS trustedAtMs, clock_doubted_at_ms AS doubtedAtMs, looked_at_ms AS lookedAtMs,
           created_at_ms AS createdAtMs,
           max(created_at_ms,
               coalesce((SELECT created_at_ms FROM uploads ORDER BY id DESC LIMIT 1), 0),
               coalesce((SELECT at_ms FROM storage_events ORDER BY seq DESC LIMIT 1), 0)) AS newestRowAtMs
      FROM installation`);
  const updateTrusted = db.prepare<[number]>(
    "UPDATE installation SET clock_trusted_at_ms = ?, clock_doubted_at_ms = NULL",
  );
  const updateDoubted = db.prepare<[number]>("UPDATE installation SET clock_doubted_at_ms = ?");
  const updateLooked = db.prepare<[number]>("UPDATE installation SET looked_at_ms = ?");

  function read(): TimesAtStart {
    const times = select.get();
    if (times === undefined) throw new Error("The database has no installation");
    return times;
  }

  return {
    read,
    noteTrusted: (nowMs: number): Promise<void> => db.writeStatement(() => void updateTrusted.run(nowMs)),
    noteDoubted: (nowMs: number): Promise<void> => db.writeStatement(() => void updateDoubted.run(nowMs)),
    noteLooked: (nowMs: number): Promise<void> => db.writeStatement(() => void updateLooked.run(nowMs)),
  };
}
