-- Bulk query jobs. `columns` is JSON: name and category of each column of a finished result.
-- A deleted job keeps its row until no daily count needs it; its result table is gone.
CREATE SCHEMA IF NOT EXISTS meta;
CREATE TABLE IF NOT EXISTS meta.query_job (
    id VARCHAR, number BIGINT, operation VARCHAR, object VARCHAR, query VARCHAR, column_delimiter VARCHAR,
    line_ending VARCHAR, api_version VARCHAR, created_by_id VARCHAR, created_date TIMESTAMP, system_modstamp TIMESTAMP,
    state VARCHAR, records BIGINT, processing_ms BIGINT, error_message VARCHAR, columns VARCHAR, deleted BOOLEAN
);
-- What a result takes of the day's result storage.
ALTER TABLE meta.query_job ADD COLUMN IF NOT EXISTS result_bytes BIGINT DEFAULT 0;
