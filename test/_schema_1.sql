-- The books are kept here, by the schema itself: no code path, command or hand-typed statement can make a workspace's
-- counter drift, charge an upload twice, or forget an object. Each rule is a BEFORE trigger that aborts, because a CHECK
-- is not enough: UPDATE OR IGNORE steps over one inside a trigger, and REPLACE deletes without firing a delete trigger.
-- For the same reason the guarded tables have no UNIQUE column that a REPLACE could use to displace a row unseen: where
-- one is needed, a trigger refuses the duplicate before the index is asked.
--
-- The rules have names, used in comments and tests everywhere:
--   BOOKS      storage_bytes_used = the sum of storage_events = the sum of the confirmed uploads' size_bytes
--   ONCE       an upload is charged at most once and released at most once
--   ROW-FIRST  an object is removed only after the row that named it is gone, and never while a row names it
--   NO-ORPHAN  every object has a row that names it or an entry in object_removals
--
-- Times are integer milliseconds UTC (_at_ms), sizes integer bytes. Nothing here is newer than SQLite 3.37, and no
-- function is ours, so that any sqlite3 can be used on the file.
--
-- The triggers do not rely on CHECKs (PRAGMA ignore_check_constraints switches those off), nor on UPDATE OF for a column
-- that has a second name (rowid), nor on OLD where another's TEMP trigger may have changed the row meanwhile. What no
-- schema can withstand is a trigger of one's own that says RAISE(IGNORE) or RAISE(FAIL) after a change, or that changes a
-- table from inside one of our triggers on it (without recursive triggers): it silences ours, as dropping them would.

-- One row, made with the file. Its id is part of every object key: two installations can share a bucket.
CREATE TABLE installation (
  only_row        INTEGER PRIMARY KEY CHECK (only_row = 1),
  id              TEXT NOT NULL,
  created_at_ms   INTEGER NOT NULL,
  -- Written by the readiness probe: the one honest way to know that the file can be written.
  probed_at_ms    INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO installation (only_row, id, created_at_ms)
VALUES (1, lower(hex(randomblob(8))), CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER));

CREATE TABLE users (
  id              TEXT PRIMARY KEY CHECK (length(id) = 36),
  -- The identity provider's own id of this person; NULL for a user that was made here.
  external_id     TEXT,
  email           TEXT,
  name            TEXT,
  created_at_ms   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX users_by_external_id ON users (external_id) WHERE external_id IS NOT NULL;
-- Not unique: the identity provider may give one person's former address to another.
CREATE INDEX users_by_email ON users (lower(email)) WHERE email IS NOT NULL;

CREATE TABLE workspaces (
  id                    TEXT PRIMARY KEY CHECK (length(id) = 36),
  name                  TEXT NOT NULL,
  -- One workspace's alone as long as it is not deleted. The triggers below see to it: the index is not unique, so that
  -- there is nothing that a REPLACE could displace.
  slug                  TEXT NOT NULL CHECK (length(slug) BETWEEN 1 AND 50),
  color_idx             INTEGER NOT NULL DEFAULT 0 CHECK (color_idx BETWEEN 0 AND 6),
  -- Kept for clients that show them; nothing here is routed.
  routing_price_sensitivity REAL NOT NULL DEFAULT 0.5 CHECK (routing_price_sensitivity BETWEEN 0.0 AND 1.0),
  routing_llm_fit       INTEGER NOT NULL DEFAULT 0 CHECK (routing_llm_fit IN (0, 1)),
  -- Its owner: who made it.
  created_by            TEXT NOT NULL REFERENCES users (id),
  storage_bytes_used    INTEGER NOT NULL DEFAULT 0 CHECK (storage_bytes_used >= 0),
  -- May be set below what is used: then only charges are refused. So no CHECK relates the two.
  storage_bytes_quota   INTEGER NOT NULL CHECK (storage_bytes_quota BETWEEN 0 AND 9007199254740991),
  created_at_ms         INTEGER NOT NULL,
  updated_at_ms         INTEGER NOT NULL,
  -- Set first when a workspace is deleted: every key and every charge is refused from then on. The row stays for the ledger.
  deleted_at_ms         INTEGER,
  -- When the last upload of a deleted workspace was removed. Until then the row is the cleaner's work item.
  emptied_at_ms         INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX workspaces_by_slug ON workspaces (slug) WHERE deleted_at_ms IS NULL;
CREATE INDEX workspaces_by_owner ON workspaces (created_by);
-- Restored by hand and deleted once more, it is to be emptied once more.
CREATE INDEX workspaces_to_empty ON workspaces (deleted_at_ms)
 WHERE deleted_at_ms IS NOT NULL AND coalesce(emptied_at_ms < deleted_at_ms, 1);

CREATE TABLE memberships (
  workspace_id    TEXT NOT NULL REFERENCES workspaces (id),
  user_id         TEXT NOT NULL REFERENCES users (id),
  role            TEXT NOT NULL CHECK (role IN ('admin', 'editor', 'viewer')),
  created_at_ms   INTEGER NOT NULL,
  PRIMARY KEY (workspace_id, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX memberships_by_user ON memberships (user_id, workspace_id);

CREATE TABLE api_keys (
  id                TEXT PRIMARY KEY CHECK (length(id) = 36),
  workspace_id      TEXT NOT NULL REFERENCES workspaces (id),
  user_id           TEXT NOT NULL REFERENCES users (id),
  name              TEXT NOT NULL,
  -- SHA-256 of the key in lower-case hex. The key itself is shown once and kept nowhere.
  key_sha256        TEXT NOT NULL CHECK (length(key_sha256) = 64),
  -- The last four characters, so that a person can tell keys apart in a list.
  key_suffix        TEXT NOT NULL,
  scopes_json       TEXT NOT NULL,
  -- NULL: the setting's; 0: any number of requests.
  rate_limit_per_min INTEGER CHECK (rate_limit_per_min >= 0),
  created_at_ms     INTEGER NOT NULL,
  expires_at_ms     INTEGER,
  revoked_at_ms     INTEGER,
  -- Written lazily, a minute or so behind.
  last_used_at_ms   INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX api_keys_by_sha256 ON api_keys (key_sha256);
CREATE INDEX api_keys_by_workspace ON api_keys (workspace_id, id);

-- What an upload is bound to when it is confirmed: a workflow or an assistant session. (The context types "playground"
-- and "workspace" are the workspace itself and have no row here.)
CREATE TABLE contexts (
  id                TEXT PRIMARY KEY CHECK (length(id) = 36),
  type              TEXT NOT NULL CHECK (type IN ('workflow', 'assistant_session')),
  workspace_id      TEXT NOT NULL REFERENCES workspaces (id),
  user_id           TEXT NOT NULL REFERENCES users (id),
  name              TEXT NOT NULL,
  name_source       TEXT NOT NULL CHECK (name_source IN ('placeholder', 'generated', 'user')),
  description       TEXT,
  definition_json   TEXT NOT NULL,
  created_at_ms     INTEGER NOT NULL,
  updated_at_ms     INTEGER NOT NULL,
  deleted_at_ms     INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX contexts_by_workspace ON contexts (workspace_id, type, updated_at_ms, id) WHERE deleted_at_ms IS NULL;

-- A key has the form  staging|final / <installation> / <upload id> / <32 hex digits>.  It names its upload by its form, so
-- "one key, one upload" holds in both directions without an index.
CREATE TABLE uploads (
  id                  TEXT PRIMARY KEY CHECK (length(id) = 36),
  user_id             TEXT NOT NULL REFERENCES users (id),
  workspace_id        TEXT REFERENCES workspaces (id),
  filename            TEXT NOT NULL,
  category            TEXT NOT NULL,
  content_type        TEXT NOT NULL,
  format              TEXT,
  status              TEXT NOT NULL CHECK (status IN ('pending', 'uploaded')),
  -- What the caller said at create; the signed URL is then good for exactly this length.
  stated_size_bytes   INTEGER,
  -- What the store reported for the object that was charged; never a client's figure.
  size_bytes          INTEGER CHECK (size_bytes BETWEEN 0 AND 9007199254740991),
  etag                TEXT,
  char_count          INTEGER,
  line_count          INTEGER,
  context_type        TEXT,
  context_id          TEXT,
  object_key          TEXT NOT NULL,
  url_expires_at_ms   INTEGER NOT NULL,
  -- When a pending row is given up. A confirm raises it beyond its own lease.
  expires_at_ms       INTEGER NOT NULL,
  created_at_ms       INTEGER NOT NULL,
  -- Of a confirmed row the time of its confirm: nothing changes it later.
  updated_at_ms       INTEGER NOT NULL,
  CHECK ((status = 'uploaded') = (size_bytes IS NOT NULL)),
  CHECK (status = 'pending' OR workspace_id IS NOT NULL)
) STRICT, WITHOUT ROWID;
CREATE INDEX uploads_by_workspace ON uploads (workspace_id, id);
CREATE INDEX uploads_by_context ON uploads (context_id, id) WHERE context_id IS NOT NULL;
-- With the stated size, so that the usage figures need no row.
CREATE INDEX uploads_pending_by_owner ON uploads (workspace_id, user_id, stated_size_bytes) WHERE status = 'pending';
CREATE INDEX uploads_pending_by_expiry ON uploads (expires_at_ms) WHERE status = 'pending';
-- The usage figures of scripts, by the time of their confirm, without a look at a row.
CREATE INDEX uploads_scripts_by_confirm ON uploads (workspace_id, updated_at_ms, char_count, line_count)
 WHERE status = 'uploaded' AND char_count IS NOT NULL;

-- What requests with an Idempotency-Key have done, so that they can be repeated for a day. A row is made with what it tells
-- of, in one transaction. No URL is kept: it is signed anew.
CREATE TABLE idempotency_keys (
  -- An API key's id, or for sessions a user's.
  caller_id         TEXT NOT NULL,
  idempotency_key   TEXT NOT NULL CHECK (length(idempotency_key) BETWEEN 1 AND 255),
  -- Of method, path, selected workspace and body.
  request_sha256    TEXT NOT NULL CHECK (length(request_sha256) = 64),
  status            INTEGER NOT NULL,
  upload_id         TEXT NOT NULL,
  -- Of a create: a confirmed upload's row no longer names it, and the URL must be the same as long as it is good.
  staging_key       TEXT,
  expires_at_ms     INTEGER NOT NULL,
  PRIMARY KEY (caller_id, idempotency_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at_ms);

-- The ledger: append-only, in the order of seq, never of time.
CREATE TABLE storage_events (
  seq             INTEGER PRIMARY KEY CHECK (seq > 0),
  workspace_id    TEXT NOT NULL REFERENCES workspaces (id),
  upload_id       TEXT,
  kind            TEXT NOT NULL CHECK (kind IN ('charge', 'release', 'adjust')),
  bytes           INTEGER NOT NULL,
  balance_bytes   INTEGER NOT NULL CHECK (balance_bytes >= 0),
  at_ms           INTEGER NOT NULL,
  CHECK ((kind = 'adjust') = (upload_id IS NULL))
) STRICT;
-- With the kind, so that one kind is found without a look at the others' rows.
CREATE INDEX storage_events_by_workspace ON storage_events (workspace_id, seq, kind);
CREATE UNIQUE INDEX storage_events_once ON storage_events (upload_id, kind) WHERE upload_id IS NOT NULL;

-- The outbox: objects that no row names and that the cleaner is to remove.
CREATE TABLE object_removals (
  seq             INTEGER PRIMARY KEY CHECK (seq > 0),
  object_key      TEXT NOT NULL UNIQUE,
  upload_id       TEXT NOT NULL,
  size_bytes      INTEGER,
  entered_at_ms   INTEGER NOT NULL,
  -- 0 is "at once". A confirm enters its final key with a time after its copy must have ended: its lease.
  due_at_ms       INTEGER NOT NULL,
  -- Where something may still land under the key after the removal (a PUT that began in time, a copy without an answer),
  -- the key is removed a second time at this moment.
  again_at_ms     INTEGER,
  -- Set, durably, before the store is called. A confirm whose lease was taken fails, instead of charging an object that goes.
  taken_at_ms     INTEGER,
  attempts        INTEGER NOT NULL DEFAULT 0,
  last_error      TEXT
) STRICT;
CREATE INDEX object_removals_by_due ON object_removals (due_at_ms) WHERE taken_at_ms IS NULL;

-- workspaces ----------------------------------------------------------------------------------------------------------

CREATE TRIGGER workspaces_start_empty BEFORE INSERT ON workspaces
 WHEN NEW.storage_bytes_used IS NOT 0
   OR EXISTS (SELECT 1 FROM workspaces WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'a workspace starts empty, once'); END;

CREATE TRIGGER workspaces_keep_id BEFORE UPDATE OF id ON workspaces
 WHEN NEW.id IS NOT OLD.id
BEGIN SELECT RAISE(ABORT, 'a workspace keeps its id'); END;

CREATE TRIGGER workspaces_counter_follows_ledger BEFORE UPDATE OF storage_bytes_used ON workspaces
 WHEN NEW.storage_bytes_used IS NOT coalesce(
        (SELECT balance_bytes FROM storage_events WHERE workspace_id = NEW.id ORDER BY seq DESC LIMIT 1), 0)
BEGIN SELECT RAISE(ABORT, 'the counter follows the ledger'); END;

CREATE TRIGGER workspaces_start_with_free_slug BEFORE INSERT ON workspaces
 WHEN NEW.deleted_at_ms IS NULL
  AND EXISTS (SELECT 1 FROM workspaces WHERE slug = NEW.slug AND deleted_at_ms IS NULL)
BEGIN SELECT RAISE(ABORT, 'another workspace has that slug'); END;

CREATE TRIGGER workspaces_take_free_slug BEFORE UPDATE OF slug, deleted_at_ms ON workspaces
 WHEN NEW.deleted_at_ms IS NULL
  AND EXISTS (SELECT 1 FROM workspaces WHERE slug = NEW.slug AND deleted_at_ms IS NULL AND id IS NOT NEW.id)
BEGIN SELECT RAISE(ABORT, 'another workspace has that slug'); END;

CREATE TRIGGER workspaces_stay BEFORE DELETE ON workspaces
BEGIN SELECT RAISE(ABORT, 'a workspace stays for its ledger: set deleted_at_ms instead'); END;

-- uploads -------------------------------------------------------------------------------------------------------------

-- The id is part of the key: a slash, a dot or a NUL in it would make the key another's name on disk. (trim, because
-- length and GLOB stop at a NUL.)
CREATE TRIGGER uploads_start_pending BEFORE INSERT ON uploads
 WHEN NEW.status IS NOT 'pending'
   OR length(NEW.id) IS NOT 36 OR trim(NEW.id, '0123456789abcdef-') IS NOT ''
   OR EXISTS (SELECT 1 FROM uploads WHERE id = NEW.id)
   OR EXISTS (SELECT 1 FROM storage_events WHERE upload_id = NEW.id)
   OR NEW.object_key IS NOT 'staging/' || (SELECT id FROM installation) || '/' || NEW.id || '/' || substr(NEW.object_key, -32)
   OR substr(NEW.object_key, -32) GLOB '*[^0-9a-f]*'
   OR EXISTS (SELECT 1 FROM object_removals WHERE object_key = NEW.object_key)
BEGIN SELECT RAISE(ABORT, 'an upload starts as pending, once, with a staging key of its own'); END;

-- Whoever asked just before the workspace was deleted would otherwise leave a row behind that the cleaner has passed already.
CREATE TRIGGER uploads_start_in_no_deleted_workspace BEFORE INSERT ON uploads
 WHEN (SELECT deleted_at_ms FROM workspaces WHERE id = NEW.workspace_id) IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'a deleted workspace takes no uploads'); END;

-- The only step there is, pending to uploaded, may change key, size, ETag, workspace and status; nothing else may.
CREATE TRIGGER uploads_change_at_confirm_only BEFORE UPDATE OF id, status, size_bytes, etag, workspace_id, object_key ON uploads
 WHEN NEW.id IS NOT OLD.id
   OR NEW.status IS OLD.status
      AND (NEW.size_bytes IS NOT OLD.size_bytes OR NEW.etag IS NOT OLD.etag
           OR NEW.workspace_id IS NOT OLD.workspace_id OR NEW.object_key IS NOT OLD.object_key)
   OR NEW.status IS NOT OLD.status
      AND (OLD.status IS NOT 'pending' OR NEW.status IS NOT 'uploaded'
           OR coalesce(NEW.size_bytes NOT BETWEEN 0 AND 9007199254740991, 1)
           OR OLD.workspace_id IS NOT NULL AND NEW.workspace_id IS NOT OLD.workspace_id)
   OR NOT EXISTS (SELECT 1 FROM uploads WHERE id = OLD.id AND object_key = OLD.object_key)
BEGIN SELECT RAISE(ABORT, 'id, key, size, workspace and status of an upload change at its confirm only'); END;

CREATE TRIGGER uploads_confirm_takes_free_final_key BEFORE UPDATE OF status ON uploads
 WHEN OLD.status = 'pending' AND NEW.status = 'uploaded'
  AND (NEW.object_key IS NOT 'final/' || (SELECT id FROM installation) || '/' || NEW.id || '/' || substr(NEW.object_key, -32)
       OR substr(NEW.object_key, -32) GLOB '*[^0-9a-f]*'
       OR EXISTS (SELECT 1 FROM object_removals WHERE object_key = NEW.object_key))
BEGIN SELECT RAISE(ABORT, 'a confirmed upload names a final key of its own that is not to be removed'); END;

-- The gate. Equality passes. An unknown or deleted workspace takes nothing.
CREATE TRIGGER uploads_gate BEFORE UPDATE OF status ON uploads
 WHEN OLD.status = 'pending' AND NEW.status = 'uploaded'
  AND coalesce((SELECT storage_bytes_used + NEW.size_bytes > storage_bytes_quota OR deleted_at_ms IS NOT NULL
                  FROM workspaces WHERE id = NEW.workspace_id), 1)
BEGIN SELECT RAISE(ABORT, 'storage_limit_exceeded'); END;

CREATE TRIGGER uploads_charge AFTER UPDATE OF status ON uploads
 WHEN OLD.status = 'pending' AND NEW.status = 'uploaded'
BEGIN
  INSERT INTO storage_events (workspace_id, upload_id, kind, bytes, balance_bytes, at_ms)
  SELECT id, NEW.id, 'charge', NEW.size_bytes, storage_bytes_used + NEW.size_bytes, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)
    FROM workspaces WHERE id = NEW.workspace_id;
  -- UPDATE OR IGNORE reaches into this trigger: an insert that it skipped must not pass unseen.
  SELECT RAISE(ABORT, 'a confirm books its charge') WHERE changes() IS NOT 1;
  -- The staging object goes now, and once more when its URL has expired: a PUT may have begun before.
  INSERT INTO object_removals (object_key, upload_id, size_bytes, entered_at_ms, due_at_ms, again_at_ms)
  VALUES (OLD.object_key, OLD.id, NEW.size_bytes, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER), 0, OLD.url_expires_at_ms);
  SELECT RAISE(ABORT, 'a confirm gives up its staging key') WHERE changes() IS NOT 1;
END;

CREATE TRIGGER uploads_release AFTER DELETE ON uploads
BEGIN
  INSERT INTO storage_events (workspace_id, upload_id, kind, bytes, balance_bytes, at_ms)
  SELECT id, OLD.id, 'release', -OLD.size_bytes, storage_bytes_used - OLD.size_bytes, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)
    FROM workspaces WHERE id = OLD.workspace_id AND OLD.status = 'uploaded';
  SELECT RAISE(ABORT, 'a delete books its release') WHERE changes() IS NOT (OLD.status = 'uploaded');
  INSERT INTO object_removals (object_key, upload_id, size_bytes, entered_at_ms, due_at_ms, again_at_ms)
  VALUES (OLD.object_key, OLD.id, OLD.size_bytes, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER), 0,
          CASE OLD.status WHEN 'pending' THEN OLD.url_expires_at_ms END);
  SELECT RAISE(ABORT, 'a delete gives up its key') WHERE changes() IS NOT 1;
END;

-- storage_events ------------------------------------------------------------------------------------------------------

-- It books only what happened. (seq is -1 here when it was left out: the next one is then chosen by SQLite.)
CREATE TRIGGER storage_events_book_what_happened BEFORE INSERT ON storage_events
 WHEN NEW.balance_bytes IS NOT (SELECT storage_bytes_used FROM workspaces WHERE id = NEW.workspace_id) + NEW.bytes
   OR NEW.seq IS NOT -1 AND NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM storage_events)
   OR EXISTS (SELECT 1 FROM storage_events WHERE upload_id = NEW.upload_id AND kind = NEW.kind)
   OR CASE NEW.kind
        WHEN 'charge' THEN NOT EXISTS (SELECT 1 FROM uploads WHERE id = NEW.upload_id AND status = 'uploaded'
                                          AND size_bytes = NEW.bytes AND workspace_id = NEW.workspace_id)
        WHEN 'release' THEN EXISTS (SELECT 1 FROM uploads WHERE id = NEW.upload_id)
             OR NOT EXISTS (SELECT 1 FROM storage_events WHERE upload_id = NEW.upload_id AND kind = 'charge'
                               AND bytes = -NEW.bytes AND workspace_id = NEW.workspace_id)
        WHEN 'adjust' THEN NEW.upload_id IS NOT NULL
             OR NEW.balance_bytes IS NOT (SELECT coalesce(sum(size_bytes), 0) FROM uploads
                                           WHERE workspace_id = NEW.workspace_id AND status = 'uploaded')
        ELSE 1 END
BEGIN SELECT RAISE(ABORT, 'the ledger books what happened, once'); END;

CREATE TRIGGER storage_events_move_counter AFTER INSERT ON storage_events
BEGIN
  UPDATE workspaces SET storage_bytes_used = NEW.balance_bytes WHERE id = NEW.workspace_id;
  -- A seq of -1 was left out, or was meant: only now the two can be told apart.
  SELECT RAISE(ABORT, 'the ledger is numbered from 1 and moves the counter') WHERE changes() IS NOT 1 OR NEW.seq < 1;
END;

CREATE TRIGGER storage_events_never_change BEFORE UPDATE ON storage_events
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

CREATE TRIGGER storage_events_never_go BEFORE DELETE ON storage_events
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

-- object_removals -----------------------------------------------------------------------------------------------------

-- Only keys of this installation can be entered: what the cleaner may remove is bounded by the schema.
CREATE TRIGGER object_removals_unreferenced BEFORE INSERT ON object_removals
 WHEN NEW.object_key IS NOT 'final/' || (SELECT id FROM installation) || '/' || NEW.upload_id || '/' || substr(NEW.object_key, -32)
      AND NEW.object_key IS NOT 'staging/' || (SELECT id FROM installation) || '/' || NEW.upload_id || '/' || substr(NEW.object_key, -32)
   OR length(NEW.upload_id) IS NOT 36 OR trim(NEW.upload_id, '0123456789abcdef-') IS NOT ''
   OR substr(NEW.object_key, -32) GLOB '*[^0-9a-f]*'
   OR EXISTS (SELECT 1 FROM uploads WHERE id = NEW.upload_id AND object_key = NEW.object_key)
   OR EXISTS (SELECT 1 FROM object_removals WHERE object_key = NEW.object_key)
   OR NEW.seq IS NOT -1 AND NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM object_removals)
BEGIN SELECT RAISE(ABORT, 'an upload names that object, or it is entered already, or it is not ours'); END;

-- With checks switched off a row numbered -1 could be stored, and REPLACE would then displace it unseen.
CREATE TRIGGER object_removals_number_from_one AFTER INSERT ON object_removals
 WHEN NEW.seq < 1
BEGIN SELECT RAISE(ABORT, 'entries are numbered from 1'); END;

-- Not UPDATE OF: seq has a second name, rowid, which would not be in the list.
CREATE TRIGGER object_removals_keep_object BEFORE UPDATE ON object_removals
 WHEN NEW.seq IS NOT OLD.seq OR NEW.object_key IS NOT OLD.object_key OR NEW.upload_id IS NOT OLD.upload_id
BEGIN SELECT RAISE(ABORT, 'an entry keeps its object'); END;

CREATE TRIGGER installation_stays BEFORE DELETE ON installation
BEGIN SELECT RAISE(ABORT, 'the installation keeps its id'); END;

CREATE TRIGGER installation_keeps_id BEFORE UPDATE ON installation
 WHEN NEW.id IS NOT OLD.id OR NEW.only_row IS NOT OLD.only_row
BEGIN SELECT RAISE(ABORT, 'the installation keeps its id'); END;

CREATE TRIGGER installation_is_one BEFORE INSERT ON installation
BEGIN SELECT RAISE(ABORT, 'the installation keeps its id'); END;
