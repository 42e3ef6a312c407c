import { newId } from "../../ids.ts";
import type { Session, Users } from "../users.ts";
import type { Db } from "./db/db.ts";
import type { User, UserRows } from "./user_rows.ts";

/** Users whose newest token is remembered, by its expiry. */
const TOKENS_HELD_MAX = 10_000;

export function createUsers(db: Db, { users, now }: { users: UserRows; now: () => number }): Users {
  /** When the newest token of each user expires: an older token must not bring an older address back. */
  const newestExpiryByUser = new Map<string, number>();

  async function findOrCreate(session: Session): Promise<string> {
    const known = users.findBySubject(session.subject);
    if (known === undefined) {
      db.checkFreeSpace();
      return write(session);
    }
    // Not awaited. If it fails, the next request of the user brings the same news.
    if (isNews(session, known)) void write(session).catch(() => {});
    return known.userId;
  }

  function isNews({ email, name, expiresAtMs }: Session, known: User): boolean {
    const isSame = (email ?? known.email) === known.email && (name ?? known.name) === known.name;
    const isOlder = expiresAtMs < (newestExpiryByUser.get(known.userId) ?? 0);
    if (!isOlder) {
      if (newestExpiryByUser.size >= TOKENS_HELD_MAX) newestExpiryByUser.clear();
      newestExpiryByUser.set(known.userId, expiresAtMs);
    }
    return !isSame && !isOlder;
  }

  function write({ subject, email, name }: Session): Promise<string> {
    return db.writeStatement(() => users.upsert({ userId: newId(), subject, email, name, nowMs: now() }));
  }

  return { findOrCreate };
}
