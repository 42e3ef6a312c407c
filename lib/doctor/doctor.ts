import { join } from "node:path";
import type { Books } from "../books/books.ts";
import { findServer } from "../books/sqlite/db/serve_lock.ts";
import { openBooks } from "../books/sqlite/open_books.ts";
import type { StorePlace } from "../books/stores.ts";
import type { Config } from "../config/config.ts";
import { checkInitialised } from "../data_dir/data_dir.ts";
import { OBJECTS_FOLDER } from "../data_dir/layout.ts";
import type { Log } from "../log.ts";
import type { MarkerParts } from "../operations/ledger_marker.ts";
import type { ObjectStore } from "../store/objects.ts";
import { openStore } from "../store/open_store.ts";
import { placeOf } from "../store/place.ts";
import { checkBooks, checkIntegrity, checkOutbox } from "./database.ts";
import { guarded } from "./guarded.ts";
import { checkFiles, checkSettings } from "./host.ts";
import { checkLogs } from "./log.ts";
import { checkObjects, checkStore } from "./objects.ts";
import { createReport, type Report } from "./report.ts";
import { checkSmallObjects } from "./small_objects.ts";

/** Within 25 hours of a URL's end the cleaner itself enters what it finds in staging, so only what is older was missed. */
const GRACE_MS = 25 * 60 * 60_000;

export interface DoctorOptions {
  config: Config;
  log: Log;
  now?: () => number;
  /** Whether to enter orphans in the outbox and adjust counters. If not, nothing is changed. */
  fix: boolean;
  /** Wraps the store, for tests that make it fail. */
  wrapStore?: (objects: ObjectStore) => ObjectStore;
}

/** Checks the whole installation, beside a running server or without one. Even with `fix` it removes no object and no upload. */
export async function runDoctor(options: DoctorOptions): Promise<Report> {
  const { config, fix, now = Date.now } = options;
  const report = createReport();
  const { dataDir } = config;
  await guarded(report, "opening", () => checkInitialised(dataDir));
  // The other checks need a data directory that is there and belongs to this user.
  if (!report.isFine()) return report;
  await guarded(report, "settings", () => checkSettings(report, config));
  await guarded(report, "files", () => checkFiles(report, config));
  await guarded(report, "opening", () =>
    withDatabase(options, async (books) => {
      const { audit, ledger, outbox } = books;
      const server = findServer(dataDir);
      let isSound = false;
      await guarded(report, "database file", async () => {
        isSound = await checkIntegrity(report, audit, { isServed: server !== null });
      });
      await guarded(report, "log", () => checkLogs(report, dataDir, server?.processId ?? null));
      if (config.store === "disk") {
        const objectsDir = join(dataDir, OBJECTS_FOLDER);
        await guarded(report, "small objects", () =>
          checkSmallObjects(report, { objectsDir, isServed: server !== null, fix }),
        );
      }
      await guarded(report, "BOOKS", () =>
        checkBooks(report, { audit, ledger }, { fix: fix && isSound, nowMs: now() }),
      );
      await guarded(report, "outbox", () => checkOutbox(report, { audit, outbox, nowMs: now() }));
      await guarded(report, "store", () =>
        withStore(options, books, async (parts) => {
          const { objects, installationId, place } = parts;
          const reasons = await checkStore(report, objects, markerPartsOf(parts));
          if (reasons === null) return;
          await checkObjects(report, {
            ...{ objects, audit, installationId, place, now, fix, removals: books.removals },
            graceMs: Math.max(config.uploadUrlTtlMs, config.downloadUrlTtlMs) + GRACE_MS,
            reasonsAgainstFix: isSound ? reasons : [...reasons, "the database is damaged"],
          });
        }),
      );
    }),
  );
  return report;
}

export interface DoctorParts {
  books: Books;
  objects: ObjectStore;
  installationId: string;
  /** The store that the settings name. */
  place: StorePlace;
}

export function markerPartsOf({ books, ...parts }: DoctorParts): MarkerParts {
  return { ...parts, ledger: books.ledger, stores: books.stores };
}

type PartsOptions = Omit<DoctorOptions, "fix">;

/** Opens the database and the store beside a server, and closes them after the work. */
export function withParts<T>(options: PartsOptions, work: (parts: DoctorParts) => Promise<T>): Promise<T> {
  return withDatabase(options, (books) => withStore(options, books, work));
}

async function withDatabase<T>(options: PartsOptions, work: (books: Books) => Promise<T>): Promise<T> {
  const { config, log, now = Date.now } = options;
  const books = openBooks({ config, log, now, migrate: false, onFatal: (error) => log.error("fatal", { error }) });
  try {
    return await work(books);
  } finally {
    await books.close();
  }
}

async function withStore<T>(options: PartsOptions, books: Books, work: (parts: DoctorParts) => Promise<T>): Promise<T> {
  const { config, log, now = Date.now, wrapStore = (objects) => objects } = options;
  const { installationId } = books;
  const store = await openStore({
    ...{ config, installationId, log, now, serves: false },
    publicUrl: () => config.publicUrl ?? "",
    staging: books.staging,
  });
  const objects = wrapStore(store.objects);
  try {
    return await work({ books, objects, installationId, place: placeOf(config) });
  } finally {
    await objects.close();
  }
}
