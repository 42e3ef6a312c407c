import type { Config } from "../config/config.ts";
import { type DbOptions, openDb } from "../db/db.ts";
import type { Log } from "../log.ts";
import { createContexts } from "./contexts.ts";
import { createIdempotency } from "./idempotency.ts";
import { createKeptTimes } from "./kept_times.ts";
import { createKeys } from "./keys.ts";
import { createLedger } from "./ledger.ts";
import { createMembers } from "./members.ts";
import { createRemovals } from "./removals.ts";
import { createRights } from "./rights.ts";
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
  const workspaces = createWorkspaces(db, now);
  const unconfirmed = createUnconfirmed(db, {
    ...{ workspaces, log },
    options: {
      pendingUploadsMax: config.pendingUploadsMax,
      stagedBytesMax: config.stagedBytesMax,
      defaultQuotaBytes: config.defaultQuotaBytes,
      // The embedded store looks for the row before it keeps a PUT.
      urlsOutliveUploads: config.store !== "disk",
    },
  });
  const removals = createRemovals(db, { releaseUrl: unconfirmed.releaseUrl });
  const idempotency = createIdempotency(db, { now, keysMax: config.idempotencyKeysMax });
  const rights = createRights(db, { workspaces, now });
  const uploads = createUploads(db, {
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
    /** What the embedded store asks about the uploads that it takes in. */
    staging: {
      ownerOf: uploads.ownerOfPendingKey,
      stagedBytes: (ownerId: string): number => unconfirmed.figuresOf(ownerId).stagedBytes,
      beginPut: unconfirmed.beginPut,
    },
    times: createKeptTimes(db),
    keys: createKeys(db, now),
    contexts: createContexts(db, { workspaces, rights, now, workflowsMax: config.workflowsPerWorkspaceMax }),
    users: createUsers(db, now),
    members: createMembers(db, { workspaces, now }),
    usage: createUsage(db),
    totals: createTotals(db),
    ledger: createLedger(db),
  };
}
