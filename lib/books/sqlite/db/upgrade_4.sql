-- From schema version 3 to 4. A fresh file is made by schema.sql alone: these steps must lead to the same schema.

-- Written and never read: a repeated request is answered from the upload's row.
ALTER TABLE idempotency_keys DROP COLUMN status;

-- Lists are filtered by filename and time of creation as well, still without reading a row.
DROP INDEX uploads_by_workspace;
CREATE INDEX uploads_by_workspace ON uploads (workspace_id, id, status, category, created_at_ms, filename);
DROP INDEX uploads_personal;
CREATE INDEX uploads_personal ON uploads (user_id, id, status, category, created_at_ms, filename, workspace_id)
 WHERE workspace_id IS NULL;
