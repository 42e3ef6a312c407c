import { giveWay } from "../../pacer.ts";
import type { OutboxReader } from "../outbox.ts";
import type { Totals, TotalsReader } from "../totals.ts";
import type { Db } from "./db/db.ts";
import { createSharedReadings } from "./shared_reading.ts";

/** Rows that one statement reads, in at most 1 ms. */
const STEP_ROWS_MAX = 2_000;

interface TotalsOptions {
  outbox: OutboxReader;
  stepRows?: number;
  keptFactor?: number;
}

export function createTotals(db: Db, options: TotalsOptions): TotalsReader {
  const { outbox, stepRows = STEP_ROWS_MAX, keptFactor } = options;
  const sumUsed = db.prepare<{ afterId: string; rows: number }, { rows: number; lastId: string; bytes: number }>(`
    SELECT count(*) AS rows, max(id) AS lastId, coalesce(sum(storage_bytes_used), 0) AS bytes
      FROM (SELECT id, storage_bytes_used FROM workspaces WHERE id > :afterId ORDER BY id LIMIT :rows)`);
  // One owner at a time, because that is the order of the index that holds the stated sizes. An owner has only so many.
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

  const sums = createSharedReadings<Omit<Totals, "outbox">>({ keptFactor });

  return {
    async read(nowMs) {
      const [totals, figures] = await Promise.all([sums.get("", addUp), outbox.read(nowMs)]);
      return { ...totals, outbox: figures };
    },
    readLog: async () => db.logFigures(),
  };
}

interface PendingStep {
  /** Null if there is no further one. */
  owner: string | null;
  uploads: number;
  bytes: number;
}
