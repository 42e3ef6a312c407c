import type Database from "better-sqlite3";

/** What a raw database said at one moment; two of them are compared to see what a statement did. */
export interface Books {
  /** Every row of the tables that the schema guards, as text: equal if nothing changed. */
  rows: string;
  /** Every key that a row names or that is entered for removal. */
  keys: Set<string>;
  workspaces: Map<string, { usedBytes: number; quotaBytes: number }>;
}

/** Each query finds what breaks its rule, so that a sound file gives no row. Written apart from schema.sql on purpose. */
const BROKEN: Record<string, string> = {
  "BOOKS: the counter is not the sum of the ledger": `
    SELECT id FROM workspaces w
     WHERE storage_bytes_used <> (SELECT coalesce(sum(bytes), 0) FROM storage_events e WHERE e.workspace_id = w.id)`,
  "BOOKS: the counter is not the sum of the confirmed sizes": `
    SELECT id FROM workspaces w
     WHERE storage_bytes_used <> (SELECT coalesce(sum(size_bytes), 0) FROM uploads u
                                   WHERE u.workspace_id = w.id AND u.status = 'uploaded')`,
  "BOOKS: the counter is not the last balance": `
    SELECT id FROM workspaces w
     WHERE storage_bytes_used <> coalesce((SELECT balance_bytes FROM storage_events e
                                            WHERE e.workspace_id = w.id ORDER BY seq DESC LIMIT 1), 0)`,
  "BOOKS: a balance is not the sum up to it": `
    SELECT seq FROM (SELECT seq, balance_bytes, sum(bytes) OVER (PARTITION BY workspace_id ORDER BY seq) AS total
                       FROM storage_events)
     WHERE balance_bytes <> total`,
  "BOOKS: something is below zero": `
    SELECT id FROM workspaces WHERE storage_bytes_used < 0
    UNION ALL SELECT id FROM uploads WHERE size_bytes < 0
    UNION ALL SELECT seq FROM storage_events WHERE balance_bytes < 0`,
  "BOOKS: an event or a confirmed upload is of no workspace": `
    SELECT seq FROM storage_events WHERE workspace_id NOT IN (SELECT id FROM workspaces)
    UNION ALL
    SELECT id FROM uploads
     WHERE status = 'uploaded' AND (workspace_id IS NULL OR workspace_id NOT IN (SELECT id FROM workspaces))`,
  "ONCE: an upload is charged or released twice": `
    SELECT upload_id FROM storage_events WHERE upload_id IS NOT NULL GROUP BY upload_id, kind HAVING count(*) > 1`,
  "ONCE: a release without its charge": `
    SELECT upload_id FROM storage_events r
     WHERE kind = 'release'
       AND NOT EXISTS (SELECT 1 FROM storage_events c
                        WHERE c.kind = 'charge' AND c.upload_id = r.upload_id AND c.bytes = -r.bytes
                          AND c.workspace_id = r.workspace_id AND c.seq < r.seq)`,
  "ONCE: a confirmed upload without its one charge, or with a release": `
    SELECT id FROM uploads u
     WHERE status = 'uploaded'
       AND ((SELECT count(*) FROM storage_events e
              WHERE e.upload_id = u.id AND e.kind = 'charge' AND e.bytes = u.size_bytes AND e.workspace_id = u.workspace_id) <> 1
            OR EXISTS (SELECT 1 FROM storage_events e WHERE e.upload_id = u.id AND e.kind = 'release'))`,
  "ONCE: a pending upload has events": `
    SELECT id FROM uploads WHERE status <> 'uploaded' AND id IN (SELECT upload_id FROM storage_events)`,
  "ONCE: a charged upload is gone and was not released": `
    SELECT upload_id FROM storage_events c
     WHERE kind = 'charge' AND upload_id NOT IN (SELECT id FROM uploads)
       AND NOT EXISTS (SELECT 1 FROM storage_events r WHERE r.upload_id = c.upload_id AND r.kind = 'release')`,
  "ROW-FIRST: a key is named and entered": `
    SELECT object_key FROM object_removals WHERE object_key IN (SELECT object_key FROM uploads)`,
  "ROW-FIRST: a key is named or entered twice": `
    SELECT object_key FROM uploads GROUP BY object_key HAVING count(*) > 1
    UNION ALL SELECT object_key FROM object_removals GROUP BY object_key HAVING count(*) > 1`,
  "KEYS: an upload's key is not its own": `
    SELECT id FROM uploads
     WHERE object_key NOT LIKE CASE status WHEN 'pending' THEN 'staging' ELSE 'final' END
             || '/' || (SELECT id FROM installation) || '/' || id || '/________________________________'`,
  "NUMBERS: a row is numbered below one": `
    SELECT seq FROM storage_events WHERE seq < 1 UNION ALL SELECT seq FROM object_removals WHERE seq < 1`,
};

const KEY_PATTERN = /^(staging|final)\/[0-9a-f]{16}\/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\/[0-9a-f]{32}$/;

/** Takes down what a raw database says. */
export function readBooks(db: Database.Database): Books {
  const tables = [
    "installation",
    "users",
    "workspaces",
    "uploads",
    "storage_events",
    "object_removals",
    "removed_objects",
  ];
  const rows = JSON.stringify(tables.map((table) => db.prepare(`SELECT * FROM ${table} ORDER BY 1`).raw().all()));
  const keys = db
    .prepare<[], string>("SELECT object_key FROM uploads UNION SELECT object_key FROM object_removals")
    .pluck();
  const workspaces = db.prepare<[], { id: string; usedBytes: number; quotaBytes: number }>(
    "SELECT id, storage_bytes_used AS usedBytes, storage_bytes_quota AS quotaBytes FROM workspaces",
  );
  return { rows, keys: new Set(keys.all()), workspaces: new Map(workspaces.all().map((w) => [w.id, w])) };
}

/**
 * Names the invariants that a raw database breaks, each with where. `before` is what it said earlier: no key may have
 * been forgotten since (NO-ORPHAN, as long as nothing was removed from the outbox), and no counter raised above its quota.
 */
export function brokenRules(db: Database.Database, before: Books, now = readBooks(db)): string[] {
  const broken: string[] = [];
  for (const [rule, sql] of Object.entries(BROKEN)) {
    const found = db.prepare(sql).pluck().all();
    if (found.length > 0) broken.push(`${rule}: ${found.join(", ")}`);
  }
  for (const key of before.keys)
    if (!now.keys.has(key)) broken.push(`NO-ORPHAN: nothing knows the key any more: ${key}`);
  for (const key of now.keys) if (!KEY_PATTERN.test(key)) broken.push(`KEYS: not of the form: ${JSON.stringify(key)}`);
  for (const [id, { usedBytes, quotaBytes }] of now.workspaces) {
    const was = before.workspaces.get(id) ?? { usedBytes: 0, quotaBytes };
    if (usedBytes > was.usedBytes && usedBytes > Math.max(quotaBytes, was.quotaBytes)) {
      broken.push(`BOOKS: charged above the quota: ${id}`);
    }
  }
  for (const id of before.workspaces.keys())
    if (!now.workspaces.has(id)) broken.push(`BOOKS: a workspace is gone: ${id}`);
  return broken;
}
