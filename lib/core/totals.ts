import type { Db } from "../db/db.ts";
import { giveWay } from "../pacer.ts";

/** Rows that one statement reads: at most 1 ms. */
const STEP_ROWS_MAX = 2_000;
/** What took more than a few steps to add up is kept this many times as long as that took: a hundredth of the process's work. */
const KEPT_FACTOR = 99;
/** Up to this many steps everything is read anew each time. */
const SHORT_STEPS_MAX = 8;

/** Sums over all workspaces, for those who run the service. */
export interface Totals {
  bytesUsed: number;
  uploadsPending: number;
  /** The sum of the sizes that were stated for pending uploads; those without one add nothing. */
  bytesPendingStated: number;
  outbox: {
    /** To be removed now. */
    due: number;
    /** Those whose removal failed: repeated later and later. */
    failing: number;
    /** Those whose time has not come: leases of confirms, and second removals. */
    waiting: number;
    /** Since when the oldest of the due and the failing could have been removed; null where there are none. */
    oldestDueSinceMs: number | null;
  };
}

interface TotalsOptions {
  stepRows?: number;
  keptFactor?: number;
}

export type TotalsReader = ReturnType<typeof createTotals>;

/**
 * Adds up what lies in the tables when it is asked for: a counter kept beside them could drift. A table is read in short
 * steps, between which requests are answered, so that a million rows stall nobody; rows that change meanwhile are counted
 * as they were, or as they are.
 */
export function createTotals(db: Db, options: TotalsOptions = {}) {
  const { stepRows = STEP_ROWS_MAX, keptFactor = KEPT_FACTOR } = options;
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
  // An entry of which nothing was heard yet could be removed from its entering on, or from its time on where it has one:
  // the second removal of a key is entered a day before. An error moves the time, so it says nothing then.
  const countOutbox = db.prepare<{ afterSeq: number; rows: number; nowMs: number }, OutboxStep>(`
    SELECT count(*) AS rows, max(seq) AS lastSeq,
           count(*) FILTER (WHERE attempts > 0) AS failing,
           count(*) FILTER (WHERE attempts = 0 AND due_at_ms <= :nowMs) AS due,
           min(CASE WHEN last_error IS NULL THEN max(entered_at_ms, due_at_ms) ELSE entered_at_ms END)
             FILTER (WHERE attempts > 0 OR due_at_ms <= :nowMs) AS oldestDueSinceMs
      FROM (SELECT seq, attempts, entered_at_ms, due_at_ms, last_error
              FROM object_removals WHERE seq > :afterSeq ORDER BY seq LIMIT :rows)`);

  let current: Promise<Totals> | null = null;

  /** Those who ask while the tables are being read share the answer. */
  function read(nowMs: number): Promise<Totals> {
    if (current === null) {
      const startedAtMs = performance.now();
      const pass = addUp(nowMs);
      const forget = (): void => {
        current = null;
      };
      current = pass.then(({ totals }) => totals);
      pass.then(({ steps }) => {
        if (steps <= SHORT_STEPS_MAX) forget();
        else setTimeout(forget, keptFactor * (performance.now() - startedAtMs)).unref();
      }, forget);
    }
    return current;
  }

  async function addUp(nowMs: number): Promise<{ totals: Totals; steps: number }> {
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

    let [length, due, failing] = [0, 0, 0];
    let oldestDueSinceMs: number | null = null;
    for (let afterSeq = 0; ; steps++) {
      const step = countOutbox.get({ afterSeq, rows: stepRows, nowMs });
      if (step === undefined) break;
      length += step.rows;
      due += step.due;
      failing += step.failing;
      if (step.oldestDueSinceMs !== null) {
        oldestDueSinceMs = Math.min(oldestDueSinceMs ?? step.oldestDueSinceMs, step.oldestDueSinceMs);
      }
      if (step.rows < stepRows) break;
      afterSeq = step.lastSeq;
      await giveWay("");
    }

    const outbox = { due, failing, waiting: length - due - failing, oldestDueSinceMs };
    return { totals: { bytesUsed, uploadsPending, bytesPendingStated, outbox }, steps };
  }

  return { read };
}

interface PendingStep {
  /** Null where there is no further one. */
  owner: string | null;
  uploads: number;
  bytes: number;
}

interface OutboxStep {
  rows: number;
  lastSeq: number;
  due: number;
  failing: number;
  oldestDueSinceMs: number | null;
}
