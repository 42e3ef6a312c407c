import type { Config } from "../../config/config.ts";
import type { Log } from "../../log.ts";
import type { Books } from "../books.ts";
import { createAudit } from "./audit.ts";
import { createClockRecords } from "./clock.ts";
import { createContexts } from "./contexts.ts";
import { type Db, type DbOptions, openDb } from "./db/db.ts";
import { measuredDb } from "./db/measured_db.ts";
import { createDeletions } from "./deletions.ts";
import { createIdempotency, createIdempotencyMemory } from "./idempotency.ts";
import { createInstallationRow } from "./installation_row.ts";
import { createKeyRows } from "./key_rows.ts";
import { createKeys } from "./keys.ts";
import { createLedger } from "./ledger.ts";
import { createMembers } from "./members.ts";
import { createMembershipRows } from "./membership_rows.ts";
import { createOutboxReader } from "./outbox.ts";
import { createRemovalEntries, createRemovals } from "./removals.ts";
import { createRemovedObjects } from "./removed_objects.ts";
import { createRights } from "./rights.ts";
import { createStaging } from "./staging.ts";
import { createStores } from "./stores.ts";
import { createTotals } from "./totals.ts";
import { createUnconfirmed, type Unconfirmed } from "./unconfirmed.ts";
import { createUploadRows } from "./upload_rows.ts";
import { createUploadViews } from "./upload_views.ts";
import { createUploads } from "./uploads.ts";
import { createUsage } from "./usage.ts";
import { createUserRows } from "./user_rows.ts";
import { createUsers } from "./users.ts";
import { createWorkflows } from "./workflows.ts";
import { createWorkspaceRows } from "./workspace_rows.ts";
import { createWorkspaces } from "./workspaces.ts";
import { createWritableCheck } from "./writable.ts";

export interface BooksOptions {
  config: Config;
  log: Log;
  now: () => number;
  /** Brings an older database up to date; only for the holder of the serve lock. */
  migrate: boolean;
  /** Whether this process holds the serve lock; by default, if it migrates. */
  holdsLock?: DbOptions["holdsLock"];
  onFatal: (error: unknown) => void;
  /** Called when a write finds the disk full. */
  onFull?: DbOptions["onFull"];
  /** Called after each group of writes, for metrics. */
  onGroup?: DbOptions["onGroup"];
}

/** The books, and the parts of their engine that tests break and inspect. */
export interface Engine {
  books: Books;
  db: Db;
  unconfirmed: Unconfirmed;
}

/**
 * Opens the database of a data directory. Throws `storage_unavailable` if the file cannot be used, and an `AppError` that
 * says what to do if it is newer than the program, or older and `migrate` is false.
 */
export function openBooks(options: BooksOptions): Books {
  return openEngine(options).books;
}

/** Opens the same books as `openBooks`, for tests that need the engine's parts too. */
export function openEngine({ config, log, now, migrate, holdsLock, onFatal, onFull, onGroup }: BooksOptions): Engine {
  const db = openDb({
    ...{ dataDir: config.dataDir, minFreeBytes: config.minFreeBytes, log, migrate, holdsLock, onFatal, onFull },
    onGroup(group) {
      if (group.commitMs === null) unconfirmed.forgetAll();
      onGroup?.(group);
    },
  });
  // The embedded store checks for the row before it keeps a PUT.
  const urlsOutliveUploads = config.store !== "disk";
  // Background work steps aside for requests in proportion to the time that it has used itself.
  const background = measuredDb(db);
  const installation = createInstallationRow(db);
  const installationId = installation.id;
  const rows = createUploadRows(db);
  const views = createUploadViews(db);
  const entries = createRemovalEntries(db);
  const keys = createKeyRows(db, now);
  const users = createUserRows(db);
  const memberships = createMembershipRows(db);
  const workspaces = createWorkspaceRows(db);
  const unconfirmed = createUnconfirmed(db, {
    ...{ rows, entries, workspaces, log },
    options: {
      pendingUploadsMax: config.pendingUploadsMax,
      stagedBytesMax: config.stagedBytesMax,
      defaultQuotaBytes: config.defaultQuotaBytes,
      urlsOutliveUploads,
    },
  });
  const removed = createRemovedObjects(db);
  const rights = createRights({ keys, memberships, now });
  const memory = createIdempotencyMemory(db, { now, keysMax: config.idempotencyKeysMax });
  const contexts = createContexts(db, { memberships });
  const outbox = createOutboxReader(db);
  const books: Books = {
    installationId,
    uploads: createUploads(db, {
      ...{ background, rows, views, entries, memory, unconfirmed, rights, contexts, workspaces, memberships },
      ...{ installationId, now },
      options: { uploadUrlTtlMs: config.uploadUrlTtlMs, pendingTtlMs: config.pendingTtlMs },
    }),
    deletions: createDeletions(db, { views, removed, installationId }),
    removals: createRemovals(background, {
      entries,
      releaseUrl: unconfirmed.releaseUrl,
      recordRemoved: removed.record,
    }),
    staging: createStaging(db, unconfirmed),
    idempotency: createIdempotency(background),
    workspaces: createWorkspaces(db, {
      ...{ workspaces, memberships, users, keys, now },
      ownedMax: config.workspacesPerOwnerMax,
    }),
    members: createMembers(db, { memberships, users, workspaces, now }),
    users: createUsers(db, { users, now }),
    keys: createKeys(db, { keys, workspaces }),
    workflows: createWorkflows(db, {
      ...{ rights, now, workflowsMax: config.workflowsPerWorkspaceMax, definitionCharsMax: config.jsonBytesMax },
    }),
    ledger: createLedger(db),
    usage: createUsage(db, { urlsOutliveUploads }),
    outbox,
    totals: createTotals(db, { outbox }),
    stores: createStores(db, { installation }),
    clock: createClockRecords(db, { installation }),
    audit: createAudit(db, { rows }),
    backgroundMs: background.workedMs,
    checkWritable: createWritableCheck(db, { installation, now }),
    close: db.close,
  };
  return { books, db, unconfirmed };
}
