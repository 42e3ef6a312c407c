-- From schema version 1 to 2. A fresh file is made by schema.sql alone: what stands here must lead to the same schema.

-- The row of a deleted workflow goes. Nobody will come back to empty workspaces that were emptied before.
DROP INDEX contexts_by_workspace;
DELETE FROM contexts
 WHERE deleted_at_ms IS NOT NULL
    OR workspace_id IN (SELECT id FROM workspaces WHERE deleted_at_ms IS NOT NULL);
ALTER TABLE contexts DROP COLUMN deleted_at_ms;
CREATE INDEX contexts_by_workspace ON contexts (workspace_id, type, updated_at_ms, id);
DELETE FROM memberships WHERE workspace_id IN (SELECT id FROM workspaces WHERE deleted_at_ms IS NOT NULL);

-- What bounds rows is counted by index.
DROP INDEX workspaces_by_owner;
CREATE INDEX workspaces_by_owner ON workspaces (created_by) WHERE deleted_at_ms IS NULL OR emptied_at_ms IS NULL;
CREATE INDEX idempotency_keys_by_caller ON idempotency_keys (caller_id, expires_at_ms);
