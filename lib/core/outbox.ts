import type { Db } from "../db/db.ts";
import { giveWay } from "../pacer.ts";
import { createSharedReading, type Reading } from "./shared_reading.ts";

/** Entries that one statement reads: 0.3 ms, and 4 ms if all are so old that their uploads are looked up among a million. */
const STEP_ROWS_MAX = 500;

/** What could have been removed for this long does not merely wait for its turn: doctor and `/ready` say so. */
export const OVERDUE_MS = 60 * 60_000;
/** Of a deleted upload an object that is overdue by this much is counted by itself: somebody may have to answer for it. */
export const DELETED_OVERDUE_MS = 24 * 60 * 60_000;

/**
 * Since when an entry could have been removed: the one definition of how old the outbox is. It counts from when the entry
 * should first have been removed, whatever has put it off since: failures, a store that was down, a kill, a hand.
 */
export const OVERDUE_SINCE_SQL = "coalesce(first_due_at_ms, entered_at_ms)";

export interface OutboxFigures {
  /** To be removed now. */
  due: number;
  /** Those whose removal failed: repeated later and later. */
  failing: number;
  /** Those whose time has not come: leases of confirms, and second removals. */
  waiting: number;
  /**
   * Since when the oldest of the due and the failing could have been removed; null if there are none. Lies in the future if
   * the clock was set back, or a hand has hastened it.
   */
  oldestDueSinceMs: number | null;
  /** Objects of deleted uploads that could have been removed for more than `DELETED_OVERDUE_MS`. */
  deletedOverdue: number;
}

interface OutboxOptions {
  stepRows?: number;
  keptFactor?: number;
}

export type OutboxReader = ReturnType<typeof createOutboxReader>;

/**
 * Looks the whole outbox through when it is asked for. It is read in short steps, between which requests are answered, so
 * that a million entries stall nobody; those that change meanwhile are counted as they were, or as they are.
 */
export function createOutboxReader(db: Db, { stepRows = STEP_ROWS_MAX, keptFactor }: OutboxOptions = {}) {
  // An entry that a deletion entered says so. Of others the upload is looked up, only if they are that old.
  const countStep = db.prepare<{ afterSeq: number; rows: number; nowMs: number; longAgoMs: number }, OutboxStep>(`
    SELECT count(*) AS rows, max(seq) AS lastSeq,
           count(*) FILTER (WHERE attempts = 0 AND (since_ms <= :nowMs OR due_at_ms <= :nowMs)) AS due,
           count(*) FILTER (WHERE attempts > 0) AS failing,
           min(since_ms) FILTER (WHERE attempts > 0 OR since_ms <= :nowMs OR due_at_ms <= :nowMs) AS oldestDueSinceMs,
           count(*) FILTER (WHERE since_ms <= :longAgoMs AND
                                  (user_id IS NOT NULL OR NOT EXISTS (SELECT 1 FROM uploads WHERE id = upload_id))) AS deletedOverdue
      FROM (SELECT seq, attempts, due_at_ms, upload_id, user_id, ${OVERDUE_SINCE_SQL} AS since_ms
              FROM object_removals WHERE seq > :afterSeq ORDER BY seq LIMIT :rows)`);

  async function lookThrough(nowMs: number): Promise<Reading<OutboxFigures>> {
    const longAgoMs = nowMs - DELETED_OVERDUE_MS;
    const found: OutboxFigures = { due: 0, failing: 0, waiting: 0, oldestDueSinceMs: null, deletedOverdue: 0 };
    let steps = 0;
    for (let afterSeq = 0; ; steps++) {
      const step = countStep.get({ afterSeq, rows: stepRows, nowMs, longAgoMs });
      if (step === undefined) break;
      found.due += step.due;
      found.failing += step.failing;
      found.waiting += step.rows - step.due - step.failing;
      found.deletedOverdue += step.deletedOverdue;
      if (step.oldestDueSinceMs !== null) {
        found.oldestDueSinceMs = Math.min(found.oldestDueSinceMs ?? step.oldestDueSinceMs, step.oldestDueSinceMs);
      }
      if (step.rows < stepRows) break;
      afterSeq = step.lastSeq;
      await giveWay("");
    }
    return { value: found, steps };
  }

  return createSharedReading(lookThrough, keptFactor === undefined ? {} : { keptFactor });
}

interface OutboxStep {
  rows: number;
  lastSeq: number;
  due: number;
  failing: number;
  oldestDueSinceMs: number | null;
  deletedOverdue: number;
}
