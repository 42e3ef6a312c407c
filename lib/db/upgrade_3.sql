-- From schema version 2 to 3. A fresh file is made by schema.sql alone: what stands here must lead to the same schema.

-- Where the objects are, and which run of the program wrote the marker last.
ALTER TABLE installation ADD COLUMN store_json TEXT;
ALTER TABLE installation ADD COLUMN marker_written_at_ms INTEGER;
ALTER TABLE installation ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;

-- The checksum that a create may state.
ALTER TABLE uploads ADD COLUMN checksum_sha256 TEXT CHECK (length(checksum_sha256) = 64);

-- Which log the newest changes are in.
ALTER TABLE installation ADD COLUMN log_start_json TEXT;
