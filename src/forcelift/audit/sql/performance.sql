-- Performance metrics
SELECT
    TABLE_NAME,
    ROUND(AVG(EXTRACTED_COUNT / NULLIF(DURATION_SECONDS, 0)), 0) as avg_records_per_sec,
    ROUND(AVG(DURATION_SECONDS), 1) as avg_chunk_duration,
    MAX(DURATION_SECONDS) as max_chunk_duration
FROM MIGRATION_AUDIT_LOG
WHERE BATCH_ID = :current_batch_id
  AND STATUS = 'SUCCESS'
GROUP BY TABLE_NAME;
