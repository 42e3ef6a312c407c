import type { Span } from "./usage_periods.ts";

/** Sums over the confirmed scripts of a span of time. */
export interface ScriptFigures {
  characters: number;
  lines: number;
}

export interface StorageFigures {
  bytesUsed: number;
  bytesQuota: number;
  /** Confirmed uploads. */
  uploads: number;
  uploadsPending: number;
  /** The sum of the sizes that were stated for pending uploads; those without one add nothing. */
  bytesPendingStated: number;
  /** Bytes known to be in the store for pending uploads. */
  bytesPendingStored: number;
  /** Upload URLs that the store still accepts a PUT to although their upload is deleted or confirmed. */
  uploadsHeld: number;
  /** Bytes known to be in the store that no longer belong to an upload: those of deleted uploads, and staged leftovers. */
  bytesAwaitingRemoval: number;
  /** When the oldest of that was given up; null if there is nothing. */
  oldestRemovalEnteredAtMs: number | null;
}

/**
 * A workspace's usage. No table keeps these figures, because it could drift: each call adds up the rows, in short steps between
 * which other requests get their turn. If there are more rows than one step reads, the figures of one
 * result may therefore be some milliseconds apart.
 */
export interface Usage {
  /** Adds up the scripts that were confirmed in each span, in the order of the spans. Spans may overlap. */
  scriptFigures(workspaceId: string, spans: readonly Span[]): Promise<ScriptFigures[]>;

  /**
   * Adds up what the workspace stores, has pending and has given up. If the outbox is long, what awaits removal may be some
   * seconds old.
   */
  storageFigures(workspaceId: string): Promise<StorageFigures>;
}
