// The ceiling: what Node and SQLite could do at best with the same file. Bare node:http, the same statements on the same
// schema, grouped, synchronous=FULL; no authentication, validation, logging, cleaner or object store.
//
// Arguments: the database file, and "grouped" or "each" (one commit per request). Prints its URL.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import Database from "better-sqlite3";
import { newObjectKey } from "../../lib/books/object_keys.ts";
import { newId } from "../../lib/ids.ts";

const FAR_MS = 86_400_000;
/** The same limit as the service's, so that neither is spared a checkpoint that the other makes. */
const CHECKPOINT_PAGES = 8_192;
const CHECKPOINT_LOOK_MS = 20;

const [path = "", mode = "grouped"] = process.argv.slice(2);
const db = new Database(path, { timeout: 5_000 });
for (const pragma of [
  "journal_mode = WAL",
  "synchronous = FULL",
  "foreign_keys = ON",
  "fullfsync = ON",
  "checkpoint_fullfsync = ON",
  "wal_autocheckpoint = 0",
]) {
  db.pragma(pragma);
}
const installation = String(db.prepare("SELECT id FROM installation").pluck().get());
const userId = String(db.prepare("SELECT id FROM users LIMIT 1").pluck().get());

const begin = db.prepare("BEGIN IMMEDIATE");
const commit = db.prepare("COMMIT");
const deleteUpload = db.prepare("DELETE FROM uploads WHERE id = ? AND workspace_id = ? RETURNING id AS uploadId");
const insertUpload = db.prepare(`
  INSERT INTO uploads (id, user_id, workspace_id, filename, category, content_type, format, status, object_key,
                       url_expires_at_ms, expires_at_ms, created_at_ms, updated_at_ms)
  VALUES (?, ?, ?, ?, ?, 'application/octet-stream', NULL, 'pending', ?, ?, ?, ?, ?)`);
const selectUpload = db.prepare("SELECT * FROM uploads WHERE id = ? AND workspace_id = ?");
const raiseExpiry = db.prepare(`
  UPDATE uploads SET expires_at_ms = max(expires_at_ms, ?) WHERE id = ? AND status = 'pending' RETURNING id`);
const insertLease = db.prepare(`
  INSERT INTO object_removals (object_key, upload_id, size_bytes, entered_at_ms, due_at_ms, again_at_ms)
  VALUES (?, ?, ?, ?, ?, ?)`);
const deleteLease = db.prepare(
  "DELETE FROM object_removals WHERE object_key = ? AND taken_at_ms IS NULL RETURNING seq",
);
const confirmUpload = db.prepare(`
  UPDATE uploads SET status = 'uploaded', workspace_id = ?, object_key = ?, size_bytes = ?, etag = ?, context_type = 'workspace',
                     context_id = ?, updated_at_ms = ?
   WHERE id = ? AND status = 'pending' RETURNING *`);

interface Write {
  body: () => unknown;
  done: (result: unknown) => void;
}
let queue: Write[] = [];
let lastLookMs = 0;

function write(body: () => unknown, done: (result: unknown) => void): void {
  if (mode === "each") {
    const result = body();
    lookAtLog();
    return done(result);
  }
  if (queue.push({ body, done }) === 1) setImmediate(flush);
}

function flush(): void {
  const group = queue;
  queue = [];
  begin.run();
  const results = group.map(({ body }) => body());
  commit.run();
  for (const [i, { done }] of group.entries()) done(results[i]);
  lookAtLog();
}

function lookAtLog(): void {
  const nowMs = performance.now();
  if (nowMs - lastLookMs < CHECKPOINT_LOOK_MS) return;
  lastLookMs = nowMs;
  setImmediate(() => {
    const [state] = db.pragma("wal_checkpoint(NOOP)") as [{ log: number; checkpointed: number }];
    if (state.log - state.checkpointed >= CHECKPOINT_PAGES) db.pragma("wal_checkpoint(PASSIVE)");
  });
}

/** `DELETE /uploads/<id>/<workspace>` */
function remove(res: ServerResponse, uploadId: string, workspaceId: string): void {
  write(
    () => deleteUpload.get(uploadId, workspaceId),
    (row) => respond(res, row === undefined ? 404 : 200, "{}"),
  );
}

/** `POST /uploads/<workspace>` */
function create(res: ServerResponse, workspaceId: string, body: { filename: string; category: string }): void {
  const nowMs = Date.now();
  const id = newId();
  const key = newObjectKey("staging", installation, id);
  const { filename, category } = body;
  write(
    () =>
      insertUpload.run(id, userId, workspaceId, filename, category, key, nowMs + FAR_MS, nowMs + FAR_MS, nowMs, nowMs),
    () => respond(res, 201, JSON.stringify({ id, key })),
  );
}

/** `POST /uploads/<workspace>/<id>`: the same two transactions as the service's, without the object between them. */
function confirm(res: ServerResponse, workspaceId: string, uploadId: string): void {
  if (selectUpload.get(uploadId, workspaceId) === undefined) return respond(res, 404, "{}");
  const nowMs = Date.now();
  const key = newObjectKey("final", installation, uploadId);
  write(
    () => {
      raiseExpiry.get(nowMs + FAR_MS, uploadId);
      insertLease.run(key, uploadId, 1000, nowMs, nowMs + FAR_MS, nowMs + FAR_MS);
    },
    () =>
      write(
        () => {
          deleteLease.get(key);
          return confirmUpload.get(workspaceId, key, 1000, "etag", workspaceId, nowMs, uploadId);
        },
        (row) => respond(res, row === undefined ? 404 : 200, JSON.stringify(row)),
      ),
  );
}

function respond(res: ServerResponse, status: number, text: string): void {
  res.writeHead(status, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(text) });
  res.end(text);
}

function readBody(req: IncomingMessage, done: (text: string) => void): void {
  let text = "";
  req.setEncoding("utf8");
  req.on("data", (chunk: string) => {
    text += chunk;
  });
  req.on("end", () => done(text));
}

const server = createServer((req, res) => {
  const [, , first = "", second = ""] = (req.url ?? "").split("/");
  if (req.method === "DELETE") remove(res, first, second);
  else if (req.method !== "POST") respond(res, 200, "{}");
  else if (second === "") readBody(req, (text) => create(res, first, JSON.parse(text)));
  else readBody(req, () => confirm(res, first, second));
});
server.listen(0, "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
});
process.on("SIGTERM", () => {
  server.close();
  server.closeAllConnections();
  db.close();
});
