import { randomUUID } from "node:crypto";
import type { TestApp } from "./_app.ts";

/** Enters so many objects for removal that are not there. */
export function enterRemovals({ app, sql }: Pick<TestApp, "app" | "sql">, count: number): void {
  const prefix = `final/${app.core.workspaces.installationId()}`;
  const insert = sql.prepare(`
    INSERT INTO object_removals (object_key, upload_id, entered_at_ms, due_at_ms) VALUES (?, ?, 0, 0)`);
  sql.transaction(() => {
    for (let i = 0; i < count; i++) {
      const id = randomUUID();
      insert.run(`${prefix}/${id}/${id.replaceAll("-", "")}`, id);
    }
  })();
}
