import Database from "better-sqlite3";
import type { Db } from "../lib/db/db.ts";

/** How SQLite carries out one statement: its steps, one a line. */
export interface QueryPlan {
  sql: string;
  steps: string;
}

/**
 * The plans of all statements that a core module prepares, asked of a connection of its own. `make` gets a database that
 * only takes note of what is prepared.
 */
export function queryPlans(databasePath: string, make: (db: Db) => unknown): QueryPlan[] {
  const sqlite = new Database(databasePath, { readonly: true });
  try {
    const prepared: string[] = [];
    const db: Db = {
      prepare: (sql) => {
        prepared.push(sql);
        return sqlite.prepare(sql);
      },
      write: () => Promise.reject(new TypeError("Nothing is written here")),
      writeStatement: () => Promise.reject(new TypeError("Nothing is written here")),
      checkFreeSpace: () => {},
      logFigures: () => ({ logBytes: 0, heldUpMs: 0 }),
      close: async () => {},
    };
    make(db);
    return prepared.map((sql) => {
      // A plan must not depend on the parameters, but each has to have a value.
      const named = Object.fromEntries([...sql.matchAll(/:(\w+)/g)].map((match) => [match[1] ?? "", 1]));
      const places = Array.from({ length: sql.split("?").length - 1 }, () => 1);
      const explain = sqlite.prepare<unknown[], { detail: string }>(`EXPLAIN QUERY PLAN ${sql}`);
      const steps = Object.keys(named).length > 0 ? explain.all(named) : explain.all(...places);
      return { sql, steps: steps.map(({ detail }) => detail).join("\n") };
    });
  } finally {
    sqlite.close();
  }
}
