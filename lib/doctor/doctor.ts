import type { Config } from "../config/config.ts";
import { type Core, openCore } from "../core/core.ts";
import type { StorePlace } from "../core/store_record.ts";
import { isSqliteError } from "../db/db.ts";
import { findServer } from "../db/serve_lock.ts";
import { AppError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { MarkerParts } from "../operations/ledger_marker.ts";
import type { ObjectStore } from "../store/objects.ts";
import { openStore } from "../store/open_store.ts";
import { placeOf } from "../store/place.ts";
import { checkBooks, checkIntegrity, checkOutbox } from "./database.ts";
import { checkFiles, checkSettings } from "./host.ts";
import { createDoctorQueries } from "./queries.ts";
import { createReport, type Report } from "./report.ts";
import { checkObjects, checkStore } from "./store.ts";

/** The cleaner itself enters what it finds in staging within 25 hours of the URL's end: only what is older was missed. */
const GRACE_MS = 25 * 60 * 60_000;

export interface DoctorOptions {
  config: Config;
  log: Log;
  now?: () => number;
  /** Enters orphans in the outbox and adjusts counters. Without it nothing is changed. */
  fix: boolean;
  /** Wraps the store, for tests that make it fail. */
  wrapStore?: (objects: ObjectStore) => ObjectStore;
}

/**
 * Looks the whole installation over, beside a running server or without one. Removes nothing and deletes no row, also with
 * `fix`.
 */
export async function runDoctor(options: DoctorOptions): Promise<Report> {
  const { config, fix, now = Date.now } = options;
  const report = createReport();
  checkSettings(report, config);
  checkFiles(report, config);
  try {
    await withParts(options, async (parts) => {
      const { core, objects, installationId } = parts;
      const queries = createDoctorQueries(core.db);
      const isServed = findServer(config.dataDir) !== null;
      const isSound = checkIntegrity(report, queries, { isServed });
      await checkBooks(report, queries, { fix: fix && isSound, nowMs: now() });
      await checkOutbox(report, { queries, outbox: core.outbox, nowMs: now() });
      const reasons = await checkStore(report, objects, markerPartsOf(parts));
      if (reasons === null) return;
      await checkObjects(report, {
        ...{ objects, queries, installationId, now, fix, removals: core.removals },
        graceMs: Math.max(config.uploadUrlTtlSeconds, config.downloadUrlTtlSeconds) * 1_000 + GRACE_MS,
        reasonsAgainstFix: isSound ? reasons : [...reasons, "the database is damaged"],
      });
    });
  } catch (error) {
    addDatabaseProblem(report, error);
  }
  return report;
}

export interface DoctorParts {
  core: Core;
  objects: ObjectStore;
  installationId: string;
  /** The store that the settings name. */
  place: StorePlace;
}

export function markerPartsOf({ core, ...parts }: DoctorParts): MarkerParts {
  return { ...parts, ledger: core.ledger, stores: core.stores };
}

/** Opens the database and the store beside a server, and closes them after the work. */
export async function withParts<T>(
  { config, log, now = Date.now, wrapStore = (objects) => objects }: Omit<DoctorOptions, "fix">,
  work: (parts: DoctorParts) => Promise<T>,
): Promise<T> {
  const core = openCore({ config, log, now, migrate: false, onFatal: (error) => log.error("fatal", { error }) });
  try {
    const installationId = core.workspaces.installationId();
    const store = await openStore({
      ...{ config, installationId, log, now, serves: false },
      publicUrl: () => config.publicUrl ?? "",
      staging: core.staging,
    });
    const objects = wrapStore(store.objects);
    try {
      return await work({ core, objects, installationId, place: placeOf(config) });
    } finally {
      await objects.close();
    }
  } finally {
    await core.db.close();
  }
}

/** A database or a store that cannot be opened at all is a finding too. What is neither passes through. */
function addDatabaseProblem(report: Report, error: unknown): void {
  if (error instanceof AppError) {
    const advice = error.hint ?? "put this right and run `stowage doctor` again: nothing further was looked at";
    return report.problem("opening", error.message, { advice });
  }
  if (!isSqliteError(error, "SQLITE_CORRUPT") && !isSqliteError(error, "SQLITE_NOTADB")) throw error;
  report.problem("database file", `SQLite cannot read it: ${error.message}`, {
    advice: "stop the server, keep a copy of the whole data directory, and restore the newest backup that is sound",
  });
}
