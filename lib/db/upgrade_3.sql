-- From schema version 2 to 3. A fresh file is made by schema.sql alone: what stands here must lead to the same schema.

-- Where the objects are, and which run of the program wrote the marker last.
ALTER TABLE installation ADD COLUMN store_json TEXT;
ALTER TABLE installation ADD COLUMN marker_written_at_ms INTEGER;
ALTER TABLE installation ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;

-- The checksum that a create may state.
ALTER TABLE uploads ADD COLUMN checksum_sha256 TEXT CHECK (length(checksum_sha256) = 64);

-- Which log the newest changes are in.
ALTER TABLE installation ADD COLUMN log_start_json TEXT;

-- Since when an entry could have been removed, and how the end of a deleted upload is shown. Of entries that failed it is not
-- known when they were first due: they count from their entering on.
ALTER TABLE object_removals ADD COLUMN first_due_at_ms INTEGER;
ALTER TABLE object_removals ADD COLUMN user_id TEXT;
UPDATE object_removals SET first_due_at_ms = due_at_ms WHERE due_at_ms > entered_at_ms AND last_error IS NULL;
CREATE TABLE removed_objects (
  upload_id       TEXT PRIMARY KEY,
  owner_id        TEXT,
  user_id         TEXT,
  deleted_at_ms   INTEGER,
  removed_at_ms   INTEGER NOT NULL,
  attempts        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER removed_objects_enter_once BEFORE INSERT ON removed_objects
 WHEN EXISTS (SELECT 1 FROM removed_objects WHERE upload_id = NEW.upload_id)
BEGIN SELECT RAISE(ABORT, 'what was removed stays on record'); END;
CREATE TRIGGER removed_objects_only_learn BEFORE UPDATE ON removed_objects
 WHEN NEW.upload_id IS NOT OLD.upload_id
   OR OLD.owner_id IS NOT NULL AND NEW.owner_id IS NOT OLD.owner_id
   OR OLD.user_id IS NOT NULL AND NEW.user_id IS NOT OLD.user_id
   OR OLD.deleted_at_ms IS NOT NULL AND NEW.deleted_at_ms IS NOT OLD.deleted_at_ms
   OR NEW.removed_at_ms < OLD.removed_at_ms OR NEW.attempts < OLD.attempts
BEGIN SELECT RAISE(ABORT, 'what was removed stays on record'); END;
CREATE TRIGGER removed_objects_stay BEFORE DELETE ON removed_objects
BEGIN SELECT RAISE(ABORT, 'what was removed stays on record'); END;

-- What is known to be staged for a pending upload is known of the entry that takes its place.
DROP TRIGGER uploads_release;
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
-- An entry whose first removal is made says nothing of what lies there now.
UPDATE object_removals SET size_bytes = NULL WHERE owner_id IS NOT NULL AND again_at_ms IS NULL;
