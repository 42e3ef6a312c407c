-- From schema version 3 to 4. A fresh file is made by schema.sql alone: these steps must lead to the same schema.

-- Written and never read: the response to a repeated request is made from the upload's row.
ALTER TABLE idempotency_keys DROP COLUMN status;

ALTER TABLE installation RENAME COLUMN looked_at_ms TO staging_scanned_at_ms;

-- Lists are filtered by filename and time of creation as well, still without reading a row.
DROP INDEX uploads_by_workspace;
CREATE INDEX uploads_by_workspace ON uploads (workspace_id, id, status, category, created_at_ms, filename);
DROP INDEX uploads_personal;
CREATE INDEX uploads_personal ON uploads (user_id, id, status, category, created_at_ms, filename, workspace_id)
 WHERE workspace_id IS NULL;

-- A sealed object keeps the random digits of its staging key, and leaves nothing behind to remove.
DROP TRIGGER uploads_charge;
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

-- Refusals that the program recognises have codes.
DROP TRIGGER uploads_start_in_no_deleted_workspace;
CREATE TRIGGER uploads_start_in_no_deleted_workspace BEFORE INSERT ON uploads
 WHEN (SELECT deleted_at_ms FROM workspaces WHERE id = NEW.workspace_id) IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'workspace_deleted: a deleted workspace takes no uploads'); END;
DROP TRIGGER uploads_gate;
CREATE TRIGGER uploads_gate BEFORE UPDATE OF status ON uploads
 WHEN OLD.status = 'pending' AND NEW.status = 'uploaded'
  AND coalesce((SELECT storage_bytes_used + NEW.size_bytes > storage_bytes_quota OR deleted_at_ms IS NOT NULL
                  FROM workspaces WHERE id = NEW.workspace_id), 1)
BEGIN SELECT RAISE(ABORT, 'over_quota: the workspace has no room for these bytes, or it is deleted'); END;
