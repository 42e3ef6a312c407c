import type { Audit } from "./audit.ts";
import type { ClockRecords } from "./clock.ts";
import type { Ledger } from "./ledger.ts";
import type { OutboxReader } from "./outbox.ts";
import type { Stores } from "./stores.ts";
import type { TotalsReader } from "./totals.ts";
import type { Usage } from "./usage.ts";
import type { Workflows } from "./workflows.ts";

/** The books of one installation, kept by an engine: a folder beside this file. Each verb is at most one transaction. */
export interface Books {
  /** The id that is part of every object key of this installation. */
  readonly installationId: string;
  workflows: Workflows;
  ledger: Ledger;
  usage: Usage;
  outbox: OutboxReader;
  totals: TotalsReader;
  stores: Stores;
  clock: ClockRecords;
  audit: Audit;

  /** Resolves once a write was committed. Throws `storage_unavailable`, saying why, if the database cannot be written. */
  checkWritable(): Promise<void>;

  /** Finishes the writes that are queued and closes the database. */
  close(): Promise<void>;
}
