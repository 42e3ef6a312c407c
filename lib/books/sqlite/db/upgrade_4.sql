-- From schema version 3 to 4. A fresh file is made by schema.sql alone: these steps must lead to the same schema.

-- Written and never read: a repeated request is answered from the upload's row.
ALTER TABLE idempotency_keys DROP COLUMN status;
