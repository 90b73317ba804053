-- Everything about the org that is not a record: metadata, jobs, uploads, outcomes, usage.
CREATE SCHEMA IF NOT EXISTS meta;
CREATE SCHEMA IF NOT EXISTS data;

-- Facts by name: form of this file, schema document, org id, seed.
CREATE TABLE IF NOT EXISTS meta.info (name VARCHAR, value VARCHAR);

-- Next running number by name: key prefixes for Ids, `upload` for uploads.
CREATE TABLE IF NOT EXISTS meta.counter (name VARCHAR, next BIGINT);

-- Next auto-number by `Object.Field`; changed in the transaction of the records that take the numbers.
CREATE TABLE IF NOT EXISTS meta.auto_number (field VARCHAR, next BIGINT);

-- One row per ingest job. `upload` numbers the file that belongs to it, null before the PUT.
CREATE TABLE IF NOT EXISTS meta.ingest_job (
    id VARCHAR, number BIGINT, operation VARCHAR, object VARCHAR, external_id_field VARCHAR, assignment_rule_id VARCHAR,
    column_delimiter VARCHAR, line_ending VARCHAR, api_version DOUBLE, created_by_id VARCHAR, created_date TIMESTAMP,
    system_modstamp TIMESTAMP, state VARCHAR, closed_date TIMESTAMP, ended_date TIMESTAMP, error_message VARCHAR,
    processing_ms BIGINT, apex_ms BIGINT, upload BIGINT, closed_number BIGINT
);

-- Salesforce batches whose rows are committed, a row for each time that one was worked on; written with the rows.
CREATE TABLE IF NOT EXISTS meta.ingest_batch (job BIGINT, batch BIGINT, records BIGINT, failed BIGINT);

-- Salesforce batches that were put back into the queue: how often after lock failures, how often after five minutes.
CREATE TABLE IF NOT EXISTS meta.ingest_requeue (
    job BIGINT, batch BIGINT, locks BIGINT, timeouts BIGINT, pending BOOLEAN
);

-- What became of each row of an upload; `row_no` counts from 0 in the order of the file. `error` null means success.
CREATE TABLE IF NOT EXISTS meta.ingest_outcome (job BIGINT, row_no BIGINT, id VARCHAR, created BOOLEAN, error VARCHAR);

-- What deletions took along, so that an undelete can bring it back: details with the record they fell with (`field`
-- null), and lookups that were emptied, with what they held.
CREATE TABLE IF NOT EXISTS meta.recycled (id VARCHAR, root VARCHAR, object VARCHAR, field VARCHAR, value VARCHAR);

-- Rows and Salesforce batches consumed, and API requests, by the minute; summed over a rolling day.
CREATE TABLE IF NOT EXISTS meta.bulk_usage (moment TIMESTAMP, records BIGINT, batches BIGINT);
CREATE TABLE IF NOT EXISTS meta.api_usage (moment TIMESTAMP, requests BIGINT);
