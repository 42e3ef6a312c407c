// The ceiling of a whole life: what Node and SQLite could do at best with the same schema and the same promises. Bare
// node:http; the books' statements and small objects in a second file, both grouped, synchronous=FULL; confirm renames the
// object's key. No authentication, validation, signature, log, lease or outbox worker.
//
// Arguments: the database file, and the file of objects to make. Prints its URL.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import Database from "better-sqlite3";
import { newObjectKey } from "../../lib/books/object_keys.ts";
import { newId } from "../../lib/ids.ts";

const FAR_MS = 86_400_000;
/** The same limit as the service's, so that neither is spared a checkpoint that the other makes. */
const CHECKPOINT_PAGES = 8_192;
const CHECKPOINT_LOOK_MS = 20;

const [booksPath = "", objectsPath = ""] = process.argv.slice(2);
const books = open(booksPath);
const objects = open(objectsPath);
objects.exec(`
  CREATE TABLE objects (object_key TEXT NOT NULL PRIMARY KEY, body_id INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE bodies (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT`);
const installation = String(books.prepare("SELECT id FROM installation").pluck().get());
const userId = String(books.prepare("SELECT id FROM users LIMIT 1").pluck().get());

const insertUpload = books.prepare(`
  INSERT INTO uploads (id, user_id, workspace_id, filename, category, content_type, format, status, object_key,
                       url_expires_at_ms, expires_at_ms, created_at_ms, updated_at_ms)
  VALUES (?, ?, ?, 'file.bin', 'file', 'application/octet-stream', NULL, 'pending', ?, ?, ?, ?, ?)`);
const selectKey = books.prepare<[string], string>("SELECT object_key FROM uploads WHERE id = ?").pluck();
const confirmUpload = books.prepare(`
  UPDATE uploads SET status = 'uploaded', object_key = ?, size_bytes = ?, etag = 'etag', context_type = 'workspace', context_id = ?
   WHERE id = ? AND status = 'pending' RETURNING *`);
const deleteUpload = books
  .prepare<[string, string], string>("DELETE FROM uploads WHERE id = ? AND workspace_id = ? RETURNING object_key")
  .pluck();
const insertBody = objects.prepare("INSERT INTO bodies (bytes) VALUES (?)");
const insertObject = objects.prepare("INSERT OR REPLACE INTO objects VALUES (?, ?)");
const renameObject = objects.prepare("UPDATE objects SET object_key = ? WHERE object_key = ?");
const deleteObject = objects
  .prepare<[string], number>("DELETE FROM objects WHERE object_key = ? RETURNING body_id")
  .pluck();
const deleteBody = objects.prepare("DELETE FROM bodies WHERE id = ?");

const writeBooks = groupCommit(books);
const writeObjects = groupCommit(objects);

function open(path: string): Database.Database {
  const db = new Database(path, { timeout: 5_000 });
  for (const pragma of ["journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "wal_autocheckpoint = 0"]) {
    db.pragma(pragma);
  }
  return db;
}

/** Runs bodies in groups: all of one turn of the event loop in one transaction. */
function groupCommit(db: Database.Database): <T>(body: () => T, done: (result: T) => void) => void {
  const begin = db.prepare("BEGIN IMMEDIATE");
  const commit = db.prepare("COMMIT");
  let queue: (() => () => void)[] = [];
  let lastLookMs = 0;

  function flush(): void {
    const group = queue;
    queue = [];
    begin.run();
    const ends = group.map((run) => run());
    commit.run();
    for (const end of ends) end();
    const nowMs = performance.now();
    if (nowMs - lastLookMs < CHECKPOINT_LOOK_MS) return;
    lastLookMs = nowMs;
    setImmediate(() => {
      const [state] = db.pragma("wal_checkpoint(NOOP)") as [{ log: number; checkpointed: number }];
      if (state.log - state.checkpointed >= CHECKPOINT_PAGES) db.pragma("wal_checkpoint(PASSIVE)");
    });
  }

  return (body, done) => {
    const isFirst = queue.length === 0;
    queue.push(() => {
      const result = body();
      return () => done(result);
    });
    if (isFirst) setImmediate(flush);
  };
}

/** `POST /uploads/<workspace>` */
function create(res: ServerResponse, workspaceId: string): void {
  const nowMs = Date.now();
  const id = newId();
  const key = newObjectKey("staging", installation, id);
  writeBooks(
    () => insertUpload.run(id, userId, workspaceId, key, nowMs + FAR_MS, nowMs + FAR_MS, nowMs, nowMs),
    () => send(res, 201, JSON.stringify({ id })),
  );
}

/** `PUT /objects/<id>` */
function put(res: ServerResponse, id: string, bytes: Buffer): void {
  const key = selectKey.get(id);
  if (key === undefined) return send(res, 404, "{}");
  writeObjects(
    () => insertObject.run(key, insertBody.run(bytes).lastInsertRowid),
    () => send(res, 200, "{}"),
  );
}

/** `POST /uploads/<workspace>/<id>` */
function confirm(res: ServerResponse, workspaceId: string, id: string): void {
  const key = selectKey.get(id);
  if (key === undefined) return send(res, 404, "{}");
  const finalKey = newObjectKey("final", installation, id);
  writeObjects(
    () => renameObject.run(finalKey, key),
    () =>
      writeBooks(
        () => confirmUpload.get(finalKey, 1_024, workspaceId, id),
        (row) => send(res, row === undefined ? 404 : 200, JSON.stringify(row)),
      ),
  );
}

/** `DELETE /uploads/<workspace>/<id>` */
function remove(res: ServerResponse, workspaceId: string, id: string): void {
  writeBooks(
    () => deleteUpload.get(id, workspaceId),
    (key) => {
      send(res, key === undefined ? 404 : 200, "{}");
      if (key === undefined) return;
      writeObjects(
        () => deleteBody.run(deleteObject.get(key)),
        () => {},
      );
    },
  );
}

function send(res: ServerResponse, status: number, text: string): void {
  res.writeHead(status, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(text) });
  res.end(text);
}

function readBody(req: IncomingMessage, done: (bytes: Buffer) => void): void {
  const chunks: Buffer[] = [];
  req.on("data", (chunk: Buffer) => chunks.push(chunk));
  req.on("end", () => done(Buffer.concat(chunks)));
}

const server = createServer((req, res) => {
  const [, , first = "", second = ""] = (req.url ?? "").split("/");
  if (req.method === "DELETE") remove(res, first, second);
  else {
    readBody(req, (bytes) => {
      if (req.method === "PUT") put(res, first, bytes);
      else if (second === "") create(res, first);
      else confirm(res, first, second);
    });
  }
});
server.listen(0, "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
});
process.on("SIGTERM", () => {
  server.close();
  server.closeAllConnections();
  books.close();
  objects.close();
});
