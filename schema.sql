-- The schema itself keeps the books: no code path, command or hand-typed statement can make a workspace's counter drift,
-- charge an upload twice, or forget an object. Each rule is a BEFORE trigger that aborts. A CHECK is not enough: inside a
-- trigger, UPDATE OR IGNORE skips it, and REPLACE deletes rows without firing a delete trigger. For the same reason the
-- guarded tables have no UNIQUE column that a REPLACE could use to displace a row unseen: if one is needed, a trigger
-- refuses the duplicate before the index is consulted.
--
-- The rules have names, which comments and tests use everywhere:
--   BOOKS      storage_bytes_used = the sum of storage_events = the sum of the confirmed uploads' size_bytes
--   ONCE       an upload is charged at most once and released at most once
--   ROW-FIRST  an object is removed only after the row that named it is gone, and never while a row names it
--   NO-ORPHAN  every object has a row that names it or an entry in object_removals
--
-- Times are integer milliseconds UTC (_at_ms), sizes integer bytes. The schema needs nothing newer than SQLite 3.37 and no
-- functions of our own, so any sqlite3 shell can be used on the file.
--
-- A refusal that the program recognises begins with a code and a colon (see refusals.ts): SQLite has only one result code
-- for all triggers. The rest of a text is for people.
--
-- The triggers do not rely on CHECKs (PRAGMA ignore_check_constraints disables those), nor on UPDATE OF for a column that
-- has a second name (rowid), nor on OLD if a foreign TEMP trigger may have changed the row meanwhile. No schema can withstand
-- a custom trigger that says RAISE(IGNORE) or RAISE(FAIL) after a change, or that changes a table from inside one of our
-- triggers on it (without recursive triggers): that silences our triggers, as dropping them would.

-- One row, created with the file. Its id is part of every object key, so that two installations can share a bucket.
CREATE TABLE installation (
  only_row        INTEGER PRIMARY KEY CHECK (only_row = 1),
  id              TEXT NOT NULL,
  created_at_ms   INTEGER NOT NULL,
  -- Written by the readiness probe: the only reliable way to know that the file can be written.
  probed_at_ms    INTEGER NOT NULL DEFAULT 0,
  -- When the last complete scan of the store's staging objects ended.
  staging_scanned_at_ms INTEGER,
  -- When the clock was last trusted, and when it was first in doubt after that: see clock_watch.ts.
  clock_trusted_at_ms INTEGER,
  clock_doubted_at_ms INTEGER,
  -- The store that holds the objects, as JSON: see stores.ts. NULL until the first object could have been PUT there.
  store_json      TEXT,
  -- When the ledger marker was first written to that store; NULL: never. After that, a store without one is not that store.
  marker_written_at_ms INTEGER,
  -- Increased by each start of `serve` that takes the store. The marker contains it, so that two copies of one data
  -- directory notice each other.
  generation      INTEGER NOT NULL DEFAULT 0,
  -- Which SQLite log holds the newest changes, and which one the file had absorbed before it: see log_start.ts.
  log_start_json  TEXT
) STRICT;
INSERT INTO installation (only_row, id, created_at_ms)
VALUES (1, lower(hex(randomblob(8))), CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER));

CREATE TABLE users (
  id              TEXT PRIMARY KEY CHECK (length(id) = 36),
  -- The identity provider's id for this person; NULL for a user that was created here.
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
  -- Unique among workspaces that are not deleted. The triggers below ensure this: the index is not unique, so that a REPLACE
  -- cannot displace anything.
  slug                  TEXT NOT NULL CHECK (length(slug) BETWEEN 1 AND 50),
  color_idx             INTEGER NOT NULL DEFAULT 0 CHECK (color_idx BETWEEN 0 AND 6),
  -- Stored only for clients that show them; Stowage routes nothing.
  routing_price_sensitivity REAL NOT NULL DEFAULT 0.5 CHECK (routing_price_sensitivity BETWEEN 0.0 AND 1.0),
  routing_llm_fit       INTEGER NOT NULL DEFAULT 0 CHECK (routing_llm_fit IN (0, 1)),
  -- The owner: the person who created it.
  created_by            TEXT NOT NULL REFERENCES users (id),
  storage_bytes_used    INTEGER NOT NULL DEFAULT 0 CHECK (storage_bytes_used >= 0),
  -- May be set below the current usage; then only charges are refused. So no CHECK relates the two.
  storage_bytes_quota   INTEGER NOT NULL CHECK (storage_bytes_quota BETWEEN 0 AND 9007199254740991),
  created_at_ms         INTEGER NOT NULL,
  updated_at_ms         INTEGER NOT NULL,
  -- Set first when a workspace is deleted. From then on every key and every charge is refused. The row stays for the ledger.
  deleted_at_ms         INTEGER,
  -- When the last upload of a deleted workspace was removed. Until then, the row is a work item of the cleaner.
  emptied_at_ms         INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX workspaces_by_slug ON workspaces (slug) WHERE deleted_at_ms IS NULL;
-- The workspaces that count towards their owner's limit. Counting them must not get slower with each one ever deleted.
CREATE INDEX workspaces_by_owner ON workspaces (created_by) WHERE deleted_at_ms IS NULL OR emptied_at_ms IS NULL;
-- If a workspace is restored by hand and deleted again, it must be emptied again.
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
  -- SHA-256 of the key in lower-case hex. The key itself is shown once and stored nowhere.
  key_sha256        TEXT NOT NULL CHECK (length(key_sha256) = 64),
  -- The last four characters, so that a person can tell keys apart in a list.
  key_suffix        TEXT NOT NULL,
  scopes_json       TEXT NOT NULL,
  -- NULL: as in the setting; 0: unlimited.
  rate_limit_per_min INTEGER CHECK (rate_limit_per_min >= 0),
  created_at_ms     INTEGER NOT NULL,
  expires_at_ms     INTEGER,
  revoked_at_ms     INTEGER,
  -- Written lazily, about a minute late.
  last_used_at_ms   INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX api_keys_by_sha256 ON api_keys (key_sha256);
CREATE INDEX api_keys_by_workspace ON api_keys (workspace_id, id);

-- A confirm binds an upload to a context: a workflow or an assistant session. (The context types "playground" and
-- "workspace" are the workspace itself and have no row here.) Deleting a context deletes its row; its uploads keep its id.
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
  updated_at_ms     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- Covers everything a list orders and searches by: rows are long, and their last columns come after the definition.
CREATE INDEX contexts_by_workspace ON contexts (workspace_id, type, updated_at_ms, id, name);

-- A key has the form  staging|final / <installation> / <upload id> / <32 hex digits>.  It contains the
-- upload's id, so "one key, one upload" holds in both directions without an index.
CREATE TABLE uploads (
  id                  TEXT PRIMARY KEY CHECK (length(id) = 36),
  user_id             TEXT NOT NULL REFERENCES users (id),
  workspace_id        TEXT REFERENCES workspaces (id),
  filename            TEXT NOT NULL,
  category            TEXT NOT NULL,
  content_type        TEXT NOT NULL,
  format              TEXT,
  status              TEXT NOT NULL CHECK (status IN ('pending', 'uploaded')),
  -- Stated by the caller at create; the signed URL then accepts exactly this length.
  stated_size_bytes   INTEGER,
  -- Reported by the store for the object that was charged; never a client's figure.
  size_bytes          INTEGER CHECK (size_bytes BETWEEN 0 AND 9007199254740991),
  etag                TEXT,
  char_count          INTEGER,
  line_count          INTEGER,
  context_type        TEXT,
  context_id          TEXT,
  object_key          TEXT NOT NULL,
  url_expires_at_ms   INTEGER NOT NULL,
  -- When a pending row expires. A confirm moves it beyond its own lease.
  expires_at_ms       INTEGER NOT NULL,
  created_at_ms       INTEGER NOT NULL,
  -- For a confirmed row, the time of its confirm: nothing changes it later.
  updated_at_ms       INTEGER NOT NULL,
  -- Bytes known to be under the staging key of a pending row, written just after the PUT; NULL: unknown. The books do not
  -- depend on it: it limits how much one owner may have staged.
  staged_size_bytes   INTEGER CHECK (staged_size_bytes BETWEEN 0 AND 9007199254740991),
  -- Stated by the caller at create, in lower-case hex; the signed URL then accepts only these bytes.
  checksum_sha256     TEXT CHECK (length(checksum_sha256) = 64),
  CHECK ((status = 'uploaded') = (size_bytes IS NOT NULL)),
  CHECK (status = 'pending' OR workspace_id IS NOT NULL)
) STRICT, WITHOUT ROWID;
-- Includes the columns that lists filter by, so that skipping rows that do not match needs only the index.
CREATE INDEX uploads_by_workspace ON uploads (workspace_id, id, status, category, created_at_ms, filename);
CREATE INDEX uploads_personal ON uploads (user_id, id, status, category, created_at_ms, filename, workspace_id)
 WHERE workspace_id IS NULL;
CREATE INDEX uploads_by_context ON uploads (context_id, id) WHERE context_id IS NOT NULL;
-- Includes the sizes, so that the usage figures and the limit on staged bytes need only the index.
CREATE INDEX uploads_pending_by_owner ON uploads (workspace_id, user_id, stated_size_bytes, staged_size_bytes)
 WHERE status = 'pending';
CREATE INDEX uploads_pending_by_expiry ON uploads (expires_at_ms) WHERE status = 'pending';
-- Covers the usage figures of scripts, by the time of their confirm.
CREATE INDEX uploads_scripts_by_confirm ON uploads (workspace_id, updated_at_ms, char_count, line_count)
 WHERE status = 'uploaded' AND char_count IS NOT NULL;

-- Results of requests with an Idempotency-Key, so that they can be repeated for a day. A row is written in the same
-- transaction as the change it describes. URLs are not stored: they are signed again.
CREATE TABLE idempotency_keys (
  -- The id of an API key or, for sessions, of a user.
  caller_id         TEXT NOT NULL,
  idempotency_key   TEXT NOT NULL CHECK (length(idempotency_key) BETWEEN 1 AND 255),
  -- Covers method, path, selected workspace and body.
  request_sha256    TEXT NOT NULL CHECK (length(request_sha256) = 64),
  upload_id         TEXT NOT NULL,
  -- Only for a create: the row of a confirmed upload no longer names it, and the URL must stay the same while it is valid.
  staging_key       TEXT,
  expires_at_ms     INTEGER NOT NULL,
  PRIMARY KEY (caller_id, idempotency_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at_ms);
-- Counts a caller's keys from the index alone.
CREATE INDEX idempotency_keys_by_caller ON idempotency_keys (caller_id, expires_at_ms);

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
-- Includes the kind, so that finding one kind does not read the rows of the others.
CREATE INDEX storage_events_by_workspace ON storage_events (workspace_id, seq, kind);
CREATE UNIQUE INDEX storage_events_once ON storage_events (upload_id, kind) WHERE upload_id IS NOT NULL;

-- The outbox: objects that no row names and that the cleaner must remove.
CREATE TABLE object_removals (
  seq             INTEGER PRIMARY KEY CHECK (seq > 0),
  object_key      TEXT NOT NULL UNIQUE,
  upload_id       TEXT NOT NULL,
  -- Bytes known to be under the key; NULL: unknown. The books do not depend on it: it shows what the store still holds.
  size_bytes      INTEGER,
  entered_at_ms   INTEGER NOT NULL,
  -- 0 means "at once". A confirm enters its final key with a time by which its copy must have ended: its lease.
  due_at_ms       INTEGER NOT NULL,
  -- If something may still arrive under the key after the removal (a PUT that began in time, a copy without a response), the
  -- key is removed a second time at this time.
  again_at_ms     INTEGER,
  -- Set, durably, before the store is called. A confirm whose lease was taken fails rather than charge an object that is
  -- being removed.
  taken_at_ms     INTEGER,
  attempts        INTEGER NOT NULL DEFAULT 0,
  last_error      TEXT,
  -- For a staging key that a row gave up: its owner, and the length that its URL accepts (NULL: any). Until the entry is
  -- deleted, something may still be PUT there, so it counts for that workspace or person.
  owner_id        TEXT,
  stated_size_bytes INTEGER,
  -- When it should first have been removed; postponing due_at_ms does not change this. NULL: since entered_at_ms.
  first_due_at_ms INTEGER,
  -- The creator of the upload whose deletion entered this; NULL: it was not a deletion. Copied to removed_objects.
  user_id         TEXT
) STRICT;
CREATE INDEX object_removals_by_due ON object_removals (due_at_ms) WHERE taken_at_ms IS NULL;
CREATE INDEX object_removals_by_owner ON object_removals (owner_id, stated_size_bytes) WHERE owner_id IS NOT NULL;

-- The end of a deleted upload: written when one of its objects was removed and the entry in the outbox settled. Kept forever
-- like the ledger, which only knows uploads that were charged. Objects still in the outbox are yet to be removed.
CREATE TABLE removed_objects (
  upload_id       TEXT PRIMARY KEY,
  -- For an upload that was never charged: the workspace, or the person if it was in none. NULL: the ledger names the owner.
  owner_id        TEXT,
  user_id         TEXT,
  deleted_at_ms   INTEGER,
  -- When the latest entry was settled.
  removed_at_ms   INTEGER NOT NULL,
  -- How often removing its objects was attempted, including the attempts that succeeded.
  attempts        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

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

-- The id is part of the key: with a slash, a dot or a NUL in it, the key could name a different file on disk. (trim is used
-- because length and GLOB stop at a NUL.)
CREATE TRIGGER uploads_start_pending BEFORE INSERT ON uploads
 WHEN NEW.status IS NOT 'pending'
   OR length(NEW.id) IS NOT 36 OR trim(NEW.id, '0123456789abcdef-') IS NOT ''
   OR EXISTS (SELECT 1 FROM uploads WHERE id = NEW.id)
   OR EXISTS (SELECT 1 FROM storage_events WHERE upload_id = NEW.id)
   OR NEW.object_key IS NOT 'staging/' || (SELECT id FROM installation) || '/' || NEW.id || '/' || substr(NEW.object_key, -32)
   OR substr(NEW.object_key, -32) GLOB '*[^0-9a-f]*'
   OR EXISTS (SELECT 1 FROM object_removals WHERE object_key = NEW.object_key)
BEGIN SELECT RAISE(ABORT, 'an upload starts as pending, once, with a staging key of its own'); END;

-- Otherwise a request that began just before the workspace was deleted could leave a row behind the cleaner.
CREATE TRIGGER uploads_start_in_no_deleted_workspace BEFORE INSERT ON uploads
 WHEN (SELECT deleted_at_ms FROM workspaces WHERE id = NEW.workspace_id) IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'workspace_deleted: a deleted workspace takes no uploads'); END;

-- Only the step from pending to uploaded may change key, size, ETag, workspace and status.
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

-- The gate. Equality passes. An unknown or deleted workspace accepts nothing.
CREATE TRIGGER uploads_gate BEFORE UPDATE OF status ON uploads
 WHEN OLD.status = 'pending' AND NEW.status = 'uploaded'
  AND coalesce((SELECT storage_bytes_used + NEW.size_bytes > storage_bytes_quota OR deleted_at_ms IS NOT NULL
                  FROM workspaces WHERE id = NEW.workspace_id), 1)
BEGIN SELECT RAISE(ABORT, 'over_quota: the workspace has no room for these bytes, or it is deleted'); END;

CREATE TRIGGER uploads_charge AFTER UPDATE OF status ON uploads
 WHEN OLD.status = 'pending' AND NEW.status = 'uploaded'
BEGIN
  INSERT INTO storage_events (workspace_id, upload_id, kind, bytes, balance_bytes, at_ms)
  SELECT id, NEW.id, 'charge', NEW.size_bytes, storage_bytes_used + NEW.size_bytes, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)
    FROM workspaces WHERE id = NEW.workspace_id;
  -- UPDATE OR IGNORE reaches into this trigger: an insert that it skipped must not pass unseen.
  SELECT RAISE(ABORT, 'a confirm books its charge') WHERE changes() IS NOT 1;
  -- The staging object goes now, and once more when its URL has expired: a PUT may have begun before. Its owner is who was
  -- given the URL, also if a person's upload is confirmed into a workspace: their place, not a new one of the workspace's.
  -- A final key with the digits of the staging key is no copy: it is the staged object itself, sealed. Nothing is left to go.
  INSERT INTO object_removals (object_key, upload_id, size_bytes, entered_at_ms, due_at_ms, again_at_ms, owner_id, stated_size_bytes)
  SELECT OLD.object_key, OLD.id, NEW.size_bytes, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER), 0, OLD.url_expires_at_ms,
         coalesce(OLD.workspace_id, OLD.user_id), OLD.stated_size_bytes
   WHERE substr(NEW.object_key, -32) IS NOT substr(OLD.object_key, -32);
  SELECT RAISE(ABORT, 'a confirm gives up its staging key')
   WHERE changes() IS NOT (substr(NEW.object_key, -32) IS NOT substr(OLD.object_key, -32));
END;

CREATE TRIGGER uploads_release AFTER DELETE ON uploads
BEGIN
  INSERT INTO storage_events (workspace_id, upload_id, kind, bytes, balance_bytes, at_ms)
  SELECT id, OLD.id, 'release', -OLD.size_bytes, storage_bytes_used - OLD.size_bytes, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)
    FROM workspaces WHERE id = OLD.workspace_id AND OLD.status = 'uploaded';
  SELECT RAISE(ABORT, 'a delete books its release') WHERE changes() IS NOT (OLD.status = 'uploaded');
  INSERT INTO object_removals (object_key, upload_id, size_bytes, entered_at_ms, due_at_ms, again_at_ms, owner_id, stated_size_bytes,
                               user_id)
  VALUES (OLD.object_key, OLD.id, coalesce(OLD.size_bytes, OLD.staged_size_bytes), CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER), 0,
          CASE OLD.status WHEN 'pending' THEN OLD.url_expires_at_ms END,
          CASE OLD.status WHEN 'pending' THEN coalesce(OLD.workspace_id, OLD.user_id) END,
          CASE OLD.status WHEN 'pending' THEN OLD.stated_size_bytes END,
          OLD.user_id);
  SELECT RAISE(ABORT, 'a delete gives up its key') WHERE changes() IS NOT 1;
END;

-- storage_events ------------------------------------------------------------------------------------------------------

-- The ledger books only what happened. (If seq was left out, it is -1 here, and SQLite then chooses the next one.)
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

-- Only keys of this installation can be entered: the schema limits what the cleaner may remove.
CREATE TRIGGER object_removals_unreferenced BEFORE INSERT ON object_removals
 WHEN NEW.object_key IS NOT 'final/' || (SELECT id FROM installation) || '/' || NEW.upload_id || '/' || substr(NEW.object_key, -32)
      AND NEW.object_key IS NOT 'staging/' || (SELECT id FROM installation) || '/' || NEW.upload_id || '/' || substr(NEW.object_key, -32)
   OR length(NEW.upload_id) IS NOT 36 OR trim(NEW.upload_id, '0123456789abcdef-') IS NOT ''
   OR substr(NEW.object_key, -32) GLOB '*[^0-9a-f]*'
   OR EXISTS (SELECT 1 FROM uploads WHERE id = NEW.upload_id AND object_key = NEW.object_key)
   OR EXISTS (SELECT 1 FROM object_removals WHERE object_key = NEW.object_key)
   OR NEW.seq IS NOT -1 AND NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM object_removals)
BEGIN SELECT RAISE(ABORT, 'an upload names that object, or it is entered already, or it is not ours'); END;

-- With checks disabled, a row numbered -1 could be stored, and REPLACE could then displace it unseen.
CREATE TRIGGER object_removals_number_from_one AFTER INSERT ON object_removals
 WHEN NEW.seq < 1
BEGIN SELECT RAISE(ABORT, 'entries are numbered from 1'); END;

-- Not UPDATE OF, because seq has a second name, rowid, which would not be in the list.
CREATE TRIGGER object_removals_keep_object BEFORE UPDATE ON object_removals
 WHEN NEW.seq IS NOT OLD.seq OR NEW.object_key IS NOT OLD.object_key OR NEW.upload_id IS NOT OLD.upload_id
BEGIN SELECT RAISE(ABORT, 'an entry keeps its object'); END;

-- removed_objects -----------------------------------------------------------------------------------------------------

-- Runs before REPLACE could displace a row.
CREATE TRIGGER removed_objects_enter_once BEFORE INSERT ON removed_objects
 WHEN EXISTS (SELECT 1 FROM removed_objects WHERE upload_id = NEW.upload_id)
BEGIN SELECT RAISE(ABORT, 'what was removed stays on record'); END;

-- Known values stay as they are; the time of the latest removal and the number of attempts never decrease.
CREATE TRIGGER removed_objects_only_learn BEFORE UPDATE ON removed_objects
 WHEN NEW.upload_id IS NOT OLD.upload_id
   OR OLD.owner_id IS NOT NULL AND NEW.owner_id IS NOT OLD.owner_id
   OR OLD.user_id IS NOT NULL AND NEW.user_id IS NOT OLD.user_id
   OR OLD.deleted_at_ms IS NOT NULL AND NEW.deleted_at_ms IS NOT OLD.deleted_at_ms
   OR NEW.removed_at_ms < OLD.removed_at_ms OR NEW.attempts < OLD.attempts
BEGIN SELECT RAISE(ABORT, 'what was removed stays on record'); END;

CREATE TRIGGER removed_objects_stay BEFORE DELETE ON removed_objects
BEGIN SELECT RAISE(ABORT, 'what was removed stays on record'); END;

-- installation --------------------------------------------------------------------------------------------------------

CREATE TRIGGER installation_stays BEFORE DELETE ON installation
BEGIN SELECT RAISE(ABORT, 'the installation keeps its id'); END;

CREATE TRIGGER installation_keeps_id BEFORE UPDATE ON installation
 WHEN NEW.id IS NOT OLD.id OR NEW.only_row IS NOT OLD.only_row
BEGIN SELECT RAISE(ABORT, 'the installation keeps its id'); END;

CREATE TRIGGER installation_is_one BEFORE INSERT ON installation
BEGIN SELECT RAISE(ABORT, 'the installation keeps its id'); END;
