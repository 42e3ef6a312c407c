import type { Config } from "../config/config.ts";
import { type DbOptions, openDb } from "../db/db.ts";
import { measuredDb } from "../db/measured_db.ts";
import type { Log } from "../log.ts";
import { createContexts } from "./contexts.ts";
import { createDeletions } from "./deletions.ts";
import { createIdempotency } from "./idempotency.ts";
import { createKeptTimes } from "./kept_times.ts";
import { createKeys } from "./keys.ts";
import { createLedger } from "./ledger.ts";
import { createMembers } from "./members.ts";
import { createOutboxReader } from "./outbox.ts";
import { createRemovals } from "./removals.ts";
import { createRemovedObjects } from "./removed_objects.ts";
import { createRights } from "./rights.ts";
import { createStoreRecords } from "./store_record.ts";
import { createTotals } from "./totals.ts";
import { createUnconfirmed } from "./unconfirmed.ts";
import { createUploads } from "./uploads.ts";
import { createUsage } from "./usage.ts";
import { createUsers } from "./users.ts";
import { createWorkspaces } from "./workspaces.ts";

export interface CoreOptions {
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

export type Core = ReturnType<typeof openCore>;

/** Opens the database and everything that stands on it alone: what `serve` and the commands share. */
export function openCore({ config, log, now, migrate, holdsLock, onFatal, onFull, onGroup }: CoreOptions) {
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
  const unconfirmed = createUnconfirmed(db, {
    ...{ workspaces, log },
    options: {
      pendingUploadsMax: config.pendingUploadsMax,
      stagedBytesMax: config.stagedBytesMax,
      defaultQuotaBytes: config.defaultQuotaBytes,
      urlsOutliveUploads,
    },
  });
  const removed = createRemovedObjects(db);
  const removals = createRemovals(background, { releaseUrl: unconfirmed.releaseUrl, recordRemoved: removed.record });
  const outbox = createOutboxReader(db);
  const idempotency = createIdempotency(db, { background, now, keysMax: config.idempotencyKeysMax });
  const rights = createRights(db, { workspaces, now });
  const uploads = createUploads(db, {
    background,
    workspaces,
    rights,
    removals,
    idempotency,
    unconfirmed,
    now,
    options: {
      uploadUrlTtlMs: config.uploadUrlTtlSeconds * 1000,
      pendingTtlMs: config.pendingTtlSeconds * 1000,
    },
  });
  return {
    ...{ db, workspaces, rights, removals, idempotency, unconfirmed, uploads },
    deletions: createDeletions(db, { uploads, removed, installationId: workspaces.installationId() }),
    /** What the embedded store asks about the uploads that it takes in and hands out. */
    staging: {
      ownerOf: uploads.ownerOfPendingKey,
      isNamed: uploads.isNamedKey,
      stagedBytes: (ownerId: string): number => unconfirmed.figuresOf(ownerId).stagedBytes,
      beginPut: unconfirmed.beginPut,
    },
    times: createKeptTimes(db),
    keys: createKeys(db, now),
    contexts: createContexts(db, { workspaces, rights, now, workflowsMax: config.workflowsPerWorkspaceMax }),
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
