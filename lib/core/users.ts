import type { Session } from "../auth/sessions.ts";
import type { Db } from "../db/db.ts";
import { newId } from "../ids.ts";

/** Users of whom it is remembered which token spoke of them last. */
const TOKENS_HELD_MAX = 10_000;

export interface User {
  userId: string;
  email: string | null;
  name: string | null;
}

export type Users = ReturnType<typeof createUsers>;

/** People, as far as their sessions have told of them. Signing up is the identity provider's matter. */
export function createUsers(db: Db, now: () => number) {
  const selectBySubject = db.prepare<[string], User>(`
    SELECT id AS userId, email, name FROM users WHERE external_id = ?`);
  // One statement, so that a person whose first requests come at once, or at two processes, is one user.
  const upsert = db.prepare<
    { userId: string; subject: string; email: string | null; name: string | null; nowMs: number },
    { userId: string }
  >(`
    INSERT INTO users (id, external_id, email, name, created_at_ms)
    VALUES (:userId, :subject, :email, :name, :nowMs)
    ON CONFLICT (external_id) WHERE external_id IS NOT NULL
    DO UPDATE SET email = coalesce(excluded.email, email), name = coalesce(excluded.name, name)
    RETURNING id AS userId`);

  /** The end of the newest token that each user came with: an older token must not bring an older address back. */
  const newestEndByUser = new Map<string, number>();

  /**
   * The user that a session stands for; the first sight of one makes the user. A new address or name is written beside the
   * request, which does not wait for it: what fails is written with one of the next. Throws `insufficient_storage` for someone new.
   */
  async function ofSession(session: Session): Promise<string> {
    const known = selectBySubject.get(session.subject);
    if (known === undefined) {
      db.checkFreeSpace();
      return write(session);
    }
    if (isNews(session, known)) void write(session).catch(() => {});
    return known.userId;
  }

  function isNews({ email, name, expiresAtMs }: Session, known: User): boolean {
    const isSame = (email ?? known.email) === known.email && (name ?? known.name) === known.name;
    const isOlder = expiresAtMs < (newestEndByUser.get(known.userId) ?? 0);
    if (!isOlder) {
      if (newestEndByUser.size >= TOKENS_HELD_MAX) newestEndByUser.clear();
      newestEndByUser.set(known.userId, expiresAtMs);
    }
    return !isSame && !isOlder;
  }

  function write({ subject, email, name }: Session): Promise<string> {
    return db.writeStatement(() => {
      const row = upsert.get({ userId: newId(), subject, email, name, nowMs: now() });
      if (row === undefined) throw new Error("An upsert returned no row");
      return row.userId;
    });
  }

  return { ofSession };
}
