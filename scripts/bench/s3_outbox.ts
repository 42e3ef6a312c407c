import { setTimeout as delay } from "node:timers/promises";
import Database from "better-sqlite3";
import { Client } from "undici";
import { newId } from "../../lib/ids.ts";

const LOOK_MS = 20;
/** Entries in one transaction. */
const BATCH_ENTRIES = 10_000;

/** An outbox that is filled from outside, as an administrator's SQL would, and watched. */
export function openOutbox(databaseFile: string) {
  const db = new Database(databaseFile, { timeout: 30_000 });
  // These entries need not survive a power loss; the service's own connection is as durable as ever.
  db.pragma("synchronous = NORMAL");
  const installation = String(db.prepare("SELECT id FROM installation").pluck().get());
  const insert = db.prepare(`
    INSERT INTO object_removals (object_key, upload_id, size_bytes, entered_at_ms, due_at_ms)
    VALUES (?, ?, 5, ?, 0)`);
  const selectOne = db.prepare("SELECT 1 FROM object_removals WHERE due_at_ms = 0 LIMIT 1").pluck();
  const selectCount = db.prepare("SELECT count(*) FROM object_removals WHERE due_at_ms = 0").pluck();
  const insertAll = db.transaction((objectKeys: readonly string[]) => {
    const nowMs = Date.now();
    for (const key of objectKeys) insert.run(key, key.split("/")[2], nowMs);
  });

  /** Keys that no row names, as the service makes them. */
  function newKeys(count: number): string[] {
    return Array.from({ length: count }, () => {
      const id = newId();
      return `final/${installation}/${id}/${id.replaceAll("-", "")}`;
    });
  }

  function enter(objectKeys: readonly string[]): void {
    for (let start = 0; start < objectKeys.length; start += BATCH_ENTRIES) {
      insertAll(objectKeys.slice(start, start + BATCH_ENTRIES));
    }
    db.pragma("wal_checkpoint(PASSIVE)");
  }

  /** Resolves when nothing is left to be removed. */
  async function untilEmpty(): Promise<void> {
    while (selectOne.get() !== undefined) await delay(LOOK_MS);
  }

  return { newKeys, enter, untilEmpty, left: () => Number(selectCount.get()), close: () => void db.close() };
}

export type Outbox = ReturnType<typeof openOutbox>;

/** Creates and deletes an upload, which makes a sleeping cleaner check for due entries. */
export async function wakeCleaner(url: string, key: string): Promise<void> {
  const client = new Client(url);
  const authorization = `Bearer ${key}`;
  try {
    const created = await client.request({
      method: "POST",
      path: "/api/v1/uploads",
      headers: { authorization, "content-type": "application/json" },
      body: JSON.stringify({ filename: "wake.bin", category: "file" }),
    });
    const { data } = (await created.body.json()) as { data: { upload: { id: string } } };
    const path = `/api/v1/uploads/${data.upload.id}`;
    const deleted = await client.request({ method: "DELETE", path, headers: { authorization } });
    await deleted.body.dump();
    if (deleted.statusCode >= 300) throw new Error(`A DELETE was answered with ${deleted.statusCode}`);
  } finally {
    await client.close();
  }
}
