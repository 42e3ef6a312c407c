import type { Config } from "../../config/config.ts";
import type { Log } from "../../log.ts";
import { createKeptTimes } from "./clock.ts";
import { type DbOptions, openDb } from "./db/db.ts";
import { measuredDb } from "./db/measured_db.ts";
import { createDeletions } from "./deletions.ts";
import { createIdempotency, createIdempotencyMemory } from "./idempotency.ts";
import { createKeys } from "./keys.ts";
import { createLedger } from "./ledger.ts";
import { createMembers } from "./members.ts";
import { createOutboxReader } from "./outbox.ts";
import { createRemovalEntries, createRemovals } from "./removals.ts";
import { createRemovedObjects } from "./removed_objects.ts";
import { createRights } from "./rights.ts";
import { createStaging } from "./staging.ts";
import { createStoreRecords } from "./stores.ts";
import { createTotals } from "./totals.ts";
import { createUnconfirmed } from "./unconfirmed.ts";
import { createUploadRows } from "./upload_rows.ts";
import { createUploadViews } from "./upload_views.ts";
import { createUploads } from "./uploads.ts";
import { createUsage } from "./usage.ts";
import { createUsers } from "./users.ts";
import { createContexts } from "./workflows.ts";
import { createWorkspaces } from "./workspaces.ts";

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
  /** Told of every group of writes, for metrics. */
  onGroup?: DbOptions["onGroup"];
}

export type Books = ReturnType<typeof openBooks>;

/** Opens the database and everything that stands on it alone: what `serve` and the commands share. */
export function openBooks({ config, log, now, migrate, holdsLock, onFatal, onFull, onGroup }: BooksOptions) {
  const db = openDb({
    ...{ dataDir: config.dataDir, minFreeBytes: config.minFreeBytes, log, migrate, holdsLock, onFatal, onFull },
    onGroup(group) {
      if (group.commitMs === null) unconfirmed.forgetAll();
      onGroup?.(group);
    },
  });
  // The embedded store looks for the row before it keeps a PUT.
  const urlsOutliveUploads = config.store !== "disk";
  // What goes on in the background steps aside for requests in proportion to what it has used itself.
  const background = measuredDb(db);
  const workspaces = createWorkspaces(db, now);
  const installationId = workspaces.installationId();
  const rows = createUploadRows(db);
  const views = createUploadViews(db);
  const entries = createRemovalEntries(db);
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
  const removals = createRemovals(background, {
    entries,
    releaseUrl: unconfirmed.releaseUrl,
    recordRemoved: removed.record,
  });
  const outbox = createOutboxReader(db);
  const memory = createIdempotencyMemory(db, { now, keysMax: config.idempotencyKeysMax });
  const rights = createRights(db, { workspaces, now });
  const contexts = createContexts(db, { workspaces, rights, now, workflowsMax: config.workflowsPerWorkspaceMax });
  const uploads = createUploads(db, {
    ...{ background, rows, views, entries, memory, unconfirmed, rights, contexts, workspaces, installationId, now },
    options: {
      uploadUrlTtlMs: config.uploadUrlTtlSeconds * 1000,
      pendingTtlMs: config.pendingTtlSeconds * 1000,
    },
  });
  return {
    ...{ db, workspaces, rights, removals, contexts, unconfirmed, uploads },
    idempotency: createIdempotency(background),
    deletions: createDeletions(db, { views, removed, installationId }),
    staging: createStaging(db, unconfirmed),
    times: createKeptTimes(db),
    keys: createKeys(db, now),
    users: createUsers(db, now),
    members: createMembers(db, { workspaces, now }),
    usage: createUsage(db, { urlsOutliveUploads }),
    outbox,
    backgroundMs: background.workedMs,
    totals: createTotals(db, { outbox }),
    ledger: createLedger(db),
    stores: createStoreRecords(db),
  };
}
