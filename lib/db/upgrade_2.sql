-- From schema version 1 to 2. A fresh file is made by schema.sql alone: what stands here must lead to the same schema.

-- Lists: what they filter and order by is in the index; personal uploads have one in the order of ids.
DROP INDEX uploads_by_workspace;
CREATE INDEX uploads_by_workspace ON uploads (workspace_id, id, status, category);
CREATE INDEX uploads_personal ON uploads (user_id, id, status, category, workspace_id) WHERE workspace_id IS NULL;
DROP INDEX contexts_by_workspace;
CREATE INDEX contexts_by_workspace ON contexts (workspace_id, type, updated_at_ms, id, name, deleted_at_ms) WHERE deleted_at_ms IS NULL;
