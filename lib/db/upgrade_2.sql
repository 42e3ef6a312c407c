-- From schema version 1 to 2. A fresh file is made by schema.sql alone: what stands here must lead to the same schema.

-- Lists of uploads: filters are answered by the index, and personal uploads have one in the order of ids.
DROP INDEX uploads_by_workspace;
CREATE INDEX uploads_by_workspace ON uploads (workspace_id, id, status, category);
CREATE INDEX uploads_personal ON uploads (user_id, id, status, category) WHERE workspace_id IS NULL;
