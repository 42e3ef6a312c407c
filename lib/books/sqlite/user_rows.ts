import type { Db } from "./db/db.ts";

export interface User {
  userId: string;
  email: string | null;
  name: string | null;
}

export type UserRows = ReturnType<typeof createUserRows>;

/** The table `users` and its only writer. Used inside transactions. */
export function createUserRows(db: Db) {
  const selectOne = db.prepare<[string]>("SELECT 1 FROM users WHERE id = ?");
  const selectBySubject = db.prepare<[string], User>(`
    SELECT id AS userId, email, name FROM users WHERE external_id = ?`);
  const selectByEmail = db.prepare<[string], { userId: string }>(
    "SELECT id AS userId FROM users WHERE lower(email) = lower(?) AND email IS NOT NULL LIMIT 2",
  );
  const insert = db.prepare<{ userId: string; name: string; nowMs: number }>(
    "INSERT INTO users (id, name, created_at_ms) VALUES (:userId, :name, :nowMs)",
  );
  // One statement, so that several first requests of a person, even at two processes, create one user.
  const upsert = db.prepare<User & { subject: string; nowMs: number }, { userId: string }>(`
    INSERT INTO users (id, external_id, email, name, created_at_ms)
    VALUES (:userId, :subject, :email, :name, :nowMs)
    ON CONFLICT (external_id) WHERE external_id IS NOT NULL
    DO UPDATE SET email = coalesce(excluded.email, email), name = coalesce(excluded.name, name)
    RETURNING id AS userId`);

  return {
    exists: (userId: string): boolean => selectOne.get(userId) !== undefined,
    findBySubject: (subject: string): User | undefined => selectBySubject.get(subject),
    /** The ids of up to two users with this address, whatever its case. */
    findByEmail: (email: string): string[] => selectByEmail.all(email).map(({ userId }) => userId),
    /** Inserts a user who cannot sign in. */
    insert: (row: Parameters<typeof insert.run>[0]) => void insert.run(row),
    /** Inserts the user of a subject under the given id, or updates the existing one; returns the user's id. */
    upsert(row: Parameters<typeof upsert.get>[0]): string {
      const user = upsert.get(row);
      if (user === undefined) throw new Error("An upsert returned no row");
      return user.userId;
    },
  };
}
