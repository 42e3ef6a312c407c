import type { Config } from "../config/config.ts";
import { type Core, openCore } from "../core/core.ts";
import type { StorePlace } from "../core/store_record.ts";
import { checkInitialised } from "../db/data_dir.ts";
import { findServer } from "../db/serve_lock.ts";
import type { Log } from "../log.ts";
import type { MarkerParts } from "../operations/ledger_marker.ts";
import type { ObjectStore } from "../store/objects.ts";
import { openStore } from "../store/open_store.ts";
import { placeOf } from "../store/place.ts";
import { checkBooks, checkIntegrity, checkOutbox } from "./database.ts";
import { guarded } from "./guarded.ts";
import { checkFiles, checkSettings } from "./host.ts";
import { checkLog } from "./log.ts";
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
  const { dataDir } = config;
  await guarded(report, "opening", () => checkInitialised(dataDir));
  // Of what is not there, or belongs to someone else, there is nothing more to say.
  if (!report.isFine()) return report;
  await guarded(report, "settings", () => checkSettings(report, config));
  await guarded(report, "files", () => checkFiles(report, config));
  await guarded(report, "opening", () =>
    withDatabase(options, async (core) => {
      const queries = createDoctorQueries(core.db);
      const server = findServer(dataDir);
      let isSound = false;
      await guarded(report, "database file", () => {
        isSound = checkIntegrity(report, queries, { isServed: server !== null });
      });
      await guarded(report, "log", () => checkLog(report, dataDir, server?.processId ?? null));
      await guarded(report, "BOOKS", () => checkBooks(report, queries, { fix: fix && isSound, nowMs: now() }));
      await guarded(report, "outbox", () => checkOutbox(report, { queries, outbox: core.outbox, nowMs: now() }));
      await guarded(report, "store", () =>
        withStore(options, core, async (parts) => {
          const { objects, installationId } = parts;
          const reasons = await checkStore(report, objects, markerPartsOf(parts));
          if (reasons === null) return;
          await checkObjects(report, {
            ...{ objects, queries, installationId, now, fix, removals: core.removals },
            graceMs: Math.max(config.uploadUrlTtlSeconds, config.downloadUrlTtlSeconds) * 1_000 + GRACE_MS,
            reasonsAgainstFix: isSound ? reasons : [...reasons, "the database is damaged"],
          });
        }),
      );
    }),
  );
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

type PartsOptions = Omit<DoctorOptions, "fix">;

/** Opens the database and the store beside a server, and closes them after the work. */
export function withParts<T>(options: PartsOptions, work: (parts: DoctorParts) => Promise<T>): Promise<T> {
  return withDatabase(options, (core) => withStore(options, core, work));
}

async function withDatabase<T>(options: PartsOptions, work: (core: Core) => Promise<T>): Promise<T> {
  const { config, log, now = Date.now } = options;
  const core = openCore({ config, log, now, migrate: false, onFatal: (error) => log.error("fatal", { error }) });
  try {
    return await work(core);
  } finally {
    await core.db.close();
  }
}

async function withStore<T>(options: PartsOptions, core: Core, work: (parts: DoctorParts) => Promise<T>): Promise<T> {
  const { config, log, now = Date.now, wrapStore = (objects) => objects } = options;
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
}
