-- From schema version 1 to 2. A fresh file is made by schema.sql alone: what stands here must lead to the same schema.

-- The row of a deleted workflow goes. Nobody will come back to empty workspaces that were emptied before.
DROP INDEX contexts_by_workspace;
DELETE FROM contexts
 WHERE deleted_at_ms IS NOT NULL
    OR workspace_id IN (SELECT id FROM workspaces WHERE deleted_at_ms IS NOT NULL);
ALTER TABLE contexts DROP COLUMN deleted_at_ms;
CREATE INDEX contexts_by_workspace ON contexts (workspace_id, type, updated_at_ms, id, name);
DELETE FROM memberships WHERE workspace_id IN (SELECT id FROM workspaces WHERE deleted_at_ms IS NOT NULL);

-- What bounds rows is counted by index.
DROP INDEX workspaces_by_owner;
CREATE INDEX workspaces_by_owner ON workspaces (created_by) WHERE deleted_at_ms IS NULL OR emptied_at_ms IS NULL;
CREATE INDEX idempotency_keys_by_caller ON idempotency_keys (caller_id, expires_at_ms);

-- What is staged, for each owner: the sizes that are known, and the URLs that outlive their uploads.
ALTER TABLE uploads ADD COLUMN staged_size_bytes INTEGER CHECK (staged_size_bytes BETWEEN 0 AND 9007199254740991);
DROP INDEX uploads_pending_by_owner;
CREATE INDEX uploads_pending_by_owner ON uploads (workspace_id, user_id, stated_size_bytes, staged_size_bytes)
 WHERE status = 'pending';
ALTER TABLE object_removals ADD COLUMN owner_id TEXT;
ALTER TABLE object_removals ADD COLUMN stated_size_bytes INTEGER;
CREATE INDEX object_removals_by_owner ON object_removals (owner_id, stated_size_bytes) WHERE owner_id IS NOT NULL;
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
  INSERT INTO object_removals (object_key, upload_id, size_bytes, entered_at_ms, due_at_ms, again_at_ms, owner_id, stated_size_bytes)
  VALUES (OLD.object_key, OLD.id, NEW.size_bytes, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER), 0, OLD.url_expires_at_ms,
          coalesce(OLD.workspace_id, OLD.user_id), OLD.stated_size_bytes);
  SELECT RAISE(ABORT, 'a confirm gives up its staging key') WHERE changes() IS NOT 1;
END;
DROP TRIGGER uploads_release;
CREATE TRIGGER uploads_release AFTER DELETE ON uploads
BEGIN
  INSERT INTO storage_events (workspace_id, upload_id, kind, bytes, balance_bytes, at_ms)
  SELECT id, OLD.id, 'release', -OLD.size_bytes, storage_bytes_used - OLD.size_bytes, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)
    FROM workspaces WHERE id = OLD.workspace_id AND OLD.status = 'uploaded';
  SELECT RAISE(ABORT, 'a delete books its release') WHERE changes() IS NOT (OLD.status = 'uploaded');
  INSERT INTO object_removals (object_key, upload_id, size_bytes, entered_at_ms, due_at_ms, again_at_ms, owner_id, stated_size_bytes)
  VALUES (OLD.object_key, OLD.id, OLD.size_bytes, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER), 0,
          CASE OLD.status WHEN 'pending' THEN OLD.url_expires_at_ms END,
          CASE OLD.status WHEN 'pending' THEN coalesce(OLD.workspace_id, OLD.user_id) END,
          CASE OLD.status WHEN 'pending' THEN OLD.stated_size_bytes END);
  SELECT RAISE(ABORT, 'a delete gives up its key') WHERE changes() IS NOT 1;
END;

-- Lists: what they filter and order by is in the index; personal uploads have one in the order of ids.
DROP INDEX uploads_by_workspace;
CREATE INDEX uploads_by_workspace ON uploads (workspace_id, id, status, category);
CREATE INDEX uploads_personal ON uploads (user_id, id, status, category, workspace_id) WHERE workspace_id IS NULL;

-- Times of the installation that a restart must not forget.
ALTER TABLE installation ADD COLUMN looked_at_ms INTEGER;
ALTER TABLE installation ADD COLUMN clock_trusted_at_ms INTEGER;
ALTER TABLE installation ADD COLUMN clock_doubted_at_ms INTEGER;
