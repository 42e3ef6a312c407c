import type { Audit } from "./audit.ts";
import type { ClockRecords } from "./clock.ts";
import type { Deletions } from "./deletions.ts";
import type { Idempotency } from "./idempotency.ts";
import type { Keys } from "./keys.ts";
import type { Ledger } from "./ledger.ts";
import type { Members } from "./members.ts";
import type { OutboxReader } from "./outbox.ts";
import type { Removals } from "./removals.ts";
import type { Staging } from "./staging.ts";
import type { Stores } from "./stores.ts";
import type { TotalsReader } from "./totals.ts";
import type { Uploads } from "./uploads.ts";
import type { Usage } from "./usage.ts";
import type { Users } from "./users.ts";
import type { Workflows } from "./workflows.ts";
import type { Workspaces } from "./workspaces.ts";

/** The books of one installation, kept by an engine: a folder beside this file. Each verb is at most one transaction. */
export interface Books {
  /** The id that is part of every object key of this installation. */
  readonly installationId: string;
  uploads: Uploads;
  deletions: Deletions;
  removals: Removals;
  staging: Staging;
  idempotency: Idempotency;
  workspaces: Workspaces;
  members: Members;
  users: Users;
  keys: Keys;
  workflows: Workflows;
  ledger: Ledger;
  usage: Usage;
  outbox: OutboxReader;
  totals: TotalsReader;
  stores: Stores;
  clock: ClockRecords;
  audit: Audit;

  /** How long the event loop has worked for the verbs of the cleaner, in milliseconds. */
  backgroundMs(): number;

  /** Resolves once a write was committed. Throws `storage_unavailable`, saying why, if the database cannot be written. */
  checkWritable(): Promise<void>;

  /** Finishes queued writes and closes the database. */
  close(): Promise<void>;
}
