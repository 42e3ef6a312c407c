import type { Config } from "../../config/config.ts";
import type { Log } from "../../log.ts";
import type { Books as Contract } from "../books.ts";
import { createKeptTimes } from "./clock.ts";
import { type DbOptions, openDb } from "./db/db.ts";
import { measuredDb } from "./db/measured_db.ts";
import { createDeletions } from "./deletions.ts";
import { createIdempotency } from "./idempotency.ts";
import { createInstallation } from "./installation.ts";
import { createKeyRows } from "./key_rows.ts";
import { createKeys } from "./keys.ts";
import { createLedger } from "./ledger.ts";
import { createMembers } from "./members.ts";
import { createMembershipRows } from "./membership_rows.ts";
import { createOutboxReader } from "./outbox.ts";
import { createRemovals } from "./removals.ts";
import { createRemovedObjects } from "./removed_objects.ts";
import { createRights } from "./rights.ts";
import { createStoreRecords } from "./stores.ts";
import { createTotals } from "./totals.ts";
import { createUnconfirmed } from "./unconfirmed.ts";
import { createUploads } from "./uploads.ts";
import { createUsage } from "./usage.ts";
import { createUserRows } from "./user_rows.ts";
import { createUsers } from "./users.ts";
import { createContexts } from "./workflows.ts";
import { createWorkspaceRows } from "./workspace_rows.ts";
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

/** The contract, and what callers still use beside it. */
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
  const installation = createInstallation(db, now);
  const keys = createKeyRows(db, now);
  const users = createUserRows(db);
  const memberships = createMembershipRows(db);
  const workspaces = createWorkspaceRows(db);
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
  const rights = createRights({ keys, memberships, now });
  const uploads = createUploads(db, {
    background,
    installationId: installation.id,
    workspaces,
    memberships,
    rights,
    removals,
    idempotency,
    unconfirmed,
    now,
    options: {
      uploadUrlTtlMs: config.uploadUrlTtlMs,
      pendingTtlMs: config.pendingTtlMs,
    },
  });
  const people = {
    workspaces: createWorkspaces(db, {
      ...{ workspaces, memberships, users, keys, now },
      ownedMax: config.workspacesPerOwnerMax,
    }),
    members: createMembers(db, { memberships, users, workspaces, now }),
    users: createUsers(db, { users, now }),
    keys: createKeys(db, { keys, workspaces }),
    installationId: installation.id,
    checkWritable: installation.checkWritable,
    close: db.close,
  } satisfies Contract;
  return {
    ...people,
    ...{ db, rights, removals, idempotency, unconfirmed, uploads },
    /** For a check inside a confirm. */
    checkRoom: workspaces.checkRoom,
    deletions: createDeletions(db, { uploads, removed, installationId: installation.id }),
    /** What the embedded store asks about the uploads that it takes in and hands out. */
    staging: {
      ownerOf: uploads.ownerOfPendingKey,
      isNamed: uploads.isNamedKey,
      stagedBytes: (ownerId: string): number => unconfirmed.figuresOf(ownerId).stagedBytes,
      beginPut: unconfirmed.beginPut,
    },
    times: createKeptTimes(db),
    contexts: createContexts(db, { memberships, rights, now, workflowsMax: config.workflowsPerWorkspaceMax }),
    usage: createUsage(db, { urlsOutliveUploads }),
    outbox,
    backgroundMs: background.workedMs,
    totals: createTotals(db, { outbox }),
    ledger: createLedger(db),
    stores: createStoreRecords(db),
  };
}
