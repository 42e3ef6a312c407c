import { giveWay } from "../../pacer.ts";
import { DELETED_OVERDUE_MS, type OutboxFigures, type OutboxReader } from "../outbox.ts";
import type { Db } from "./db/db.ts";
import { createSharedReadings, type Reading } from "./shared_reading.ts";

/** Entries that one statement reads: in 0.3 ms, or 4 ms if all are so old that their uploads are looked up among a million. */
const STEP_ROWS_MAX = 500;

/**
 * The time since which an entry could have been removed: the one definition of the outbox's age. It counts from when the entry
 * should first have been removed, whatever has postponed it since: failures, a store that was down, a kill, a person.
 */
export const OVERDUE_SINCE_SQL = "coalesce(first_due_at_ms, entered_at_ms)";

interface OutboxOptions {
  stepRows?: number;
  keptFactor?: number;
}

export function createOutboxReader(db: Db, { stepRows = STEP_ROWS_MAX, keptFactor }: OutboxOptions = {}): OutboxReader {
  // An entry that a deletion made says so. For others the upload is looked up, but only if they are that old.
  const countStep = db.prepare<{ afterSeq: number; rows: number; nowMs: number; longAgoMs: number }, OutboxStep>(`
    SELECT count(*) AS rows, max(seq) AS lastSeq,
           count(*) FILTER (WHERE attempts = 0 AND (since_ms <= :nowMs OR due_at_ms <= :nowMs)) AS due,
           count(*) FILTER (WHERE attempts > 0) AS failing,
           min(since_ms) FILTER (WHERE attempts > 0 OR since_ms <= :nowMs OR due_at_ms <= :nowMs) AS oldestDueSinceMs,
           count(*) FILTER (WHERE since_ms <= :longAgoMs AND
                                  (user_id IS NOT NULL OR NOT EXISTS (SELECT 1 FROM uploads WHERE id = upload_id))) AS deletedOverdue
      FROM (SELECT seq, attempts, due_at_ms, upload_id, user_id, ${OVERDUE_SINCE_SQL} AS since_ms
              FROM object_removals WHERE seq > :afterSeq ORDER BY seq LIMIT :rows)`);

  async function countAll(nowMs: number): Promise<Reading<OutboxFigures>> {
    const longAgoMs = nowMs - DELETED_OVERDUE_MS;
    const sum: OutboxFigures = { due: 0, failing: 0, waiting: 0, oldestDueSinceMs: null, deletedOverdue: 0 };
    let steps = 0;
    for (let afterSeq = 0; ; steps++) {
      const step = countStep.get({ afterSeq, rows: stepRows, nowMs, longAgoMs });
      if (step === undefined) break;
      sum.due += step.due;
      sum.failing += step.failing;
      sum.waiting += step.rows - step.due - step.failing;
      sum.deletedOverdue += step.deletedOverdue;
      if (step.oldestDueSinceMs !== null) {
        sum.oldestDueSinceMs = Math.min(sum.oldestDueSinceMs ?? step.oldestDueSinceMs, step.oldestDueSinceMs);
      }
      if (step.rows < stepRows) break;
      afterSeq = step.lastSeq;
      await giveWay("");
    }
    return { value: sum, steps };
  }

  const readings = createSharedReadings<OutboxFigures>({ keptFactor });
  return { read: (nowMs) => readings.get("", () => countAll(nowMs)) };
}

interface OutboxStep {
  rows: number;
  lastSeq: number;
  due: number;
  failing: number;
  oldestDueSinceMs: number | null;
  deletedOverdue: number;
}
