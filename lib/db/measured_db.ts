import type { Db } from "./db.ts";

/** The database as one part of the program uses it. */
export interface MeasuredDb extends Db {
  /** How long the bodies of that part's writes have taken by now, in milliseconds: not how long they waited for their turn. */
  workedMs: () => number;
}

/** The same database, which also adds up the time that is spent in the bodies of the writes that come by this way. */
export function measuredDb(db: Db): MeasuredDb {
  let workedMs = 0;

  function timed<T>(body: () => T): () => T {
    return () => {
      const startedMs = performance.now();
      try {
        return body();
      } finally {
        workedMs += performance.now() - startedMs;
      }
    };
  }

  return {
    ...db,
    write: (body) => db.write(timed(body)),
    writeStatement: (body) => db.writeStatement(timed(body)),
    workedMs: () => workedMs,
  };
}
