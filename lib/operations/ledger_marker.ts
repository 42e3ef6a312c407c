import * as z from "zod";
import type { Ledger, StorageEvent } from "../core/ledger.ts";
import { sha256Hex } from "../ids.ts";
import type { Log } from "../log.ts";
import type { ObjectStore } from "../store/objects.ts";
import { timestamp } from "../timestamp.ts";

/** Between two rewrites: what a restored database lacks of the last minute may go unnoticed, no more. */
const REWRITE_INTERVAL_MS = 60_000;
/** How often the log repeats that the cleaner is paused. */
const COMPLAINT_INTERVAL_MS = 60 * 60_000;

const WHAT_TO_DO =
  "stop and restore the newest database if you can; `stowage doctor --accept-older-database` shows what would be lost and goes on with this one";

const markerText = z.object({
  installation: z.string(),
  ledger_seq: z.int().min(0),
  event_sha256: z.string(),
  written_at: z.string(),
});

/** How far the ledger had come when the marker was written. */
export interface Marker {
  seq: number;
  writtenAt: string;
}

/** What the marker in the store says of the database. */
export type MarkerVerdict =
  /** There is none: nothing was ever removed from this store, or it is another store. */
  | { kind: "missing" }
  /** The database holds all that the marker names. */
  | { kind: "current"; marker: Marker }
  /** The database's ledger ends before the marker, or holds another event at its place: it was restored. */
  | { kind: "older"; marker: Marker; databaseSeq: number; reason: string }
  /** The marker is not one of this installation, or cannot be read. */
  | { kind: "foreign"; reason: string };

export interface MarkerParts {
  objects: Pick<ObjectStore, "readMarker" | "writeMarker">;
  ledger: Pick<Ledger, "last" | "at">;
  installationId: string;
}

/** The key of the marker where it is an object among others. It cannot be an upload's. */
export function markerKeyOf(installationId: string): string {
  return `final/${installationId}/ledger-marker`;
}

/** Compares the marker in the store with the database. Rejects with the `StoreError` where the store cannot be asked. */
export async function compareMarker({ objects, ledger, installationId }: MarkerParts): Promise<MarkerVerdict> {
  const text = await objects.readMarker(markerKeyOf(installationId));
  if (text === null) return { kind: "missing" };
  const parsed = markerText.safeParse(parseJson(text));
  if (!parsed.success) return { kind: "foreign", reason: "the marker in the store cannot be read" };
  const { installation, ledger_seq: seq, event_sha256, written_at: writtenAt } = parsed.data;
  if (installation !== installationId) {
    return { kind: "foreign", reason: `the store belongs to the installation "${installation}"` };
  }
  const marker = { seq, writtenAt };
  const databaseSeq = ledger.last()?.seq ?? 0;
  if (databaseSeq < seq) {
    const reason = `the ledger ends at ${databaseSeq}, the store has seen it at ${seq}`;
    return { kind: "older", marker, databaseSeq, reason };
  }
  // A ledger that was restored and then written on may be as long as the lost one, and is not the same.
  if (fingerprint(ledger.at(seq)) !== event_sha256) {
    const reason = `the ledger's number ${seq} is not the one that the store has seen`;
    return { kind: "older", marker, databaseSeq, reason };
  }
  return { kind: "current", marker };
}

/** Writes down how far the ledger has come, and resolves with its number. What it names must be committed. */
export async function writeMarker({ objects, ledger, installationId }: MarkerParts, nowMs: number): Promise<number> {
  const last = ledger.last();
  const marker: z.infer<typeof markerText> = {
    installation: installationId,
    ledger_seq: last?.seq ?? 0,
    event_sha256: fingerprint(last),
    written_at: timestamp(nowMs),
  };
  await objects.writeMarker(markerKeyOf(installationId), `${JSON.stringify(marker)}\n`);
  return marker.ledger_seq;
}

export interface LedgerGuardOptions extends MarkerParts {
  log: Log;
  now: () => number;
  monotonicNow: () => number;
}

export type LedgerGuard = ReturnType<typeof createLedgerGuard>;

/**
 * Keeps a restored old database from doing harm: to it, today's charged objects look like orphans and abandoned copies.
 * Until the store's marker is known not to be ahead of the database, nothing may be removed, expired or entered.
 */
export function createLedgerGuard(options: LedgerGuardOptions) {
  const { log, now, monotonicNow } = options;
  let isKnown = false;
  let reason: string | null = null;
  let complainedAtMs = Number.NEGATIVE_INFINITY;
  let writtenSeq: number | null = null;
  let foundAtMs: number | null = null;
  let writtenAtMs = Number.NEGATIVE_INFINITY;

  /** Whether the database holds all that the store has seen. Asked of the store until it does; rejects where it cannot be asked. */
  async function isCurrent(): Promise<boolean> {
    if (isKnown) return true;
    const verdict = await compareMarker(options);
    if (verdict.kind === "older" || verdict.kind === "foreign") {
      reason = verdict.reason;
      complain();
      return false;
    }
    if (reason !== null) log.warn("cleaner_goes_on", { accepted: reason });
    reason = null;
    isKnown = true;
    writtenSeq = verdict.kind === "current" ? verdict.marker.seq : null;
    foundAtMs = verdict.kind === "current" ? Date.parse(verdict.marker.writtenAt) || null : null;
    return true;
  }

  function complain(): void {
    if (monotonicNow() - complainedAtMs < COMPLAINT_INTERVAL_MS) return;
    complainedAtMs = monotonicNow();
    log.error("cleaner_paused", {
      why: `the database is older than the store: ${reason}`,
      effect: "no object is removed, no upload expires",
      hint: WHAT_TO_DO,
    });
  }

  /**
   * Brings the marker up to date, at most once a minute unless `atOnce`. To be called before anything is removed. Does
   * nothing before the database is known to be current: the marker of a newer one must stay.
   */
  async function keepUp({ atOnce = false } = {}): Promise<void> {
    if (!isKnown || (options.ledger.last()?.seq ?? 0) === writtenSeq) return;
    const startedAtMs = monotonicNow();
    if (!atOnce && startedAtMs - writtenAtMs < REWRITE_INTERVAL_MS) return;
    writtenSeq = await writeMarker(options, now());
    writtenAtMs = startedAtMs;
  }

  /** Why the cleaner is paused, or null where it is not. */
  function pauseReason(): string | null {
    return reason;
  }

  /** When the marker that an earlier process has left was written; null if there was none, or it does not say. */
  function markerAtMs(): number | null {
    return foundAtMs;
  }

  return { isCurrent, keepUp, pauseReason, markerAtMs };
}

/** Names an event beyond its number. None at all has a fingerprint too: a ledger without events is the start of every other. */
function fingerprint(event: StorageEvent | null): string {
  if (event === null) return "";
  const { seq, workspaceId, uploadId, kind, bytes, balanceBytes, atMs } = event;
  return sha256Hex(JSON.stringify([seq, workspaceId, uploadId, kind, bytes, balanceBytes, atMs]));
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
