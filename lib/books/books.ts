import type { Keys } from "./keys.ts";
import type { Members } from "./members.ts";
import type { Users } from "./users.ts";
import type { Workspaces } from "./workspaces.ts";

/** The books of one installation, kept by an engine: a folder beside this file. Each verb is at most one transaction. */
export interface Books {
  /** The id that is part of every object key of this installation. */
  readonly installationId: string;
  workspaces: Workspaces;
  members: Members;
  users: Users;
  keys: Keys;

  /** Resolves once a write was committed. Throws `storage_unavailable` if the database cannot be written. `/ready` uses it. */
  checkWritable(): Promise<void>;

  /** Finishes queued writes and closes the database. */
  close(): Promise<void>;
}
