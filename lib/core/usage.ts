import type { Db } from "../db/db.ts";
import { giveWay } from "../pacer.ts";
import { createSharedReading, type Reading } from "./shared_reading.ts";
import type { Span } from "./usage_periods.ts";

/** Index entries that one statement reads: 1 ms or so. All figures are summed up in such steps. */
const STEP_ROWS_MAX = 2_000;
/** Who a pass over the outbox is made for: everyone who asks shares it. */
const OUTBOX = "";
/** What a pass over an outbox of more than one step found is kept this many times as long as the pass took. */
const OUTBOX_KEPT_FACTOR = 9;

/** What the confirmed scripts of a span hold together. */
export interface ScriptFigures {
  characters: number;
  lines: number;
}

export interface StorageFigures {
  bytesUsed: number;
  bytesQuota: number;
  /** Confirmed ones. */
  uploads: number;
  uploadsPending: number;
  /** The sum of the sizes that were stated for pending uploads; those without one add nothing. */
  bytesPendingStated: number;
  /** What is known to lie in the store for pending uploads. */
  bytesPendingStored: number;
  /** Upload URLs that the store still takes a PUT to although their upload is deleted or confirmed. */
  uploadsHeld: number;
  /** What is known to lie in the store and is nobody's any more: of deleted uploads, and what was staged. */
  bytesAwaitingRemoval: number;
  /** When the oldest of that was given up; null where there is none. */
  oldestRemovalEnteredAtMs: number | null;
}

interface Awaiting {
  bytes: number;
  /** Null if nothing is known to lie there. */
  oldestEnteredAtMs: number | null;
  uploadsHeld: number;
}

interface UsageOptions {
  stepRows?: number;
  outboxKeptFactor?: number;
  /**
   * Whether the store goes on taking PUTs to a URL whose upload is deleted or confirmed; what is staged then is an object of
   * its own. The embedded store refuses them, and the staged file of a confirmed upload is the confirmed one.
   */
  urlsOutliveUploads?: boolean;
}

export type Usage = ReturnType<typeof createUsage>;

/**
 * What a workspace uses. Nothing is counted twice over in tables of its own that could drift: the figures are summed up
 * from the rows when they are asked for, by covering indexes and in bounded steps, between which requests are answered.
 * So the figures of one answer may lie some milliseconds apart where there are more rows than one step reads.
 */
export function createUsage(db: Db, options: UsageOptions = {}) {
  const { stepRows = STEP_ROWS_MAX, outboxKeptFactor = OUTBOX_KEPT_FACTOR, urlsOutliveUploads = false } = options;
  const scripts = `
      FROM uploads
     WHERE workspace_id = :workspaceId AND status = 'uploaded' AND char_count IS NOT NULL
       AND updated_at_ms >= :fromMs AND updated_at_ms < :untilMs`;
  const sumScripts = db.prepare<ScriptStep, ScriptFigures>(`
    SELECT coalesce(sum(char_count), 0) AS characters, coalesce(sum(line_count), 0) AS lines ${scripts}`);
  const selectScriptAfterStep = db.prepare<ScriptStep & { rows: number }, { atMs: number }>(`
    SELECT updated_at_ms AS atMs ${scripts}
     ORDER BY updated_at_ms LIMIT 1 OFFSET :rows`);
  const countUploads = db.prepare<
    { workspaceId: string; afterId: string; rows: number },
    { rows: number; lastId: string }
  >(`
    SELECT count(*) AS rows, max(id) AS lastId
      FROM (SELECT id FROM uploads WHERE workspace_id = :workspaceId AND id > :afterId ORDER BY id LIMIT :rows)`);
  const selectStorage = db.prepare<[string], { bytesUsed: number; bytesQuota: number }>(`
    SELECT storage_bytes_used AS bytesUsed, storage_bytes_quota AS bytesQuota FROM workspaces WHERE id = ?`);
  const sumPending = db.prepare<
    [string],
    Pick<StorageFigures, "uploadsPending" | "bytesPendingStated" | "bytesPendingStored">
  >(`
    SELECT count(*) AS uploadsPending, coalesce(sum(stated_size_bytes), 0) AS bytesPendingStated,
           coalesce(sum(staged_size_bytes), 0) AS bytesPendingStored
      FROM uploads WHERE workspace_id = ? AND status = 'pending'`);
  // The outbox does not say whose a final key was; the ledger does. Both rows were written by one statement, so their times
  // are equal, which tells the key that was given up from one that a failed confirm of the same upload had left behind.
  const sumFinal = db.prepare<OutboxStep, Awaiting & { workspaceId: string }>(`
    SELECT e.workspace_id AS workspaceId, sum(r.size_bytes) AS bytes, min(r.entered_at_ms) AS oldestEnteredAtMs,
           0 AS uploadsHeld
      FROM object_removals r
      JOIN storage_events e ON e.upload_id = r.upload_id AND e.kind = 'release' AND e.at_ms = r.entered_at_ms
     WHERE r.seq > :afterSeq AND r.seq <= :untilSeq AND r.object_key GLOB 'final/*'
     GROUP BY e.workspace_id`);
  // It does say whose a staging key was. What is known to lie there counts; a size that was stated may never arrive.
  const counts = urlsOutliveUploads
    ? "r.size_bytes IS NOT NULL"
    : `r.size_bytes IS NOT NULL
       AND NOT EXISTS (SELECT 1 FROM storage_events WHERE upload_id = r.upload_id AND kind = 'charge')`;
  const sumStaged = db.prepare<OutboxStep, Awaiting & { workspaceId: string }>(`
    SELECT r.owner_id AS workspaceId,
           coalesce(sum(r.size_bytes) FILTER (WHERE ${counts}), 0) AS bytes,
           min(r.entered_at_ms) FILTER (WHERE ${counts}) AS oldestEnteredAtMs,
           ${urlsOutliveUploads ? "count(*)" : "0"} AS uploadsHeld
      FROM object_removals r
     WHERE r.seq > :afterSeq AND r.seq <= :untilSeq AND +r.owner_id IS NOT NULL
     GROUP BY +r.owner_id`);
  const selectSeqAfterStep = db.prepare<{ afterSeq: number; rows: number }, { seq: number }>(`
    SELECT seq FROM object_removals WHERE seq > :afterSeq ORDER BY seq LIMIT 1 OFFSET :rows`);
  const selectMember = db.prepare<{ workspaceId: string; userId: string }, { found: number }>(`
    SELECT 1 AS found FROM memberships WHERE workspace_id = :workspaceId AND user_id = :userId`);

  /**
   * What awaits removal, for all workspaces at once. A short outbox is read anew each time. After an outage of the store it
   * may have a million entries: then a pass takes seconds, and its result is kept long enough that no flood of requests
   * makes this more than a tenth of the process's work.
   */
  const awaitingRemoval = createSharedReading(sumOutbox, { keptFactor: outboxKeptFactor, shortStepsMax: 1 });

  /** The figures of the scripts that were confirmed in each span, in the spans' order. Spans may overlap. */
  async function scriptFigures(workspaceId: string, spans: readonly Span[]): Promise<ScriptFigures[]> {
    // Each row is read once, however many spans it lies in: what lies before each edge is summed up on the way.
    const edges = [...new Set(spans.flatMap(({ startMs, endMs }) => [startMs, endMs]))].sort((a, b) => a - b);
    const before = new Map<number, ScriptFigures>();
    let sum: ScriptFigures = { characters: 0, lines: 0 };
    for (const [i, edgeMs] of edges.entries()) {
      before.set(edgeMs, sum);
      const endMs = edges[i + 1] ?? edgeMs;
      for (let fromMs = edgeMs; fromMs < endMs; ) {
        const { atMs = endMs } =
          selectScriptAfterStep.get({ workspaceId, fromMs, untilMs: endMs, rows: stepRows }) ?? {};
        // Rows of one and the same millisecond are never split; a step of many such is longer, not wrong.
        const untilMs = Math.max(atMs, fromMs + 1);
        const step = sumScripts.get({ workspaceId, fromMs, untilMs });
        sum = { characters: sum.characters + (step?.characters ?? 0), lines: sum.lines + (step?.lines ?? 0) };
        fromMs = untilMs;
        await giveWay(workspaceId);
      }
    }
    return spans.map(({ startMs, endMs }) => {
      const start = before.get(startMs) ?? sum;
      const end = before.get(endMs) ?? sum;
      return { characters: end.characters - start.characters, lines: end.lines - start.lines };
    });
  }

  /** What the workspace stores, has pending, and has given up. */
  async function storageFigures(workspaceId: string): Promise<StorageFigures> {
    const removal = (await awaitingRemoval.read()).get(workspaceId);
    let rows = 0;
    for (let afterId = ""; ; ) {
      const step = countUploads.get({ workspaceId, afterId, rows: stepRows });
      rows += step?.rows ?? 0;
      if (step === undefined || step.rows < stepRows) break;
      afterId = step.lastId;
      await giveWay(workspaceId);
    }
    const pending = sumPending.get(workspaceId) ?? { uploadsPending: 0, bytesPendingStated: 0, bytesPendingStored: 0 };
    return {
      ...(selectStorage.get(workspaceId) ?? { bytesUsed: 0, bytesQuota: 0 }),
      uploads: Math.max(0, rows - pending.uploadsPending),
      ...pending,
      uploadsHeld: removal?.uploadsHeld ?? 0,
      bytesAwaitingRemoval: removal?.bytes ?? 0,
      oldestRemovalEnteredAtMs: removal?.oldestEnteredAtMs ?? null,
    };
  }

  async function sumOutbox(): Promise<Reading<Map<string, Awaiting>>> {
    const sums = new Map<string, Awaiting>();
    let steps = 0;
    for (let afterSeq = 0; afterSeq < Number.MAX_SAFE_INTEGER; steps++) {
      const untilSeq = selectSeqAfterStep.get({ afterSeq, rows: stepRows })?.seq ?? Number.MAX_SAFE_INTEGER;
      for (const statement of [sumFinal, sumStaged]) {
        for (const { workspaceId, ...found } of statement.all({ afterSeq, untilSeq })) {
          const sum = sums.get(workspaceId);
          sums.set(workspaceId, sum === undefined ? found : together(sum, found));
        }
      }
      afterSeq = untilSeq;
      await giveWay(OUTBOX);
    }
    return { value: sums, steps };
  }

  function isMember(workspaceId: string, userId: string): boolean {
    return selectMember.get({ workspaceId, userId }) !== undefined;
  }

  return { scriptFigures, storageFigures, isMember };
}

function together(a: Awaiting, b: Awaiting): Awaiting {
  const oldest = [a.oldestEnteredAtMs, b.oldestEnteredAtMs].filter((atMs) => atMs !== null);
  return {
    bytes: a.bytes + b.bytes,
    oldestEnteredAtMs: oldest.length === 0 ? null : Math.min(...oldest),
    uploadsHeld: a.uploadsHeld + b.uploadsHeld,
  };
}

interface OutboxStep {
  afterSeq: number;
  untilSeq: number;
}

interface ScriptStep {
  workspaceId: string;
  fromMs: number;
  untilMs: number;
}
