import type { Db } from "../db/db.ts";
import { giveWay } from "../pacer.ts";
import type { OutboxFigures, OutboxReader } from "./outbox.ts";
import { createSharedReading } from "./shared_reading.ts";

/** Rows that one statement reads: at most 1 ms. */
const STEP_ROWS_MAX = 2_000;

/** Sums over all workspaces, for those who run the service. */
export interface Totals {
  bytesUsed: number;
  uploadsPending: number;
  /** The sum of the sizes that were stated for pending uploads; those without one add nothing. */
  bytesPendingStated: number;
  outbox: OutboxFigures;
}

interface TotalsOptions {
  outbox: OutboxReader;
  stepRows?: number;
  keptFactor?: number;
}

export type TotalsReader = ReturnType<typeof createTotals>;

/**
 * Adds up what lies in the tables when it is asked for: a counter kept beside them could drift. A table is read in short
 * steps, between which requests are answered, so that a million rows stall nobody; rows that change meanwhile are counted
 * as they were, or as they are.
 */
export function createTotals(db: Db, options: TotalsOptions) {
  const { outbox, stepRows = STEP_ROWS_MAX, keptFactor } = options;
  const sumUsed = db.prepare<{ afterId: string; rows: number }, { rows: number; lastId: string; bytes: number }>(`
    SELECT count(*) AS rows, max(id) AS lastId, coalesce(sum(storage_bytes_used), 0) AS bytes
      FROM (SELECT id, storage_bytes_used FROM workspaces WHERE id > :afterId ORDER BY id LIMIT :rows)`);
  // By its owner, because that is the order of the index that holds the stated sizes. An owner may have only so many.
  const sumPendingOfWorkspace = db.prepare<[string], PendingStep>(`
    SELECT workspace_id AS owner, count(*) AS uploads, coalesce(sum(stated_size_bytes), 0) AS bytes
      FROM uploads
     WHERE status = 'pending'
       AND workspace_id = (SELECT min(workspace_id) FROM uploads WHERE status = 'pending' AND workspace_id > ?)`);
  const sumPendingOfUser = db.prepare<[string], PendingStep>(`
    SELECT user_id AS owner, count(*) AS uploads, coalesce(sum(stated_size_bytes), 0) AS bytes
      FROM uploads
     WHERE status = 'pending' AND workspace_id IS NULL
       AND user_id = (SELECT min(user_id) FROM uploads WHERE status = 'pending' AND workspace_id IS NULL AND user_id > ?)`);

  async function addUp(): Promise<{ value: Omit<Totals, "outbox">; steps: number }> {
    let steps = 0;

    let bytesUsed = 0;
    for (let afterId = ""; ; steps++) {
      const step = sumUsed.get({ afterId, rows: stepRows });
      bytesUsed += step?.bytes ?? 0;
      if (step === undefined || step.rows < stepRows) break;
      afterId = step.lastId;
      await giveWay("");
    }

    let [uploadsPending, bytesPendingStated] = [0, 0];
    for (const statement of [sumPendingOfWorkspace, sumPendingOfUser]) {
      for (let after = ""; ; steps++) {
        const step = statement.get(after);
        if (step === undefined || step.owner === null) break;
        uploadsPending += step.uploads;
        bytesPendingStated += step.bytes;
        after = step.owner;
        await giveWay("");
      }
    }

    return { value: { bytesUsed, uploadsPending, bytesPendingStated }, steps };
  }

  const sums = createSharedReading(addUp, keptFactor === undefined ? {} : { keptFactor });

  async function read(nowMs: number): Promise<Totals> {
    const [added, figures] = await Promise.all([sums.read(), outbox.read(nowMs)]);
    return { ...added, outbox: figures };
  }

  return { read };
}

interface PendingStep {
  /** Null where there is no further one. */
  owner: string | null;
  uploads: number;
  bytes: number;
}
